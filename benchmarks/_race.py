"""Contenders timed in turn, in one process."""

import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison; `ratio` is our time over the peer's, the median of the rounds."""

    task: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float


def race(
    task: str,
    peer: str,
    run_ours: Callable[[], object],
    run_peer: Callable[[], object],
    rounds: int = 31,
) -> Row:
    """Time both once a round, in random order, after one untimed run of each."""
    contenders = {"ours": run_ours, "peer": run_peer}
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in random.sample(list(contenders), 2):
            start = time.perf_counter()
            contenders[name]()
            times[name].append(1000 * (time.perf_counter() - start))
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times["peer"], strict=True)]
    return Row(
        task,
        peer,
        statistics.median(times["ours"]),
        statistics.median(times["peer"]),
        statistics.median(ratios),
    )
