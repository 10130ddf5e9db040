"""Derivatives by JAX, of functions of a list of tensors: the twin of `_tensorflow_autodiff`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

Tensors: TypeAlias = Sequence[Any]


def value_and_gradient(function: Callable[[Tensors], Any], at: Tensors) -> tuple[Any, list[Any]]:
    """Return f and ∇f."""
    return jax.value_and_grad(function)(list(at))


def hessian_product(function: Callable[[Tensors], Any], at: Tensors, v: Tensors) -> list[Any]:
    """Return ∇²f v."""
    return jax.jvp(jax.grad(function), (list(at),), (list(v),))[1]


def gauss_newton_product(
    outer: Callable[[Tensors], Any],
    inner: Callable[[Tensors], Tensors],
    at: Tensors,
    v: Tensors,
) -> list[Any]:
    """Return Jᵀ ∇²f J v of f(z(w)), with J = ∂z/∂w."""
    outputs, pulled_back = jax.vjp(inner, list(at))
    _, forward = jax.jvp(inner, (list(at),), (list(v),))
    return pulled_back(hessian_product(outer, outputs, forward))[0]
