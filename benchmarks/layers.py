"""Noise on a batch of 256 images of 32×32×3."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

import kerasopt
from benchmarks._race import Row, race


def caller(layer: keras.layers.Layer) -> Callable[[], Any]:
    """Return a function that runs the layer in training, in graph mode."""
    images = tf.random.uniform((256, 32, 32, 3))
    function = tf.function(lambda: layer(images, training=True))
    return lambda: function()


def rows() -> Iterator[Row]:
    """Compare with Keras' layer of a fixed strength, which draws as many numbers."""
    yield race(
        "`RandomGaussianNoise(per_channel=True)`, 256×32×32×3, graph",
        "`keras.layers.GaussianNoise`",
        caller(kerasopt.layers.RandomGaussianNoise(0.1, per_channel=True)),
        caller(keras.layers.GaussianNoise(0.1)),
    )
