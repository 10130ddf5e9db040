"""Derivatives by JAX, of functions of a list of tensors: the twin of `_tensorflow_autodiff`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

Tensors: TypeAlias = Sequence[Any]
Product: TypeAlias = Callable[[Tensors], list[Any]]


def value_and_gradient(function: Callable[[Tensors], Any], at: Tensors) -> tuple[Any, list[Any]]:
    """Return f and ∇f."""
    return jax.value_and_grad(function)(list(at))


def hessian(function: Callable[[Tensors], Any], at: Tensors) -> Product:
    """Return the function v → ∇²f v; the gradient is computed once."""
    _, product = jax.linearize(jax.grad(function), list(at))
    return lambda v: product(list(v))


def gauss_newton(
    outer: Callable[[Tensors], Any], inner: Callable[[Tensors], Tensors], at: Tensors
) -> Product:
    """Return the function v → Jᵀ ∇²f J v of f(z(w)), with J = ∂z/∂w."""
    outputs, forward = jax.linearize(inner, list(at))
    _, pulled_back = jax.vjp(inner, list(at))
    curved = hessian(outer, outputs)
    return lambda v: pulled_back(curved(forward(list(v))))[0]


def each(product: Product, vs: Tensors) -> Sequence[Any]:
    """Return the products with all v, which are stacked along a new first axis."""
    return jax.lax.map(product, list(vs))
