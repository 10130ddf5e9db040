"""`Dropout` and its relatives: drop-ins for the layers of Keras, with a faster generator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kerasopt
from kerasopt.layers import Dropout, GaussianDropout, SpatialDropout2D

NAMES = ("Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D")
ONES = np.ones((16, 20, 20, 32), "float32")

every_layer = pytest.mark.parametrize("name", NAMES)


def ours(name: str, strength: float = 0.4, **arguments: Any) -> keras.Layer:
    return getattr(kerasopt.layers, name)(strength, **arguments)


def theirs(name: str, strength: float = 0.4, **arguments: Any) -> keras.Layer:
    return getattr(keras.layers, name)(strength, **arguments)


def drawn(layer: keras.Layer, inputs: np.ndarray = ONES) -> np.ndarray:
    return ops.convert_to_numpy(layer(inputs, training=True))


def network(make: Callable[[str], keras.Layer] = ours, **compile_arguments: Any) -> keras.Model:
    """Return a small convolutional classifier with each of the layers."""
    inner = [keras.layers.Conv2D(4, 3), *map(make, NAMES), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *inner, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **compile_arguments)
    return model


@every_layer
def test_values_are_distributed_as_those_of_keras(name: str) -> None:
    mine, reference = drawn(ours(name)), drawn(theirs(name))
    if "Gauss" not in name:
        np.testing.assert_allclose(np.unique(mine), np.unique(reference), rtol=1e-6)
    assert mine.mean() == pytest.approx(reference.mean(), abs=0.1)
    assert mine.std() == pytest.approx(reference.std(), rel=0.05)


@every_layer
def test_configuration_is_that_of_keras(name: str) -> None:
    layer, config = ours(name, seed=3, dtype="float16"), theirs(name, seed=3, dtype="float16")
    assert isinstance(layer, type(config))
    assert {**layer.get_config(), "name": 0} == {**config.get_config(), "name": 0}


def test_weights_saved_by_the_one_model_are_those_of_the_other(
    tmp_path: Path, digits: tuple
) -> None:
    model, twin = network(ours), network(theirs)
    model.save_weights(tmp_path / "of.weights.h5")
    twin.load_weights(tmp_path / "of.weights.h5")
    np.testing.assert_array_equal(
        twin.predict(digits[0], verbose=0), model.predict(digits[0], verbose=0)
    )


@every_layer
def test_seeds_are_the_only_state(name: str) -> None:
    layer = ours(name, seed=3)
    first, second = drawn(layer), drawn(layer)
    (state,) = layer.variables
    state.assign([3, 0])
    np.testing.assert_array_equal(drawn(layer), first)
    assert not np.array_equal(first, second)


@every_layer
def test_strength_zero_draws_nothing(name: str) -> None:
    layer = ours(name, 0)
    np.testing.assert_array_equal(drawn(layer), ONES)
    assert not layer.variables


@pytest.mark.tensorflow  # JAX has no float64 unless it is told to
def test_noise_keeps_the_inputs_as_exact_as_they_are() -> None:
    inputs = np.linspace(0, 1, 100)
    moved, noise = (
        drawn(ours("GaussianNoise", seed=3, dtype="float64"), x) for x in (inputs, 0 * inputs)
    )
    np.testing.assert_allclose(moved - noise, inputs, rtol=0, atol=1e-15)


def test_rate_one_drops_all() -> None:
    assert not drawn(Dropout(1)).any()


@pytest.mark.parametrize(
    ("noise_shape", "alike"),
    [((None, 1, 1, None), (1, 2)), ((1, None, 20, 32), (0,)), ([16, 1, None, 1], (1, 3))],
)
def test_noise_shape(noise_shape: Any, alike: tuple[int, ...]) -> None:
    out = drawn(Dropout(0.5, noise_shape=noise_shape))
    assert np.ptp(out, axis=alike).max() == 0
    for axis in {0, 1, 2, 3} - {*alike}:
        assert np.ptp(out, axis=axis).max() == 2


@pytest.mark.parametrize("noise_shape", [(None, 1), (None, 1, 3, 1), (16, 20, 20, 33)])
def test_noise_shape_that_does_not_fit(noise_shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"`noise_shape` must have None, 1 or .* Received: noise_"):
        Dropout(0.5, noise_shape=noise_shape)(ONES, training=True)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_spatial_dropout_drops_whole_maps(data_format: str) -> None:
    out = drawn(SpatialDropout2D(0.5, data_format=data_format))
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    assert np.ptp(out, axis=axes).max() == 0
    assert 0.3 < (out.mean(axis=axes) == 0).mean() < 0.7


def test_spatial_dropout_of_other_ranks() -> None:
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=2"):
        SpatialDropout2D(0.5)(ONES[0, 0], training=True)


@pytest.mark.parametrize("layer", [Dropout, GaussianDropout])
def test_gradient_passes_where_the_inputs_did(layer: type) -> None:
    dense = keras.layers.Dense(50, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), dense, layer(0.5, seed=2)])
    model.compile(keras.optimizers.SGD(1.0), lambda _, y: ops.sum(y, axis=-1))
    model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
    factors = drawn(layer(0.5, seed=2), np.ones((1, 50), "float32"))
    np.testing.assert_allclose(1 - ops.convert_to_numpy(dense.kernel), factors, atol=1e-6)


def test_graph_and_compiled_training_are_the_same(digits: tuple) -> None:
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = network(jit_compile=jit_compile)
        losses.append(model.fit(*digits, batch_size=48, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_broken_off_training_goes_on_with_the_same_masks(digits: tuple, tmp_path: Path) -> None:
    weights = []
    for folder, runs in (("whole", [3]), ("broken", [1, 3])):
        for epochs in runs:
            keras.utils.set_random_seed(0)
            model = network()
            resume = kerasopt.callbacks.Resume(tmp_path / folder)
            model.fit(*digits, epochs=epochs, callbacks=[resume], shuffle=False, verbose=0)
        weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_mask_of_a_sequence_passes() -> None:
    words = keras.layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 2, 0]]))
    out = Dropout(0.5)(words, training=True)
    np.testing.assert_array_equal(out._keras_mask, [[True, True, False]])
