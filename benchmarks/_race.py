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


def milliseconds(run: Callable[[], object]) -> float:
    """Return how long a function takes."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def race(
    task: str,
    peer: str,
    run_ours: Callable[[], object],
    run_peer: Callable[[], object],
    rounds: int = 31,
) -> Row:
    """Time both once a round, in random order, after one untimed run of each."""
    run_ours()
    run_peer()
    return compare(
        task,
        peer,
        lambda: milliseconds(run_ours),
        lambda: milliseconds(run_peer),
        rounds,
    )


def compare(
    task: str,
    peer: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    rounds: int,
) -> Row:
    """Let both measure themselves, in milliseconds, once a round and in random order."""
    contenders = {"ours": ours, "peer": theirs}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in random.sample(list(contenders), 2):
            times[name].append(contenders[name]())
    ratios = [mine / other for mine, other in zip(times["ours"], times["peer"], strict=True)]
    return Row(
        task,
        peer,
        statistics.median(times["ours"]),
        statistics.median(times["peer"]),
        statistics.median(ratios),
    )
