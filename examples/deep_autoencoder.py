"""Train an autoencoder of 20 layers with SGD, Adam and NewtonCG, for equally many seconds.

    python examples/deep_autoencoder.py
    python examples/deep_autoencoder.py --seconds 20 --images 5000

It takes fashion_mnist from TFDS_DATA_DIR. The network has layers of 200 to 16 and back to 200 tanh
units, a linear output of 784, and the weights that Keras starts from; the error is the mean square
of a pixel. SGD with momentum 0.9 and Adam run with batches of 100 at four rates each, of which the
best counts; NewtonCG with batches of 1,000 at its defaults, but 30 iterations. The output folder
gets autoencoder.png: the error against seconds and against updates.

Measured on two CPU cores, 20 seconds each: Adam at its best rate of 0.001 ends at 0.0172, SGD at
its best, 1, at 0.0203, NewtonCG at 0.0279. NewtonCG takes 30 updates in that time, Adam 3,950: per
update it is far ahead, but one costs as much as a hundred. So on this task, at this size and on a
CPU, a well-tuned first-order method is the better choice; NewtonCG has no rate to tune.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from matplotlib.figure import Figure

import kerasopt

HALF = (200, 150, 100, 75, 50, 40, 30, 25, 20)
UNITS = (*HALF, 16, *reversed(HALF))
COLOURS = {"SGD": "#009E73", "Adam": "#0072B2", "NewtonCG": "#D55E00"}


class Run(NamedTuple):
    """Seconds, updates and errors of all images, after each epoch."""

    name: str
    seconds: list[float]
    updates: list[int]
    errors: list[float]


class Meter(keras.callbacks.Callback):
    """Takes time and error after each epoch but the first, which compiles; ends when time is up."""

    def __init__(self, name: str, images: np.ndarray, seconds: float) -> None:
        super().__init__()
        self.images, self.limit, self.run = tf.constant(images), seconds, Run(name, [], [], [])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop it while the error is taken."""
        spent = time.perf_counter() - self.begun if epoch else 0.0
        away = self.model(self.images) - self.images
        self.run.seconds.append(spent + (self.run.seconds[-1] if epoch else 0.0))
        self.run.updates.append(int(self.model.optimizer.iterations))
        self.run.errors.append(float(tf.reduce_mean(away * away)))
        self.model.stop_training = self.run.seconds[-1] > self.limit


def train(
    name: str, make: Callable[[], Any], batch_size: int, images: np.ndarray, seconds: float
) -> Run:
    """Train from the same first weights for some seconds."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(units, "tanh") for units in UNITS]
    model = kerasopt.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(784)])
    model.compile(make(), "mse")
    data = tf.data.Dataset.from_tensor_slices((images, images)).cache().shuffle(len(images), seed=0)
    meter = Meter(name, images, seconds)
    model.fit(data.batch(batch_size).prefetch(1), epochs=10**6, verbose=0, callbacks=[meter])
    run = meter.run
    print(f"{name}: {run.errors[-1]:.4f} after {run.updates[-1]:,} updates", flush=True)
    return run


def draw(path: Path, runs: list[Run]) -> None:
    """Draw the errors against seconds and against updates."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, across in zip(figure.subplots(1, 2), ("seconds", "updates"), strict=True):
        for run in runs:
            colour = COLOURS[run.name.split("(")[0]]
            axes.plot(getattr(run, across), run.errors, color=colour, label=run.name)
        axes.set(xlabel=across, ylabel="mean square error", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Train and draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/autoencoder"))
    parser.add_argument("--seconds", type=float, default=20, help="of each run (20)")
    parser.add_argument("--images", type=int, default=5_000, help="(5000)")
    options = parser.parse_args(arguments)
    if not tfds.builder("fashion_mnist").is_prepared():
        print("fashion_mnist is not prepared in TFDS_DATA_DIR.", file=sys.stderr)
        return 1
    pixels = tfds.as_numpy(tfds.load("fashion_mnist", split="train", batch_size=-1))["image"]
    images = pixels[: options.images].reshape(-1, 784).astype("float32") / 255
    tuned = []
    for optimizer, rates in (
        (partial(keras.optimizers.SGD, momentum=0.9), (0.03, 0.1, 0.3, 1.0)),
        (keras.optimizers.Adam, (3e-4, 1e-3, 3e-3, 1e-2)),
    ):
        name = optimizer().__class__.__name__
        runs = [
            train(f"{name}({rate:g})", partial(optimizer, rate), 100, images, options.seconds)
            for rate in rates
        ]
        tuned.append(min(runs, key=lambda run: run.errors[-1]))
    newton = partial(kerasopt.optimizers.NewtonCG, cg_iterations=30)
    tuned.append(train("NewtonCG", newton, 1_000, images, options.seconds))
    options.output.mkdir(parents=True, exist_ok=True)
    draw(options.output / "autoencoder.png", tuned)
    for run in tuned:
        marks = [np.searchsorted(run.seconds, part * options.seconds) for part in (1 / 3, 1)]
        words = [f"{run.errors[min(mark, len(run.errors) - 1)]:.4f}" for mark in marks]
        print(f"{run.name}: {words[0]} after a third of the time, {words[1]} at its end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
