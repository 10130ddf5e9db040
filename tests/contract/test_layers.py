"""What every layer that draws random numbers keeps; and what every augmentation layer."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.contract.cases import LAYERS, REGULARIZATION, Case, bad_rows, rows

every_layer = rows(*LAYERS, *REGULARIZATION)
every_augmentation = rows(*LAYERS)
IMAGES = np.random.default_rng(0).uniform(size=(4, 6, 5, 3)).astype("float32")


def numpy(tensor: Any) -> np.ndarray:
    """Return the values of a tensor."""
    return np.asarray(ops.convert_to_numpy(tensor), "float32")


@every_layer
def test_config_round_trip_through_json(case: Case) -> None:
    layer = case.make(seed=7)
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(
        numpy(layer(IMAGES, training=True)), numpy(again(IMAGES, training=True))
    )


@every_layer
def test_inference_changes_nothing(case: Case) -> None:
    np.testing.assert_array_equal(numpy(case.make()(IMAGES, training=False)), IMAGES)


@every_layer
def test_training_changes_images(case: Case) -> None:
    assert np.abs(numpy(case.make()(IMAGES, training=True)) - IMAGES).max() > 0.01


@every_layer
def test_output_shape(case: Case) -> None:
    layer = case.make()
    assert layer.compute_output_shape((None, None, 5, 3)) == (None, None, 5, 3)
    assert layer(keras.Input((None, 5, 3))).shape == (None, None, 5, 3)


@every_layer
def test_same_seed_same_images(case: Case) -> None:
    first, second, other = (numpy(case.make(seed=s)(IMAGES, training=True)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@every_layer
def test_each_call_and_each_image_draws_anew(case: Case) -> None:
    layer, alike = case.make(), np.repeat(IMAGES[:1], 4, axis=0)
    first, second = numpy(layer(alike, training=True)), numpy(layer(alike, training=True))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


@every_augmentation
def test_single_image(case: Case) -> None:
    assert case.make()(IMAGES[0], training=True).shape == IMAGES[0].shape


@every_augmentation
def test_other_ranks_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"rank 3 .* or 4"):
        case.make()(np.zeros((4, 6), "float32"), training=True)


@every_augmentation
def test_channels_first_equals_channels_last(case: Case) -> None:
    last = case.make(seed=3, data_format="channels_last")(IMAGES, training=True)
    moved = np.moveaxis(IMAGES, -1, 1)
    first = case.make(seed=3, data_format="channels_first")(moved, training=True)
    assert first.shape == moved.shape
    change = np.moveaxis(numpy(first), 1, -1) - IMAGES
    np.testing.assert_allclose(change.std(), (numpy(last) - IMAGES).std(), rtol=0.5)


@every_augmentation
def test_labels_beside_images(case: Case) -> None:
    labels = np.arange(4)
    out = case.make()({"images": IMAGES.copy(), "labels": labels}, training=True)
    np.testing.assert_array_equal(numpy(out["labels"]), labels)
    assert not np.array_equal(numpy(out["images"]), IMAGES)


@every_augmentation
@pytest.mark.parametrize("batched", [True, False])
def test_in_tf_data(case: Case, batched: bool) -> None:
    tf = pytest.importorskip("tensorflow")  # on every backend
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES)
    layer = case.make()
    dataset = dataset.batch(3) if batched else dataset
    dataset = dataset.map(lambda images: layer(images, training=True))
    out = np.concatenate([np.atleast_3d(images) for images in dataset.as_numpy_iterator()])
    assert out.size == IMAGES.size
    assert np.abs(out.ravel() - IMAGES.ravel()).max() > 0.01


@every_layer
@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_a_model_with_unknown_sizes(case: Case, jit_compile: bool) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            case.make(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", jit_compile=jit_compile)
    loss = model.fit(IMAGES, np.zeros(4), batch_size=3, verbose=0).history["loss"]
    assert np.isfinite(loss).all()
    np.testing.assert_array_equal(
        model.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precision(case: Case, policy: str) -> None:
    expected = policy.removeprefix("mixed_")
    if keras.backend.backend() == "jax" and expected == "float64":
        pytest.skip("JAX has no float64 by default")
    out = case.make(dtype=policy)(IMAGES, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == expected


@every_augmentation
def test_integer_images(case: Case) -> None:
    images = (IMAGES * 255).astype("uint8")
    out = case.make()(images, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    assert np.abs(numpy(out) - images).max() > 0.01


@every_layer
def test_saved_in_a_model(case: Case, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6, 5, 3)), case.make(seed=5)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    np.testing.assert_array_equal(
        numpy(loaded(IMAGES, training=True)), numpy(model(IMAGES, training=True))
    )


@bad_rows(*LAYERS, *REGULARIZATION)
def test_bad_arguments(case: Case, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        case.make(**arguments)
