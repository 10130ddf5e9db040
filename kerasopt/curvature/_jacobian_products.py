"""Products with the Jacobian J of a function of a list of tensors."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

Tensors: TypeAlias = Sequence[Any]
Function: TypeAlias = Callable[[Tensors], Tensors]
ON_JAX = keras.backend.backend() == "jax"


def jacobian_product(function: Function, at: Tensors, v: Tensors) -> list[Any]:
    """Return J v."""
    if ON_JAX:
        import jax

        return list(jax.jvp(function, (list(at),), (list(v),))[1])
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        outputs = function(at)
    ones = [tf.ones_like(each) for each in outputs]
    with tf.GradientTape(watch_accessed_variables=False) as linear:  # Jᵀu is linear in u
        linear.watch(ones)
        back = _gradient(tape, outputs, at, ones)
    return _gradient(linear, back, ones, v)


def transposed_jacobian_product(function: Function, at: Tensors, u: Tensors) -> list[Any]:
    """Return Jᵀ u."""
    if ON_JAX:
        import jax

        return list(jax.vjp(function, list(at))[1](list(u))[0])
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        outputs = function(at)
    return _gradient(tape, outputs, at, u)


def _gradient(tape: Any, of: Tensors, at: Tensors, u: Tensors) -> list[Any]:
    found = tape.gradient(of, at, output_gradients=list(u), unconnected_gradients="zero")
    return [keras.ops.convert_to_tensor(each) for each in found]
