"""Callbacks: a redraw of the learning curves, a check of the error, and what a step costs more."""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from livelossplot import PlotLosses
from livelossplot.outputs import MatplotlibPlot

import kerasopt
from benchmarks._race import Row, compare, race

EPOCHS, STEPS = 500, 200


def logs(epoch: int) -> dict[str, float]:
    """Return what an epoch might log."""
    loss = 2 / (1 + epoch / 20)
    return {
        "loss": loss,
        "accuracy": 1 - loss / 3,
        "val_loss": loss + 0.1,
        "val_accuracy": 0.9 - loss / 3,
    }


def redraws() -> Iterator[Row]:
    """Compare with livelossplot, both drawing two panels to a PNG file."""
    matplotlib.use("agg")
    folder = tempfile.mkdtemp()
    curve = kerasopt.callbacks.LearningCurve(
        Path(folder, "ours.png"), every=EPOCHS, every_batches=None, verbose=False
    )
    model = keras.Sequential([keras.layers.Dense(1)])
    curve.set_model(model)
    curve.set_params({})
    curve.on_train_begin()
    path = str(Path(folder, "theirs.png"))
    live = PlotLosses(outputs=[MatplotlibPlot(figpath=path)], mode="script")
    for epoch in range(EPOCHS):
        curve.on_epoch_begin(epoch)
        curve.on_epoch_end(epoch, logs(epoch))
        live.update(logs(epoch))

    def redraw() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it clears the terminal
            live.send()

    def in_full() -> None:
        curve._figure._background = None  # type: ignore[union-attr]  # as where an axis grew
        curve.draw()

    yield race(
        f"`LearningCurve`, {EPOCHS} epochs, where an axis grows", "livelossplot", in_full, redraw
    )
    yield race(f"`LearningCurve`, {EPOCHS} epochs, else", "livelossplot", curve.draw, redraw)


def check(stop: keras.callbacks.EarlyStopping) -> Callable[[], None]:
    """Return a function in which early stopping looks at 1,000 epochs that are not better."""
    stop.set_model(keras.Sequential([keras.layers.Dense(1)]))
    stop.on_train_begin()
    stop.on_epoch_begin(0)
    stop.on_epoch_end(0, {"val_loss": 0.5})

    def run() -> None:
        for epoch in range(1000):
            stop.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0})

    return run


class Clock(keras.callbacks.Callback):
    """The milliseconds of each epoch."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin anew."""
        self.times: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the clock."""
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look again."""
        self.times.append(1000 * (time.perf_counter() - self.begun))


def trainer() -> Callable[[Sequence[keras.callbacks.Callback]], float]:
    """Return a function that trains with callbacks: the milliseconds of an epoch but the first.

    All train one model: the same steps of another one take more or less time, for good.
    """
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, "relu") for units in (256, 256)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(128, 784)).astype("float32"), random.integers(0, 10, 128)
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat(STEPS)

    def run(callbacks: Sequence[keras.callbacks.Callback]) -> float:
        clock = Clock()
        model.fit(data, epochs=4, verbose=0, callbacks=[clock, *callbacks])
        return statistics.median(clock.times[1:])

    run([])
    return run


def rows() -> Iterator[Row]:
    """Yield all."""
    yield from redraws()
    ours = kerasopt.callbacks.EarlyStopping(patience=10**9)
    theirs = keras.callbacks.EarlyStopping(patience=10**9)
    task = "`EarlyStopping`, 1,000 checks"
    yield race(task, "Keras' `EarlyStopping`", check(ours), check(theirs))
    callbacks = kerasopt.callbacks
    fit = trainer()
    for name, callback in {
        "`GradientMonitor(every=50)`": callbacks.GradientMonitor(every=50),
        "`AdaptiveLearningRate()`": callbacks.AdaptiveLearningRate(),
    }.items():
        task = f"{name} in `fit`, {STEPS} steps of about 2 ms"
        yield compare(task, "no callback", partial(fit, [callback]), partial(fit, []), 15)
