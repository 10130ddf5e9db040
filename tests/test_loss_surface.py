"""The loss on lines and planes, against formulas and `evaluate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.image import imread

import kerasopt
from kerasopt.curvature import loss_surface
from kerasopt.curvature._surface import LossSurface

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(10, 3)).astype("float32")
Y = RANDOM.normal(size=(10, 1)).astype("float32")
W = RANDOM.normal(size=(3, 1)).astype("float32")
D1, D2 = RANDOM.normal(size=(2, 3, 1)).astype("float32")


def linear_model(loss: Any = "mse") -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.compile("sgd", loss)
    model.set_weights([W])
    return model


def noisy_model() -> keras.Model:
    """Return a model with penalties, random layers, statistics and two outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    h = layers.Dense(4, "tanh", kernel_regularizer="l2")(inputs)
    h = layers.Dropout(0.5)(layers.BatchNormalization()(h))
    model = keras.Model(inputs, [layers.Dense(1)(h), layers.Dense(1)(h)])
    model.compile("sgd", ["mse", "mae"])
    return model


def quadratic(a: float, b: float) -> float:
    """Return J(w + a d₁ + b d₂)."""
    return float(np.mean((X @ (W + a * D1 + b * D2) - Y) ** 2))


def dataset() -> Iterator[Any]:
    yield X[:4], Y[:4]
    yield X[4:], Y[4:]


@pytest.mark.parametrize("data", [(X, Y), (dataset(),)], ids=["arrays", "iterator"])
def test_plane_of_a_quadratic(data: Any) -> None:
    ways = [[D1], D2.ravel()]  # a list of arrays and a vector
    found = loss_surface(
        linear_model(), *data, directions=ways, span=(-1, 2), points=4, batch_size=4
    )
    assert isinstance(found, LossSurface)
    a = [-1.0, 0.0, 1.0, 2.0]
    assert [each.tolist() for each in found.coordinates] == [a, a]
    expected = [[quadratic(first, second) for second in a] for first in a]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


def test_line_between_two_sets_of_weights() -> None:
    first, second = linear_model(), linear_model()
    second.set_weights([W + D1])
    way = [b - a for a, b in zip(first.get_weights(), second.get_weights(), strict=True)]
    weight = np.arange(10.0)
    found = loss_surface(first, X, Y, weight, directions=[way], span=(0, 1), points=2)
    ends = [model.evaluate(X, Y, 10, 0, weight) for model in (first, second)]
    np.testing.assert_allclose(found.losses, ends, rtol=1e-5)


def test_loss_is_that_of_evaluate_and_nothing_changes() -> None:
    model, other = noisy_model(), noisy_model()
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    found = loss_surface(model, X, [Y, Y], points=3, batch_size=4, span=(-1, 1), seed=3)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    weights = zip(other.trainable_variables, *found.directions, strict=True)
    for variable, first, second in weights:
        variable.assign(variable + first - second)
    assert found.losses[2, 0] == pytest.approx(other.evaluate(X, [Y, Y], 4, 0)[0], rel=1e-5)


def test_model_is_as_before_when_data_fail() -> None:
    def broken() -> Iterator[Any]:
        yield X, Y
        raise OSError("the disk is gone")

    model = linear_model()
    with pytest.raises(OSError, match="the disk is gone"):
        loss_surface(model, broken(), points=2)
    np.testing.assert_array_equal(model.get_weights()[0], W)


def test_random_directions_have_the_norms_of_the_filters() -> None:
    model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(3, 3), layers.Flatten()])
    model.compile("sgd", "mse")
    data = np.ones((2, 8, 8, 2)), np.zeros((2, 108))
    found, again, other = (
        loss_surface(model, *data, directions=2, points=2, seed=seed) for seed in (1, 1, 2)
    )
    for kernel, bias in found.directions:
        expected = np.sum(model.get_weights()[0] ** 2, axis=(0, 1, 2))
        np.testing.assert_allclose(np.sum(kernel**2, axis=(0, 1, 2)), expected, rtol=1e-5)
        assert not bias.any()
    np.testing.assert_array_equal(found.losses, again.losses)
    assert (found.losses != other.losses).all()


def test_weights_that_have_moved_are_where_it_starts() -> None:
    model = linear_model()
    model.fit(X, Y, verbose=0)
    found = loss_surface(model, X, Y, directions=1, points=3)
    assert found.losses[1] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


@pytest.mark.tensorflow
def test_under_a_strategy() -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model = linear_model()
        found = loss_surface(model, X, Y, directions=[[D1]], points=3, batch_size=4)
    expected = [quadratic(a, 0) for a in (-1, 0, 1)]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("log", [True, False])
def test_picture(tmp_path: Path, directions: int, log: bool) -> None:
    found = loss_surface(linear_model(), X, Y, directions=directions, points=5)
    found.plot(tmp_path / "surface.png", log)
    picture = imread(tmp_path / "surface.png")[..., :3]
    assert picture.shape[1] == 600
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > (60 if directions == 2 else 10)


def test_picture_of_losses_that_are_not_finite(tmp_path: Path) -> None:
    losses = np.array([[1.0, 2.0, np.inf], [2.0, 300.0, np.nan], [3.0, 4.0, 5.0]])
    found = LossSurface((np.arange(3.0), np.arange(3.0)), losses, ((), ()))
    found.plot(tmp_path / "surface.svg")
    assert (tmp_path / "surface.svg").stat().st_size > 5000


def test_progress(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    arguments = {"directions": 1, "points": 3, "path": tmp_path / "line.pdf"}
    loss_surface(linear_model(), X, Y, verbose=1, **arguments)
    assert "loss" in capsys.readouterr().out
    loss_surface(linear_model(), X, Y, **arguments)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "line.pdf").exists()


def not_compiled() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), layers.Dense(1)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "net"}, TypeError, "`model` must be a Keras model. Received: model='net'"),
        ({"model": not_compiled()}, ValueError, "`model` must be compiled.* compiled=False"),
        ({"directions": 3}, ValueError, "`directions` must be one, for a line, or two, .*: 3"),
        ({"directions": 0}, ValueError, "`directions` must be an integer ≥ 1"),
        ({"directions": "up"}, TypeError, "`directions` must be 1, 2 or a list of directions"),
        ({"directions": [[X]]}, ValueError, r"shapes of the trainable weights, \[\(3, 1\)\]"),
        ({"span": (1, -1)}, ValueError, "`span` must be a pair low ≤ high"),
        ({"span": 1}, TypeError, r"`span` must be a pair \(low, high\)"),
        ({"points": 1}, ValueError, "`points` must be an integer ≥ 2"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer ≥ 1"),
        ({"seed": -1}, ValueError, "`seed` must be an integer ≥ 0"),
        ({"verbose": "no"}, TypeError, "`verbose` must be an integer ≥ 0"),
        ({"path": "s.gif"}, ValueError, "`path` must end in one of"),
        ({"path": "/dev/null/s.png"}, OSError, "`path` must be a file that can be written"),
        ({"x": iter([]), "y": None}, ValueError, "`x` must have at least one batch"),
    ],
)
def test_errors(arguments: dict, error: type, message: str) -> None:
    model = arguments.get("model") or linear_model()
    rest = {name: value for name, value in arguments.items() if name != "model"}
    with pytest.raises(error, match=message):
        loss_surface(model, **{"x": X, "y": Y, "directions": [[D1]], "points": 2, **rest})


def test_log_of_losses_that_are_not_positive(tmp_path: Path) -> None:
    found = LossSurface((np.arange(2.0),), np.array([1.0, 0.0]), ((),))
    with pytest.raises(ValueError, match="`log` must be False where losses are not positive"):
        found.plot(tmp_path / "line.png", log=True)
    with pytest.raises(TypeError, match="`log` must be True or False"):
        found.plot(tmp_path / "line.png", log=1)
