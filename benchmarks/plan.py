"""The planner against two processes that are pinned to a processor core each.

python -m benchmarks.plan, on a machine where nothing else runs.
"""

import os
import statistics

import keras
from keras import layers

from kerasopt.strategies import calibrate, plan
from kerasopt.strategies._calibrate import measure

BATCH, WORKERS, ROUNDS = 64, 2, 3


def network(width: int, top: int) -> keras.Model:
    """Return a convolutional network; `top` is the width of its dense layer."""
    convolutions = [layers.Conv2D(width, 3, padding="same", activation="relu") for _ in range(3)]
    head = [layers.MaxPooling2D(4), layers.Flatten(), layers.Dense(top), layers.Dense(10)]
    return keras.Sequential([keras.Input((32, 32, 3)), *convolutions, *head])


def predicted(model: keras.Model) -> float:
    """Return the milliseconds of a step that follow from measuring the machine now."""
    device, link, variation = calibrate(model, BATCH, WORKERS)
    best = plan(model, BATCH, WORKERS, link, device, variation).best("data")
    assert best is not None
    return 1000 * best.step_time


def measured(model: keras.Model) -> float:
    """Return the milliseconds that a step of the workers takes."""
    return 1000 * measure(WORKERS, [(model, BATCH)])[0, 0]


def compare(name: str, model: keras.Model) -> None:
    """Print medians of some rounds, and how busy the machine was."""
    rounds = [(predicted(model), measured(model)) for _ in range(ROUNDS)]
    ours, times = map(statistics.median, zip(*rounds, strict=True))
    ratio = statistics.median(mine / time for mine, time in rounds)
    print(
        f"{name}: predicted {ours:.1f} ms a step, measured {times:.1f}, ratio {ratio:.2f}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        flush=True,
    )


if __name__ == "__main__":
    compare("convolutions, 32 maps", network(32, 8))
    compare("convolutions, 16 maps, and a dense layer of 1 M weights", network(16, 1024))
