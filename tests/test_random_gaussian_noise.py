"""The numbers that `kerasopt.layers.RandomGaussianNoise` draws."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from kerasopt.layers import RandomGaussianNoise

GREY = np.full((64, 32, 32, 3), 0.5, "float32")


def change(layer: RandomGaussianNoise, images: np.ndarray = GREY) -> np.ndarray:
    """Return what the layer adds to the images."""
    return ops.convert_to_numpy(layer(images, training=True)) - images


def test_each_image_has_a_strength_of_its_own_within_the_range() -> None:
    strength = change(RandomGaussianNoise((0.1, 0.4), per_channel=True)).std(axis=(1, 2, 3))
    assert strength.min() > 0.09
    assert strength.max() < 0.42
    assert strength.max() - strength.min() > 0.2


def test_a_number_is_the_upper_end() -> None:
    assert RandomGaussianNoise(0.3).stddev == (0, 0.3)


def test_fixed_strength_is_normal() -> None:
    images = np.zeros((400, 50, 50, 1), "float32")
    noise = change(RandomGaussianNoise((0.2, 0.2), per_channel=True, seed=0), images) / 0.2
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    images = noise.reshape(400, -1)
    r = np.corrcoef(images)[np.triu_indices(400, 1)]
    assert np.abs(r).max() < 5.5 / 50  # of 79,800 pairs


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channels_move_together_or_apart(data_format: str) -> None:
    images = GREY if data_format == "channels_last" else np.moveaxis(GREY, -1, 1)
    axis = -1 if data_format == "channels_last" else 1
    together, apart = (
        change(RandomGaussianNoise((0.2, 0.2), per_channel=p, data_format=data_format), images)
        for p in (False, True)
    )
    assert np.ptp(together, axis=axis).max() < 1e-6
    channels = np.moveaxis(apart, axis, 0).reshape(3, -1)
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.02


def test_clip_limits_noisy_images_alone() -> None:
    bright = GREY + 1
    out = bright + change(RandomGaussianNoise(0.5, clip=(0, 1), probability=0.5), bright)
    untouched = (out == bright).all(axis=(1, 2, 3))
    assert out[~untouched].max() == 1
    assert 10 < untouched.sum() < 54


def test_probability_zero_changes_nothing() -> None:
    assert not change(RandomGaussianNoise(0.5, probability=0.0)).any()


def test_every_mode_draws_the_same() -> None:
    outputs = []
    for jit_compile in (None, False, True):
        layer = RandomGaussianNoise(0.3, clip=(0, 1), probability=0.8, seed=4)
        model = keras.Sequential([keras.Input((None, 32, 3)), layer])
        function = lambda images, model=model: model(images, training=True)  # noqa: E731
        if keras.backend.backend() == "tensorflow" and jit_compile is not None:
            import tensorflow as tf

            function = tf.function(function, jit_compile=jit_compile)
        outputs.append([ops.convert_to_numpy(function(GREY[:n])) for n in (64, 5)])
    for other in outputs[1:]:
        for ours, eager in zip(other, outputs[0], strict=True):
            np.testing.assert_allclose(ours, eager, atol=2e-6)
