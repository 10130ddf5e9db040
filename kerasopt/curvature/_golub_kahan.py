"""Largest singular values of many matrices at once, by products."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Product: TypeAlias = Callable[[np.ndarray], np.ndarray]

MOST_STEPS = 100
EVERY = 5  # steps between two looks at the values


def largest_singular_values(
    product: Product, transposed: Product, v: np.ndarray, tolerance: float = 1e-4
) -> np.ndarray:
    """Return σ_max of each of a batch of matrices A, by the bidiagonalisation of Golub and Kahan.

        α_k u_k = A v_k - β_{k-1} u_{k-1}        β_k v_{k+1} = Aᵀ u_k - α_k v_k

    The largest singular value of the bidiagonal matrix of α and β is that of A when its residual is
    small. Only two vectors a matrix are kept: the loss of orthogonality makes copies of the largest
    value, but no larger one.

    Args:
        product: A v for a vector a row.
        transposed: Aᵀ u.
        v: Where to start, a vector a row.
        tolerance: Residual, in units of σ_max, of the matrix that needs most steps.
    """
    v, _ = _unit(v)
    u, alpha = _unit(product(v))
    alphas, betas = [alpha], list[np.ndarray]()
    for step in range(1, MOST_STEPS + 1):
        v, beta = _unit(transposed(u) - alpha[:, None] * v)
        if step % EVERY == 0:
            values, residuals = _largest(alphas, [*betas, beta])
            if not np.any(residuals > tolerance * values):  # not-a-number will not get better
                return values
        u, alpha = _unit(product(v) - beta[:, None] * u)
        betas, alphas = [*betas, beta], [*alphas, alpha]
    return _largest(alphas, [*betas, np.zeros_like(alpha)])[0]


def _unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of length one, or zero, and the lengths."""
    rows = np.asarray(rows, "float64")
    lengths = np.linalg.norm(rows, axis=1)
    return rows / np.where(lengths > 0, lengths, 1.0)[:, None], lengths


def _largest(alphas: list[np.ndarray], betas: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return σ_max of the bidiagonal matrices, and the residuals β_k |last of its left vector|."""
    count = len(alphas)
    matrices = np.zeros((len(alphas[0]), count, count))
    index = np.arange(count)
    matrices[:, index, index] = np.stack(alphas, axis=1)
    matrices[:, index[:-1], index[1:]] = np.stack(betas, axis=1)[:, :-1]
    finite = np.all(np.isfinite(matrices), axis=(1, 2), keepdims=True)
    left, values, _ = np.linalg.svd(np.where(finite, matrices, 0.0))
    return np.where(finite[:, 0, 0], values[:, 0], np.nan), betas[-1] * np.abs(left[:, -1, 0])
