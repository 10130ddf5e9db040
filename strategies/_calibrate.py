"""Measures what a plan needs to know of this machine."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasopt._launch import main
from kerasopt._validation import check_count
from kerasopt.strategies._costs import model_costs
from kerasopt.strategies._device import Device
from kerasopt.strategies._link import Link
from kerasopt.strategies._step_time import Machine

NORMAL_95 = 1.645  # the 95th percentile of the standard normal distribution
WORKER = str(Path(__file__).with_name("_calibration_worker.py"))


def calibrate(model: keras.Model, batch_size: int, workers: int = 2) -> Machine:
    """Measure this machine's processors as devices for `kerasopt.strategies.plan`.

    `workers` processes with processor cores of their own, as `kerasopt launch --pin` starts them,
    are the devices. At the same time, but each for itself, they train the model on batches of
    `batch_size` and of a quarter of it; then all together add up vectors under
    `kerasopt.strategies.MultiWorker`. From

        t(b) = overhead + W b / r          t(s) = λ + 2 (n-1)/n s / B

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
    batches, sizes = [batch_size // 4, batch_size], [4, 2**22]
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        alone = measure(folder, workers, batches, [], alone=True)
        together = measure(folder, workers, [], sizes)
    steps = np.mean([each["steps"] for each in alone], axis=0)
    exchanges = np.mean([np.median(each["exchanges"], axis=1) for each in together], axis=0)
    seconds, overhead = _line(batches, steps[:, 0], "A batch")
    per_byte, latency = _line(sizes, exchanges, "A long vector")
    _, median, high = steps[-1]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    messages = 2 * (workers - 1)
    return Machine(
        Device(costs.work / seconds, pages / workers, efficiency=1.0, overhead=overhead),
        Link(messages / workers / per_byte, latency / messages),
        float(np.log(high / median)) / NORMAL_95,
    )


def _line(x: list[int], seconds: Any, what: str) -> tuple[float, float]:
    """Return slope and height, not below zero, of a line through two times."""
    slope = float(seconds[1] - seconds[0]) / (x[1] - x[0])
    if slope <= 0:
        raise OSError(
            f"{what} took no longer than a smaller one: the machine is too busy to be measured, "
            f"or `batch_size` too small. Received: {x} in {[f'{each:.2g}' for each in seconds]} s"
        )
    return slope, max(0.0, float(seconds[0]) - slope * x[0])


def measure(
    folder: str, workers: int, batches: list[int], sizes: list[int], alone: bool = False
) -> list[dict[str, Any]]:
    """Run the workers, together or each alone at the same time; return what each has measured."""
    settings = Path(folder, "settings.json")
    values = {"alone": alone, "batches": batches, "sizes": sizes}
    settings.write_text(json.dumps({**values, "model": str(Path(folder, "model.keras"))}))
    if status := main(["launch", "--workers", str(workers), "--pin", WORKER, str(settings)]):
        raise OSError(f"A worker that was to be measured ended with status {status}, see above.")
    return [json.loads(Path(folder, f"result-{i}.json").read_text()) for i in range(workers)]
