"""Grids of devices against one device."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt
from tests.columns import L2, compiled, images, two_columns

pytestmark = pytest.mark.tensorflow

GRIDS = {
    "columns": [["CPU:0", "CPU:1"]],
    "hybrid": [["CPU:0", "CPU:1"], ["CPU:2", "CPU:3"]],
    "data": [["CPU:0"], ["CPU:1"]],
}
EVERYTHING = (layers.BatchNormalization, lambda: layers.Dropout(0.3))
NETWORKS = {
    "plain": two_columns,
    "everything": functools.partial(
        two_columns, *EVERYTHING, kernel_regularizer=L2, activity_regularizer=L2
    ),
}
OPTIMIZERS = {
    "Keras": lambda: keras.optimizers.Adam(0.01, epsilon=1e-3, global_clipnorm=0.5),
    "kerasopt": lambda: kerasopt.optimizers.Adam(0.01, epsilon=1e-3, clipnorm=0.1),
    "accumulating": lambda: keras.optimizers.SGD(
        0.02, momentum=0.9, gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=3
    ),
    "LossScale": lambda: keras.optimizers.LossScaleOptimizer(
        kerasopt.optimizers.Momentum(0.1), initial_scale=64.0
    ),
}
CASES = [
    ("everything", "Keras", 2),
    ("plain", "kerasopt", 1),
    ("everything", "accumulating", 1),
    ("everything", "LossScale", 3),
]


class Steps(keras.callbacks.Callback):
    """Keeps the loss and the weights after every execution."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.weights: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.losses.append(logs["loss"])
        self.weights.append(np.concatenate([np.ravel(w) for w in self.model.get_weights()]))


@functools.cache
def path(grid: str | None, network: str, optimizer: str, steps: int) -> dict[str, np.ndarray]:
    """Return losses and weights by step: batches of 16, 16, 16 and 1, twice."""
    strategy = kerasopt.strategies.HybridParallel(GRIDS[grid]) if grid else None
    build, make = NETWORKS[network], OPTIMIZERS[optimizer]
    model = compiled(strategy, make, build, steps_per_execution=steps)
    seen = Steps()
    x, y = images(49)
    options = {"batch_size": 16, "verbose": 0}
    history = model.fit(x, y, epochs=2, shuffle=False, callbacks=[seen], **options)
    return {
        "loss": np.array(seen.losses),
        "weights": np.array(seen.weights),
        "history": np.array([*history.history.values()]),
        "evaluate": np.array(model.evaluate(x, y, **options)),
        "predict": model.predict(x, **options),
    }


def cases() -> list[Any]:
    """Return what is trained on which grid; the others are slow."""
    quick = {("hybrid", 0), ("hybrid", 1)}
    return [
        pytest.param(grid, *case, marks=[] if (grid, i) in quick else pytest.mark.slow)
        for i, case in enumerate(CASES)
        for grid in GRIDS
    ]


@pytest.mark.parametrize(("grid", "network", "optimizer", "steps"), cases())
def test_grids_take_the_path_of_one_device(
    float64: None, grid: str, network: str, optimizer: str, steps: int
) -> None:
    alone, together = (path(each, network, optimizer, steps) for each in (None, grid))
    for name, reference in alone.items():
        np.testing.assert_allclose(together[name], reference, rtol=1e-12, atol=1e-12, err_msg=name)


def test_three_columns_in_any_order(float64: None) -> None:
    import tensorflow as tf

    build = functools.partial(two_columns, columns=3)
    weights = []
    for strategy in (None, kerasopt.strategies.ModelParallelColumns(["CPU:3", "CPU:1", "CPU:2"])):
        model = compiled(strategy, lambda: keras.optimizers.SGD(0.1), build)
        model.train_on_batch(*images(7))
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(*weights, rtol=0, atol=1e-12)
    third = next(w for w in model.weights if "column_2" in w.path)
    assert third.value.values[0].device.endswith("CPU:2")
    assert isinstance(third.value, tf.distribute.DistributedValues)


def test_saved_under_one_grid_and_opened_under_others(tmp_path: Path) -> None:
    strategies = kerasopt.strategies
    first = strategies.HybridParallel(data=2, model=2)
    build = functools.partial(two_columns, layers.BatchNormalization)
    model = compiled(first, lambda: keras.optimizers.Adam(0.01), build)
    x, y = images(16)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    outputs = model.predict(x, verbose=0)
    next_losses = []
    for strategy in (None, strategies.ModelParallelColumns(["CPU:2", "CPU:3"])):
        with strategy.scope() if strategy else contextlib.nullcontext():
            loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, atol=1e-6)
        next_losses.append(loaded.train_on_batch(x, y)[0])
    np.testing.assert_allclose(*next_losses, rtol=1e-6)
    slots = [v for v in loaded.optimizer.variables if "column_1" in v.path]
    assert len(slots) == 16  # two moments of two convolutions', a top layer's and a normalisation's
    assert {v.value.values[0].device[-5:] for v in slots} == {"CPU:3"}


def test_devices_are_chosen() -> None:
    strategy = kerasopt.strategies.HybridParallel(data=1, model=3)
    assert [device[-5:] for device in strategy.grid[0]] == ["CPU:0", "CPU:1", "CPU:2"]
    assert strategy.num_replicas_in_sync == 1
    assert kerasopt.strategies.HybridParallel(data=4).grid[3][0].endswith("CPU:3")


def test_summary() -> None:
    lines: list[str] = []
    kerasopt.strategies.HybridParallel(GRIDS["hybrid"]).summary(lines.append)
    assert lines[1] == "replica 1: column 0 on CPU:2, column 1 on CPU:3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": []}, "`grid` must name at least one of"),
        (
            {"grid": "CPU:0"},
            "`grid` must be a list of lists of device names. Received: grid='CPU:0'",
        ),
        ({"grid": ["CPU:0", "CPU:1"]}, "`grid` must be a list of lists of device names"),
        (
            {"grid": [["CPU:0", "CPU:1"], ["CPU:2"]]},
            "`grid` must have rows of one length, a device",
        ),
        ({"grid": [["CPU:0"], ["cpu:0"]]}, "`grid` must name each device once. Received"),
        ({"grid": [["CPU:0"], ["CPU:7"]]}, r"`grid` must be devices of this machine.*CPU:7'\] are"),
        ({"grid": [["CPU:0", 1]]}, "`grid` must hold names such as 'GPU:0'. Received: 1"),
        ({"grid": [["CPU:0"]], "data": 1}, "`data` and `model` must be left out where `grid` is"),
        (
            {"data": 2, "model": 3},
            "`data` × `model` must be at most the number of devices. .*data=2",
        ),
        ({"data": 0}, "`data` must be an integer ≥ 1. Received: data=0"),
        ({"model": 1.0}, "`model` must be an integer ≥ 1. Received: model=1.0"),
    ],
)
def test_bad_grids(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.HybridParallel(**arguments)
