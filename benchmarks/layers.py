"""Layers that draw random numbers, on a batch of 256 images of 32×32×3."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

import kerasopt
from benchmarks._race import Row, race


def caller(layer: keras.layers.Layer, jit_compile: bool) -> Callable[[], Any]:
    """Return a function that runs the layer in training, in graph mode or compiled by XLA."""
    images = tf.random.uniform((256, 32, 32, 3))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def function() -> tf.Tensor:
        return layer(images, training=True)

    return lambda: function()


def rows() -> Iterator[Row]:
    """Compare with the layers of Keras that draw as many numbers."""
    ours, keras_own = kerasopt.layers, keras.layers
    noise = ours.RandomGaussianNoise(0.1, per_channel=True)
    pairs = {
        "`RandomGaussianNoise(per_channel=True)`": (noise, keras_own.GaussianNoise(0.1)),
        "`GaussianNoise`": (ours.GaussianNoise(0.1), keras_own.GaussianNoise(0.1)),
        "`Dropout`": (ours.Dropout(0.5), keras_own.Dropout(0.5)),
        "`GaussianDropout`": (ours.GaussianDropout(0.5), keras_own.GaussianDropout(0.5)),
        "`SpatialDropout2D`": (ours.SpatialDropout2D(0.5), keras_own.SpatialDropout2D(0.5)),
    }
    for task, (layer, peer) in pairs.items():
        for mode, rounds in (("graph", 31), ("XLA", 11)):
            yield race(
                f"{task}, 256×32×32×3, {mode}",
                f"Keras' `{type(peer).__name__}`",
                caller(layer, mode == "XLA"),
                caller(peer, mode == "XLA"),
                rounds,
            )
