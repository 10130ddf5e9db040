"""Optimizer steps on a network of 5 million weights and on one of 200 small ones."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Shapes = list[tuple[int, ...]]
# Kernels, scales and offsets of a residual network: 59 variables, 5.2 million weights.
LARGE: Shapes = [
    shape
    for channels, count in ((64, 6), (128, 6), (256, 7))
    for _ in range(count)
    for shape in ((3, 3, channels, channels), (channels,), (channels,))
] + [(256, 10), (10,)]
SMALL: Shapes = [(32, 32), (32,)] * 100


def stepper(
    optimizer: keras.optimizers.Optimizer, shapes: Shapes, jit_compile: bool = False, steps: int = 1
) -> Callable[[], Any]:
    """Return a function that takes some steps."""
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(0, 0.05, size=s), dtype="float32") for s in shapes]
    gradients = [tf.constant(random.normal(0, 0.01, size=s), "float32") for s in shapes]
    optimizer.build(weights)

    @tf.function(jit_compile=jit_compile)
    def step() -> None:
        for _ in tf.range(steps):
            optimizer.apply(gradients, weights)

    return step
