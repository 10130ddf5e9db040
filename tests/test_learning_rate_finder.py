"""What `LearningRateFinder` suggests, and that it changes nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import ExponentialDecay, LearningRateSchedule
from matplotlib.image import imread

import kerasopt
from kerasopt.callbacks import LearningRateFinder, find_learning_rate
from kerasopt.callbacks._range_test import RangeTest, steepest, valley
from tests.contract.cases import dense_model

NAMES = ("valley", "steepest", "curvature")


class Batches(keras.utils.PyDataset):
    """Batches of 16 digits."""

    def __init__(self, digits: tuple) -> None:
        super().__init__()
        self.digits = digits

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return tuple(part[16 * index : 16 * index + 16] for part in self.digits)


def noisy_model(rate: Any = 0.01) -> keras.Model:
    """Return a model with a state of every kind: moments, statistics, random numbers, metrics."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    parts = [layers.Flatten(), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts, layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def state(model: keras.Model) -> list[np.ndarray]:
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("rate", [0.01, ExponentialDecay(0.01, 10, 0.5)])
def test_everything_is_left_as_it_was(digits: tuple, rate: Any) -> None:
    model = noisy_model(rate)
    model.fit(*digits, verbose=0)
    before, rate_before = state(model), float(model.optimizer.learning_rate)
    found = find_learning_rate(model, *digits, steps=20)
    assert len(found.rates) > 10
    assert float(model.optimizer.learning_rate) == rate_before
    for ours, expected in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_training_goes_on_as_without(digits: tuple) -> None:
    histories = []
    for test in (False, True):
        model = noisy_model()
        if test:  # before the first step: optimizer and metrics are not built
            find_learning_rate(model, *digits, steps=5)
        fit = model.fit(*digits, shuffle=False, epochs=2, verbose=0)
        histories.append(fit.history)
    assert histories[0] == histories[1]


def quadratic(rate: float = 0.01) -> tuple[keras.Model, np.ndarray, np.ndarray, float]:
    """Return a linear model, its data and the largest eigenvalue of its Hessian."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32") * [1, 1, 2, 4]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    y = np.ones((64, 1), "float32")
    return model, x, y, float(np.linalg.eigvalsh(2 * x.T @ x / 64)[-1])


def test_curvature_is_one_over_the_largest_eigenvalue() -> None:
    model, x, y, largest = quadratic()
    found = find_learning_rate(model, x, y, batch_size=64, suggest="curvature")
    assert found.learning_rate == pytest.approx(1 / largest, rel=1e-3)


def test_losses_are_those_of_steps_at_these_rates() -> None:
    model, x, y, _ = quadratic()
    w, losses = model.get_weights()[0], []
    found = find_learning_rate(
        model, x, y, batch_size=64, min_learning_rate=1e-3, max_learning_rate=0.05, steps=30
    )
    for rate in np.geomspace(1e-3, 0.05, 30):
        losses.append(np.mean((x @ w - y) ** 2))
        w = w - rate * 2 * x.T @ (x @ w - y) / 64
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 0.05, 30))
    np.testing.assert_allclose(found.losses, losses, rtol=1e-3)


def test_stops_where_the_loss_diverges() -> None:
    model, x, y, largest = quadratic()
    found = find_learning_rate(model, x, y)
    assert 2 / largest < found.rates[-1] < 2
    assert found.smoothed[-1] > 4 * min(found.smoothed) > found.smoothed[-2]
    assert 0.05 / largest < found.learning_rate < 2 / largest


@pytest.mark.parametrize(
    ("losses", "middle"),
    [([5, 4, 5, 4, 3, 2, 1, 9], 4), ([3, 2, 1], 1), ([1, 2, 3], 0), ([1, 2, 1], 1), ([2, 2, 1], 1)],
)
def test_valley(losses: list[float], middle: int) -> None:
    assert valley(losses) == middle


def test_steepest() -> None:
    assert steepest(list(np.geomspace(1, 100, 5)), [5.0, 4.9, 3.0, 1.0, 0.9]) == 2


def test_of_any_data(digits: tuple) -> None:
    """Batches of a dataset in their order; arrays in the same order every time."""
    arrays = dict(zip("xy", digits, strict=True))
    data: dict[str, Callable[[], dict]] = {
        "dataset": lambda: {"x": Batches(digits)},
        "generator": lambda: {"x": (Batches(digits)[i % 8] for i in range(9))},
        "arrays": lambda: arrays,
        "again": lambda: arrays,
        "weights": lambda: {**arrays, "sample_weight": np.ones(128)},
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices(digits).batch(16)
        data["tf.data"] = lambda: {"x": dataset}
    losses = {
        name: find_learning_rate(dense_model("sgd"), **make(), batch_size=16, steps=9).losses
        for name, make in data.items()
    }
    assert losses["dataset"] == losses["generator"] == losses.get("tf.data", losses["dataset"])
    assert losses["arrays"] == losses["again"] == pytest.approx(losses["weights"])
    assert losses["arrays"] != losses["dataset"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture(digits: tuple, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"rates{suffix}"
    found = find_learning_rate(dense_model("sgd"), *digits, steps=50, path=path)
    if suffix == ".png":
        assert np.ptp(imread(path)) > 0.5
    else:
        assert all(f"{name}: {found.suggestions[name]:.3g}" in path.read_text() for name in NAMES)


@pytest.mark.parametrize("rate", [0.3, ExponentialDecay(0.3, 4, 0.5)])
def test_callback_trains_with_the_rate(rate: Any) -> None:
    model, x, y, largest = quadratic(rate)
    finder = LearningRateFinder(x, y, batch_size=64, suggest="curvature")
    losses = model.fit(x, y, batch_size=64, epochs=40, verbose=0, callbacks=[finder]).history[
        "loss"
    ]
    assert finder.result.learning_rate == pytest.approx(1 / largest, rel=1e-3)
    assert losses[-1] < losses[0]
    model.fit(x, y, verbose=0, callbacks=[finder])  # finds no other one
    assert [event.text for event in finder.events] == [f"rate = {1 / largest:.2g}"]


def test_what_was_found_is_kept(digits: tuple) -> None:
    model, again = dense_model("sgd"), LearningRateFinder(*digits)
    finder = LearningRateFinder(*digits, steps=10)
    model.fit(*digits, verbose=0, callbacks=[finder])
    again.set_state(json.loads(json.dumps(finder.get_state())))
    rate = float(model.optimizer.learning_rate)
    model.fit(*digits, verbose=0, callbacks=[again])
    assert again.result.suggestions == finder.result.suggestions
    assert float(model.optimizer.learning_rate) == rate


def test_loss_without_curvature() -> None:
    model, x, y, _ = quadratic()
    model.compile("sgd", "mae")
    found = find_learning_rate(model, x, y, steps=5)
    assert found.suggestions["curvature"] == np.inf
    with pytest.raises(ValueError, match=r"`suggest` must be 'valley' or .* Received: suggest='cu"):
        find_learning_rate(model, x, y, steps=5, suggest="curvature")


@pytest.mark.tensorflow
def test_under_a_strategy(digits: tuple) -> None:
    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = dense_model(keras.optimizers.SGD(0.1))
    losses = [
        find_learning_rate(each, *digits, steps=10).losses
        for each in (model, dense_model(keras.optimizers.SGD(0.1)))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


class FromZero(LearningRateSchedule):
    """A warm-up."""

    def __call__(self, step: Any) -> Any:
        return 0.1 * keras.ops.cast(step, "float32")


def test_refused_when_it_runs(digits: tuple) -> None:
    model, x, y, _ = quadratic()
    with pytest.raises(ValueError, match="`learning_rate` must not be zero where it is scaled"):
        find_learning_rate(dense_model(keras.optimizers.SGD(FromZero())), *digits)
    with pytest.raises(
        ValueError, match=r"`min_learning_rate` must be so small .* Received: .*1e\+30"
    ):
        find_learning_rate(model, x, y, min_learning_rate=1e30, max_learning_rate=1e31)
    with pytest.raises(ValueError, match="`x` must have batches"):
        find_learning_rate(dense_model("sgd"), iter([Batches(digits)[0]]), steps=3)
    with pytest.raises(ValueError, match=r"the same number of rows. Received: \[100, 128\]"):
        find_learning_rate(dense_model("sgd"), digits[0], digits[1][:100])
    with pytest.raises(OSError, match="`path` must be a file that can be written"):
        find_learning_rate(dense_model("sgd"), *digits, path="/proc/rates.png")


def test_not_built_model(digits: tuple) -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert isinstance(find_learning_rate(model, *digits, steps=5), RangeTest)
