"""Measures what a plan needs to know of this machine."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasopt._launch import main
from kerasopt._validation import check_count
from kerasopt.strategies._costs import model_costs, weight_bytes
from kerasopt.strategies._device import Device
from kerasopt.strategies._link import Link
from kerasopt.strategies._step_time import Machine

NORMAL_95 = 1.645  # the 95th percentile of the standard normal distribution
WORKER = str(Path(__file__).with_name("_calibration_worker.py"))


def calibrate(model: keras.Model, batch_size: int, workers: int = 2) -> Machine:
    """Measure this machine's processors as devices for `kerasopt.strategies.plan`.

    `workers` processes with processor cores of their own, as `kerasopt launch --pin` starts them,
    are the devices. At the same time, but each for itself, they train the model on batches of
    `batch_size` and of a quarter of it. Then they train two dense networks on a row each, one with
    few weights and one with a million: each for itself, and all together under
    `kerasopt.strategies.MultiWorker`, which takes Δt longer. With s bytes of weights, from

        t(b) = overhead + W b / r          Δt(s) = 2 (n-1) λ + 2 (n-1)/n s / B

    follow the rate r and the overhead, the latency λ and the bandwidth B. Run it on a quiet
    machine, with the model that is to be trained: how much of a processor's speed is reached
    depends on the model. It takes about a minute.

    Args:
        model: A built model that can be saved; it is not changed.
        batch_size: Samples in a step of all workers together, at least 4.
        workers: Number n of processes, at least 2. Defaults to 2.

    Returns:
        A tuple of `device`, `link` and `variation`, for the arguments `throughput`, `interconnect`
        and `variation` of `plan`. The last is log(p / m) / 1.645 of the 95th percentile p and the
        median m of the step times.

    Raises:
        TypeError: `model` is no Keras model; a number is no integer.
        ValueError: As with `plan`; `batch_size` or `workers` is too small.
        OSError: There are not as many cores as workers, a worker has failed, or the times of large
            and small batches do not differ.

    Reference:
        Hockney, The communication challenge for MPP, 1994, on latency and bandwidth from a line
        through times of messages.

    Example:
        >>> from kerasopt.strategies import calibrate
        >>> calibrate(None, 64)
        Traceback (most recent call last):
        TypeError: `model` must be a Keras model. Received: model=None
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    check_count("batch_size", batch_size, least=4)
    check_count("workers", workers, least=2)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if cores < workers:
        raise OSError(
            "`workers` must have a core each, to which they can be pinned. "
            f"Received: workers={workers}, cores={cores}"
        )
    costs = model_costs(model)
    batches, dense = [batch_size // 4, batch_size], [_dense(width) for width in (1, 1024)]
    sizes = [weight_bytes(each.weights) for each in dense]
    alone = measure(workers, [*((model, b) for b in batches), *((d, 1) for d in dense)], alone=True)
    together = measure(workers, [(each, workers) for each in dense])
    steps = alone[: len(batches)]
    exchanges = together[:, 1] - alone[len(batches) :, 1]
    seconds, overhead = _line(batches, steps[:, 0], "A batch")
    per_byte, latency = _line(sizes, exchanges, "To exchange many weights")
    _, median, high = steps[-1]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    messages = 2 * (workers - 1)
    return Machine(
        Device(costs.work / seconds, pages / workers, efficiency=1.0, overhead=overhead),
        Link(messages / workers / per_byte, latency / messages),
        float(np.log(high / median)) / NORMAL_95,
    )


def _line(x: Sequence[float], seconds: Any, what: str) -> tuple[float, float]:
    """Return slope and height, not below zero, of a line through two times."""
    slope = float(seconds[1] - seconds[0]) / (x[1] - x[0])
    if slope <= 0:
        raise OSError(
            f"{what} took no longer than a smaller one: the machine is too busy to be measured, "
            f"or `batch_size` too small. Received: {x} in {[f'{each:.2g}' for each in seconds]} s"
        )
    return slope, max(0.0, float(seconds[0]) - slope * x[0])


def _dense(width: int) -> keras.Model:
    """Return a network of about width² weights, whose samples are small."""
    return keras.Sequential([keras.Input((1,)), *map(keras.layers.Dense, (width, width, 1))])


def measure(workers: int, runs: list[tuple[keras.Model, int]], alone: bool = False) -> np.ndarray:
    """Return the seconds of a step of each run, a model and a batch size, as a mean over workers.

    Run the workers together, or each alone at the same time. The columns are the mean of the steps,
    their median and their 95th percentile.
    """
    with tempfile.TemporaryDirectory() as folder:
        named = [(str(Path(folder, f"{i}.keras")), batch) for i, (_, batch) in enumerate(runs)]
        for (model, _), (path, _) in zip(runs, named, strict=True):
            model.save(path)
        settings = Path(folder, "settings.json")
        settings.write_text(json.dumps({"alone": alone, "runs": named}))
        launch = ["launch", "--workers", str(workers), "--pin", WORKER, str(settings)]
        if status := main(launch):
            raise OSError(
                f"A worker that was to be measured ended with status {status}, see above."
            )
        results = [Path(folder, f"result-{i}.json").read_text() for i in range(workers)]
    return np.mean([json.loads(each) for each in results], axis=0)
