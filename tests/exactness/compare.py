"""Train a row of the table with and without a strategy."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers

import kerasopt
from kerasopt._launch import main

STEPS = 24


def images(count: int) -> tuple[Any, Any]:
    """Return images of 8×8 and classes."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 8, 8, 1)).astype(keras.config.floatx())
    return x, random.integers(0, 10, count)


def network(*within: Callable[[], keras.Layer], **last: Any) -> Callable[[], keras.Model]:
    """Return a builder of a small convolutional network with some layers more."""

    def build() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="tanh"),
                *(make() for make in within),
                layers.Flatten(),
                layers.Dense(10, **last),
            ]
        )

    return build


def sgd(**arguments: Any) -> Callable[[], keras.optimizers.Optimizer]:
    """Return a maker of gradient descent with momentum."""
    return lambda: optimizers.SGD(0.02, momentum=0.9, **arguments)


def cross_entropy(**arguments: Any) -> keras.losses.Loss:
    """Return the loss of most rows."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)


PLAIN, SGD = network(), sgd()


@dataclass(frozen=True, eq=False)
class Row:
    """One way to train; `close` widens the bounds where float32 is not used throughout."""

    name: str
    build: Callable[[], keras.Model] = PLAIN
    optimizer: Callable[[], keras.optimizers.Optimizer] = SGD
    samples: int = 48
    batch: int = 16
    data: Callable[[int], tuple[Any, Any]] = images
    feed: Callable[..., Any] | None = None
    compile: Callable[[], dict[str, Any]] | dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    policy: str | None = None
    close: float = 1.0


class Recorder(keras.callbacks.Callback):
    """Keeps the loss and the weights after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.weights: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Take the running loss and all weights."""
        self.losses.append(logs["loss"])
        self.weights.append(np.concatenate([np.ravel(w.numpy()) for w in self.model.weights]))


def fit(model: keras.Model, row: Row, x: Any, y: Any) -> dict[str, np.ndarray]:
    """Train by `fit`; return loss and weights of every step, and the history."""
    recorder, epochs = Recorder(), -(-STEPS // -(-row.samples // row.batch))
    arguments = {"epochs": epochs, "shuffle": False, "verbose": 0, **row.fit}
    if row.feed:
        history = model.fit(row.feed(x, y, row.batch), callbacks=[recorder], **arguments)
    else:
        history = model.fit(x, y, batch_size=row.batch, callbacks=[recorder], **arguments)
    return {
        "loss": np.array(recorder.losses),
        "weights": np.array(recorder.weights),
        "history": np.array(list(history.history.values())),
    }


def fit_by_batch(model: keras.Model, row: Row, x: Any, y: Any) -> dict[str, np.ndarray]:
    """Train by `train_on_batch` in place of `fit`."""
    recorder = Recorder()
    recorder.set_model(model)
    for start in [*range(0, row.samples, row.batch)] * (STEPS * row.batch // row.samples):
        part = slice(start, start + row.batch)
        recorder.on_train_batch_end(0, model.train_on_batch(x[part], y[part], return_dict=True))
    tested = model.test_on_batch(x, y)
    predicted = model.predict_on_batch(x[:13])
    return {
        "loss": np.array(recorder.losses),
        "weights": np.array(recorder.weights),
        "history": np.array(tested),
        "predict_on_batch": np.ravel(predicted),
    }


def train(row: Row, strategy: Any = None) -> dict[str, np.ndarray]:
    """Train the model of a row; return what is compared."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(row.policy or before)
    x, y = row.data(row.samples)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = row.build()
        chosen = row.compile() if callable(row.compile) else row.compile
        defaults = {"loss": cross_entropy(), "metrics": ["accuracy"]}
        model.compile(row.optimizer(), **{**defaults, **chosen})
    method = fit_by_batch if row.name == "train_on_batch" else fit
    out = method(model, row, x, y)
    out["evaluate"] = np.array(model.evaluate(x, y, batch_size=row.batch, verbose=0))
    predicted = model.predict(x, batch_size=row.batch, verbose=0)
    out["predict"] = np.concatenate([np.ravel(t) for t in keras.tree.flatten(predicted)])
    keras.config.set_dtype_policy(before)
    return out


def train_on(replicas: int, row: Row) -> dict[str, np.ndarray]:
    """Train on logical CPUs of this process."""
    return train(row, kerasopt.strategies.DataParallel([f"CPU:{i}" for i in range(replicas)]))


def train_by_workers(
    folder: Path, names: list[str], floatx: str = "float32"
) -> Callable[[Row], list[dict[str, np.ndarray]]]:
    """Train rows in two worker processes; return how to get what each worker has of a row."""
    from tests.exactness.rows import ROWS

    script = str(Path(__file__).with_name("worker.py"))
    if status := main(["launch", script, str(folder), floatx, *names]):
        raise RuntimeError(f"the workers ended with status {status}")

    def results(row: Row) -> list[dict[str, np.ndarray]]:
        return [dict(np.load(folder / f"{ROWS.index(row)}-{i}.npz")) for i in range(2)]

    return results


def differences(alone: dict[str, np.ndarray], together: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest differences: absolute of weights and outputs, else relative."""
    largest = {}
    for name, reference in alone.items():
        absolute = name in ("weights", "predict", "predict_on_batch")
        scale = 1.0 if absolute else np.maximum(np.abs(reference), 1e-3)
        assert together[name].shape == reference.shape, name
        largest[name] = float(np.max(np.abs(together[name] - reference) / scale))
    return largest
