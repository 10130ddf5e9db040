"""Derivatives by TensorFlow's tapes, of functions of a list of tensors.

Products are made of reverse passes alone: all that layers are made of has one, forward passes have
gaps (loops, custom gradients), and on a CPU they are not faster.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

Tensors: TypeAlias = Sequence[Any]
Product: TypeAlias = Callable[[Tensors], list[Any]]

_stock_moments = tf.nn.moments
_lock = threading.Lock()
_users = 0


def value_and_gradient(function: Callable[[Tensors], Any], at: Tensors) -> tuple[Any, list[Any]]:
    """Return f and ∇f."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        value = function(at)
    return value, _gradient(tape, value, at)


def hessian(function: Callable[[Tensors], Any], at: Tensors) -> Product:
    """Return the function v → ∇²f v; the gradient is computed once."""
    with (
        tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
        _smooth_moments(),
    ):
        tape.watch(at)
        _, gradient = value_and_gradient(function, at)
    return lambda v: _gradient(tape, gradient, at, v)


def gauss_newton(
    outer: Callable[[Tensors], Any], inner: Callable[[Tensors], Tensors], at: Tensors
) -> Product:
    """Return the function v → Jᵀ ∇²f J v of f(z(w)), with J = ∂z/∂w."""
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(at)
        outputs = inner(at)

    ones = [tf.ones_like(z) for z in outputs]  # Jᵀu is linear in u: where does not matter
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as linear:
        linear.watch(ones)
        back = _gradient(tape, outputs, at, ones)
    curved = hessian(outer, outputs)
    return lambda v: _gradient(tape, outputs, at, curved(_gradient(linear, back, ones, v)))


def each(product: Product, vs: Tensors) -> Sequence[Any]:
    """Return the products with all v, which are stacked along a new first axis; two at a time."""
    like = tuple(tf.TensorSpec(v.shape[1:], v.dtype) for v in vs)
    return tf.map_fn(
        lambda v: tuple(product(v)), tuple(vs), fn_output_signature=like, parallel_iterations=2
    )


def _gradient(tape: tf.GradientTape, of: Any, at: Tensors, v: Tensors | None = None) -> list[Any]:
    """Return dense gradients of the sum, or of the sum weighted by v."""
    v = None if v is None else list(v)
    found = tape.gradient(of, at, output_gradients=v, unconnected_gradients="zero")
    return [tf.convert_to_tensor(g) for g in found]


@contextlib.contextmanager
def _smooth_moments() -> Iterator[None]:
    """Let normalisation layers have second derivatives.

    In the variance of `tf.nn.moments`, the mean is held constant. That changes no first derivative,
    but the second ones, without which products with the Hessian are wrong. Replicas are threads.
    """
    global _users
    with _lock:
        _users += 1
        tf.nn.moments = _moments
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            tf.nn.moments = _moments if _users else _stock_moments


def _moments(
    x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[Any, Any]:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims)
    return (mean if keepdims else tf.squeeze(mean, axes)), variance
