"""Random numbers from a counter: one pass over memory, and no state but the seed.

The generators of Keras' backends take most of the time of the layers that draw, and on TensorFlow,
compiled by XLA for a CPU, many times as long. Here the number at place i of a draw is a hash

    h(i) = mix(mix(mix(i ⊕ a) ⊕ b) ⊕ a)
    a = mix(k₁ ⊕ mix(k₀ ⊕ c₀)),   b = mix(k₀ ⊕ mix(k₁ ⊕ c₁))

of the place and of the seed (k₀, k₁), which a `SeedGenerator` counts up. XLA makes one loop of it,
in graph mode too. All modes and backends draw the same bits.

Reference: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (counters in place of
states); Wellons, Prospecting for Hash Functions, 2018 (`_mix`).
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

# Not public, yet the way in which Keras' own layers run in `tf.data` on every backend.
from keras.src.utils.backend_utils import DynamicBackend

BACKEND = DynamicBackend()
_C0, _C1 = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B)


def uniform(seed: Any, shape: Sequence[Any], backend: Any = BACKEND) -> Any:
    """Return numbers of U(0, 1), which are neither 0 nor 1; 23 bits each."""
    return in_one_pass(hashed, "float32", backend, seed, shape)


def normal(
    seed: Any,
    shape: Sequence[Any],
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: str = "float32",
    backend: Any = BACKEND,
) -> Any:
    """Return numbers of N(mean, stddev²); both may be tensors."""
    return in_one_pass(_normal, dtype, backend, seed, shape, mean, stddev)


def dropout(
    seed: Any, shape: Sequence[Any], rate: float, dtype: str = "float32", backend: Any = BACKEND
) -> Any:
    """Return 0 with probability `rate`, else 1 / (1 - rate)."""
    least = np.uint32(min(round(rate * 2**32), 2**32 - 1))
    kept = 1 / (1 - rate) if rate < 1 else 0.0
    return in_one_pass(_dropout, dtype, backend, seed, shape, least, kept)


def in_one_pass(
    function: Callable[..., Any],
    dtype: str,
    backend: Any,
    seed: Any,
    shape: Sequence[Any],
    *numbers: Any,
) -> Any:
    """Return what `function(backend, seed, shape, *numbers)` draws, of `shape`, as `dtype`.

    On TensorFlow it is one operation of any graph, compiled once for each shape.
    """
    if backend.name != "tensorflow":
        return backend.cast(function(backend, seed, shape, *numbers), dtype)
    import tensorflow as tf

    tensors = tf.nest.map_structure(tf.convert_to_tensor, (tuple(shape), numbers))
    # TensorFlow takes the ranks and devices of several layers for needless traces of one function,
    # and warns of them, unless it is asked for each trace.
    drawn = _compiled(function, dtype).get_concrete_function(seed, *tensors)(seed, *tensors)
    drawn.set_shape([size if isinstance(size, int) else None for size in shape])
    return drawn


@functools.cache
def _compiled(function: Callable[..., Any], dtype: str) -> Any:
    """Return a function that XLA compiles once for each shape, whichever layer draws."""
    import tensorflow as tf

    backend = DynamicBackend("tensorflow")

    def draw(seed: Any, shape: Any, numbers: Any) -> Any:
        return tf.cast(function(backend, seed, shape, *numbers), dtype)

    return tf.function(draw, jit_compile=True, autograph=False)


def hashed(backend: Any, seed: Any, shape: Any) -> Any:
    """Return numbers of U(0, 1), within a function that is drawn in one pass."""
    # With 24 bits the largest would be rounded to 1.
    h = backend.numpy.right_shift(_bits(backend, seed, shape), 9)
    return backend.cast(backend.cast(h, "int32"), "float32") * 2.0**-23 + 2.0**-24


def _normal(backend: Any, seed: Any, shape: Any, mean: Any, stddev: Any) -> Any:
    noise = backend.core.stop_gradient(stddev) * _quantile(backend, hashed(backend, seed, shape))
    wide = keras.backend.result_type(getattr(mean, "dtype", "float32"), "float32")
    return backend.cast(mean, wide) + backend.cast(noise, wide)


# Coefficients of P and Q, the constant first: least squares with Lawson's weights.
_P = (1.2533144, 0.48880646, 0.09910076, 0.013089531, 0.0010708956, 1.0315839e-05)
_Q = (1.0, 0.12821741, 0.032448642, 0.0029472725, 0.00011752418)


def _quantile(backend: Any, u: Any) -> Any:
    """Return z with Φ(z) = u, within 1e-6 of itself.

    z = (2u - 1) P(w) / Q(w),  w = -log(4u(1 - u)),  in the variable of Giles, Approximating the
    erfinv function, 2010; one quotient for all u takes less time than his two polynomials.
    """
    w = -backend.numpy.log(4 * u * (1 - u))
    p, q = (functools.reduce(lambda sum_, c: sum_ * w + c, parts[::-1]) for parts in (_P, _Q))
    return (2 * u - 1) * p / q


def _dropout(backend: Any, seed: Any, shape: Any, least: Any, kept: Any) -> Any:
    return backend.numpy.where(_bits(backend, seed, shape) >= least, kept, 0.0)


def _bits(backend: Any, seed: Any, shape: Any) -> Any:
    """Return 32 random bits for each place of `shape`."""
    mix = functools.partial(_mix, backend)
    count = functools.reduce(operator.mul, shape, 1)
    i = backend.cast(backend.numpy.reshape(backend.numpy.arange(count), shape), "uint32")
    k0, k1 = (backend.cast(seed[word], "uint32") for word in (0, 1))
    a, b = mix(k1 ^ mix(k0 ^ _C0)), mix(k0 ^ mix(k1 ^ _C1))
    return mix(mix(mix(i ^ a) ^ b) ^ a)


def _mix(backend: Any, h: Any) -> Any:
    """Return a permutation of the 32-bit words in which each bit depends on all."""
    shift = backend.numpy.right_shift
    h = (h ^ shift(h, 16)) * np.uint32(0x21F0AAAD)
    h = (h ^ shift(h, 15)) * np.uint32(0xD35A2D97)
    return h ^ shift(h, 15)
