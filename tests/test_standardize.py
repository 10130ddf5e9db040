"""`kerasopt.layers.Standardize`: as `keras.layers.Normalization`, and right where that is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kerasopt.layers import Standardize

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal([1, -5, 9], [1, 2, 0.1], (500, 4, 5, 3)).astype("float32")


def numpy(tensor: Any) -> np.ndarray:
    """Return the values of a tensor."""
    return np.asarray(ops.convert_to_numpy(tensor))


def adapted(data: Any = DATA, make: Callable[..., Any] = Standardize, **arguments: Any) -> Any:
    """Return a layer that has seen the data."""
    layer = make(**arguments)
    layer.adapt(data)
    return layer


@pytest.mark.parametrize("axis", [-1, 1, (1, 2, 3), (-1, 1), None])
@pytest.mark.parametrize("batches", [1, 7])
def test_each_feature_has_mean_zero_and_variance_one(axis: Any, batches: int) -> None:
    data = DATA if batches == 1 else np.array_split(DATA, batches)
    layer = adapted(data, axis=axis)
    out = numpy(layer(DATA)).astype("float64")
    kept = {a % 4 for a in np.ravel(axis)} if axis is not None else set()
    pooled = tuple({0, 1, 2, 3} - kept)
    assert layer.samples == 500
    np.testing.assert_allclose(out.mean(axis=pooled), 0, atol=1e-5)
    np.testing.assert_allclose(out.var(axis=pooled), 1, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2, 3), None])
@pytest.mark.parametrize("invert", [False, True])
def test_in_place_of_normalization(axis: Any, invert: bool) -> None:
    arguments = {"axis": axis, "invert": invert}
    ours, theirs = adapted(**arguments), adapted(make=keras.layers.Normalization, **arguments)
    assert isinstance(ours, keras.layers.Normalization)
    assert ours.get_config().keys() == theirs.get_config().keys()
    for mine, other in ((ours.mean, theirs.mean), (ours.variance, theirs.variance)):
        np.testing.assert_allclose(numpy(mine), numpy(other), rtol=1e-4)
    np.testing.assert_allclose(numpy(ours(DATA)), numpy(theirs(DATA)), atol=1e-3)


def test_mean_and_variance_as_arguments() -> None:
    layer = Standardize(mean=[1.0, -5.0, 9.0], variance=[1.0, 4.0, 0.01])
    np.testing.assert_allclose(numpy(layer(DATA)), (DATA - [1, -5, 9]) / [1, 2, 0.1], atol=1e-4)
    with pytest.raises(ValueError, match="`mean` and `variance` must be None for `adapt` and `mer"):
        layer.adapt(DATA)


@pytest.mark.parametrize("axis", [-1, (1, 2, 3), None])
def test_invert_maps_back(axis: Any) -> None:
    there, back = adapted(axis=axis), adapted(axis=axis, invert=True)
    np.testing.assert_allclose(numpy(back(there(DATA))), DATA, atol=1e-5)


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_features_do_not_blow_up(value: float, dtype: str) -> None:
    data = np.full((60_000, 2), value, dtype)
    data[:, 1] = RANDOM.normal(size=60_000)
    layer = adapted(data)
    assert numpy(layer.variance)[0, 0] == 1
    out = numpy(layer(data[:5] + np.array([[0, 0]] + 4 * [[1, 0]], dtype)))
    np.testing.assert_allclose(out[:, 0], [0, 1, 1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("count", [1, 20])
def test_a_large_mean_leaves_the_variance_right(count: int) -> None:
    data = np.random.default_rng(1).normal(1e4, [1, 2, 3], (60_000, 3)).astype("float32")
    layer = adapted(np.array_split(data, count))
    exact = data.astype("float64")
    np.testing.assert_allclose(numpy(layer.mean)[0], exact.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(numpy(layer.variance)[0], exact.var(axis=0), rtol=1e-6)
    theirs = adapted(data, keras.layers.Normalization)
    error = np.abs(numpy(theirs.variance)[0] / exact.var(axis=0) - 1).max()
    assert error > 1e-2, f"Keras {keras.__version__} sums the squares of arrays exactly"


@pytest.mark.tensorflow  # JAX has no float64 by default
def test_float64_resolves_what_float32_does_not() -> None:
    data = np.random.default_rng(1).normal(1e6, 0.01, (1000, 2))
    out = numpy(adapted(data, dtype="float64")(data))
    np.testing.assert_allclose(out.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(numpy(adapted(data).variance), 1)


def test_images_of_different_sizes() -> None:
    layer = adapted([DATA[:100], DATA[100:, :2], (DATA[:50, :, :1], 3)])
    pixels = [DATA[:100], DATA[100:, :2], DATA[:50, :, :1]]
    values = np.concatenate([part.reshape(-1, 3) for part in pixels]).astype("float64")
    assert layer.samples == 550
    np.testing.assert_allclose(np.ravel(layer.mean), values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer.variance), values.var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, (1, 2, 3), None])
def test_saved_with_a_model(axis: Any, tmp_path: Path) -> None:
    layer = adapted(axis=axis)
    model = keras.Sequential([keras.Input((4, 5, 3)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].samples == 500
    np.testing.assert_array_equal(numpy(loaded(DATA)), numpy(layer(DATA)))


def test_weights_set_after_the_layer_was_called_are_used() -> None:
    model = keras.Sequential([keras.Input((4, 5, 3)), adapted()])
    model.predict(DATA, verbose=0)
    weights = adapted(DATA * 3 + 1).get_weights()
    model.set_weights(weights)
    out = model.predict(DATA * 3 + 1, verbose=0)
    np.testing.assert_allclose(out, numpy(adapted()(DATA)), atol=1e-4)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_fit_with_unknown_sizes(jit_compile: bool) -> None:
    layers = [keras.Input((None, None, 3)), adapted(), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    loss = model.fit(DATA, DATA.mean(axis=(1, 2))[:, :1], epochs=2, verbose=0).history["loss"]
    assert loss[1] < loss[0]


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (DATA[:, 0, 0, 0], {}, r"`axis` must not be 0, that of the samples\. Received: axis=\(-1,"),
        (DATA, {"axis": (0, 3)}, r"`axis` must not be 0, .* Received: axis=\(0, 3\) for .* rank 4"),
        (DATA[:0], {}, "`data` must hold at least one sample. Received: none"),
        (np.where(DATA > 9.3, np.nan, DATA), {}, r"`data` must be finite\. Received: \d+ values"),
        ([DATA, DATA[..., :2]], {}, r"samples of shape \(None, None, 3\)\. Received: .*\(4, 5, 2"),
        (DATA, {"invert": 2}, "`invert` must be True or False. Received: invert=2"),
        (DATA, {"mean": 1.0}, "both `mean` and `variance` must be set"),
    ],
    ids=["rank 1", "axis 0", "empty", "nan", "channels", "invert", "mean"],
)
def test_bad_input(data: Any, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        adapted(data, **arguments)


def test_values_of_rank_one_are_one_feature() -> None:
    values = DATA[:, 0, 0, 0]
    out = numpy(adapted(values, axis=None)(values))
    np.testing.assert_allclose([out.mean(), out.std()], [0, 1], atol=1e-5)
