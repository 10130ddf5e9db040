"""Train the lecture's network of two columns in five ways, and draw the test error of each.

    python examples/parallelism.py
    python examples/parallelism.py --data-dir tfds --dataset fashion_mnist --epochs 5

The ways are: one device; model parallelism, a column on each of two devices; data parallelism on
two and on four; and both, on a grid of two by two. Each starts from the same weights and sees the
same batches. The output folder gets two pictures: test error against the number of weight updates,
where the curves lie on each other, and against time, where they do not; and curves.csv.

The devices are the GPUs, if there are four, or else logical CPUs, which share the cores of the
machine: then the second picture shows what the ways cost, not what they gain.

Measured with `--epochs 8` on the digits, on four logical devices of two CPU cores, beside other
work: after 184 updates one device, columns and data on four have a test error of 2.78 %, the other
two of 3.06 %, which is one image more, after 8.5, 12.8 and 16.6, and 10.9 (data) and 14.0 seconds.
"""

import argparse
import contextlib
import csv
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers
from matplotlib.figure import Figure

import kerasopt
import kerasopt.data  # registers the dataset `digits`
from kerasopt.layers import Column, CrossConnection, split_columns
from kerasopt.strategies import DataParallel, HybridParallel, ModelParallelColumns

# Okabe and Ito's palette; the widths let lines that lie on each other be seen.
STYLES = {
    "one device": ("#000000", 7.0),
    "2 devices, columns": ("#E69F00", 5.5),
    "2 devices, data": ("#0072B2", 4.0),
    "4 devices, columns and data": ("#009E73", 2.5),
    "4 devices, data": ("#D55E00", 1.0),
}


def strategies() -> dict[str, Any]:
    """Return the five ways by name."""
    kind = "GPU" if len(tf.config.list_physical_devices("GPU")) >= 4 else "CPU"
    names = [f"{kind}:{i}" for i in range(4)]
    ways = [
        None,
        ModelParallelColumns(names[:2]),
        DataParallel(names[:2]),
        HybridParallel([names[:2], names[2:]]),
        DataParallel(names),
    ]
    return dict(zip(STYLES, ways, strict=True))


def network(shape: tuple[int, ...], classes: int, width: int) -> keras.Model:
    """Return two columns that meet after the first convolution, and at the fully connected top."""
    x = keras.Input(shape)
    first = split_columns(layers.Conv2D(width, 3, padding="same", activation="relu"))
    maps = CrossConnection()([column(x) for column in first])
    second = split_columns(layers.Conv2D(2 * width, 3, padding="same", activation="relu"))
    maps = [column(each) for column, each in zip(second, maps, strict=True)]
    tail = [
        Column([layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.2)], i) for i in (0, 1)
    ]
    maps = CrossConnection()([column(each) for column, each in zip(tail, maps, strict=True)])
    top = split_columns(layers.Dense(8 * width, activation="relu"))
    joined = [column(each) for column, each in zip(top, maps, strict=True)]
    return keras.Model(x, layers.Dense(classes)(layers.Concatenate()(joined)))


class TestError(keras.callbacks.Callback):
    """Keeps the test error by weight updates and by seconds of training."""

    def __init__(self, test: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__()
        self.test = test
        self.points: list[tuple[int, float, float]] = []
        self._seconds, self._start = 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock, and look at the model before its first step."""
        if epoch == 0:
            self._look()
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop the clock and look at the model."""
        self._seconds += time.perf_counter() - self._start
        self._look()

    def _look(self) -> None:
        _, accuracy = self.model.evaluate(*self.test, batch_size=1024, verbose=0)
        updates = int(self.model.optimizer.iterations.numpy())
        self.points.append((updates, self._seconds, 100 * (1 - accuracy)))


def load(options: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test images in 0-1, with their classes."""
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    splits = ["train", "test"] if "test" in builder.info.splits else ["train[:80%]", "train[80%:]"]
    parts = []
    for split in splits:
        data = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        images, labels = tfds.as_numpy(data)
        count = options.images or len(images)
        parts.append((images[:count].astype("float32") / np.max(images), labels[:count]))
    return parts


def trace(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Let TensorFlow prepare the step, which takes as long as many steps; keep the weights."""
    start = [(v, v.numpy()) for v in (*model.variables, *model.optimizer.variables)]
    model.fit(images, labels, batch_size=len(images), verbose=0)
    for variable, value in start:
        variable.assign(value)


def train(strategy: Any, options: argparse.Namespace, data: list[Any]) -> list[Any]:
    """Train in one way; return the points of its curve."""
    (images, labels), test = data
    keras.utils.set_random_seed(options.seed)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = network(images.shape[1:], int(labels.max()) + 1, options.width)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(kerasopt.optimizers.Momentum(0.3), loss, metrics=["accuracy"])
        model.optimizer.build(model.trainable_variables)
    trace(model, images[: options.batch_size], labels[: options.batch_size])
    keras.utils.set_random_seed(options.seed)
    seen = TestError(test)
    sizes = {"batch_size": options.batch_size, "epochs": options.epochs}
    model.fit(images, labels, **sizes, callbacks=[seen], verbose=0)
    return seen.points


def draw(path: Path, curves: dict[str, list[Any]], column: int, across: str) -> None:
    """Draw the test error of all ways against a column of their points."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        colour, width = STYLES[name]
        x, error = ([point[i] for point in points] for i in (column, 2))
        axes.plot(x, error, color=colour, linewidth=width, label=name, solid_capstyle="round")
    axes.set_xlabel(across)
    axes.set_ylabel("test error, %")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="digits", help="digits, or fashion_mnist with --data-dir (digits)")
    add("--data-dir", help="TFDS data folder (TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    add("--output", type=Path, default=Path("runs/parallelism"), help="(runs/parallelism)")
    add("--epochs", type=int, default=15, help="(15)")
    add("--batch-size", type=int, default=64, help="samples of all devices together (64)")
    add("--width", type=int, default=16, help="filters of the first layer, even (16)")
    add("--images", type=int, help="at most, of each split (all)")
    add("--seed", type=int, default=0, help="of weights and order (0)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train in all ways, and write the pictures."""
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    data = load(options)
    curves = {}
    for name, strategy in strategies().items():
        curves[name] = train(strategy, options, data)
        updates, seconds, error = curves[name][-1]
        print(f"{name:28} {updates} updates, {seconds:.1f} s, test error {error:.2f} %", flush=True)
    with (options.output / "curves.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["way", "updates", "seconds", "test error"])
        rows.writerows([name, *point] for name, points in curves.items() for point in points)
    draw(options.output / "updates.png", curves, 0, "weight updates")
    draw(options.output / "time.png", curves, 1, "seconds of training")
    print(f"See {options.output}/updates.png and {options.output}/time.png.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
