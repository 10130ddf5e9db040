"""One optimizer step on the weights of a 5-million-parameter residual network."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasopt
from benchmarks._race import Row, race

# 59 weights, 5.2 million numbers: kernels and scales of a narrow ResNet.
SHAPES: list[tuple[int, ...]] = [
    (3, 3, 3, 64),
    *[(3, 3, 64, 64)] * 8,
    (3, 3, 64, 128),
    *[(3, 3, 128, 128)] * 9,
]
SHAPES += [(3, 3, 128, 256), *[(3, 3, 256, 256)] * 5, (256, 1000), *[(256,)] * 33]


def stepper(optimizer: keras.optimizers.Optimizer, jit_compile: bool) -> Callable[[], Any]:
    """Return a function that takes one step."""
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(size=shape)) for shape in SHAPES]
    gradients = [tf.constant(random.normal(size=shape), "float32") for shape in SHAPES]
    optimizer.build(weights)

    @tf.function(jit_compile=jit_compile)
    def step() -> None:
        optimizer.apply(gradients, weights)

    return step


def rows() -> Iterator[Row]:
    """Compare each optimizer with Keras' own of the same state."""
    for jit_compile in (False, True):
        yield race(
            f"`Momentum` step, 5 M weights, {'XLA' if jit_compile else 'graph'}",
            "`keras.optimizers.SGD(momentum=0.9)`",
            stepper(kerasopt.optimizers.Momentum(1e-6), jit_compile),
            stepper(keras.optimizers.SGD(1e-6, momentum=0.9), jit_compile),
        )
