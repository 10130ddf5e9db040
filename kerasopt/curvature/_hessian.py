"""The whole matrix of second derivatives."""

from typing import Any

import numpy as np

from kerasopt._validation import check_choice
from kerasopt.curvature._curvature import KINDS, Curvature, curvature_of

LARGEST = 5000  # weights: a matrix of 100 MB in float32
BLOCK = 16  # rows at a time


def hessian(
    model: Any, x: Any = None, y: Any = None, *, kind: str = "hessian", **kwargs: Any
) -> np.ndarray:
    """Return the matrix of second derivatives, for models or layers of a few thousand weights.

        H_ij = ∂²J / ∂w_i ∂w_j        by n products with unit vectors

    The weights are in the order of `model.trainable_variables`, each row by row.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        Array of shape (n, n), symmetric to the last bit.

    Raises:
        TypeError: As of `Curvature`.
        ValueError: As of `Curvature`; `kind` is unknown; there are more than 5,000 weights.

    Reference:
        X. Wang, Optimization for Training Deep Models, lecture, 2015, "Jacobian matrix and Hessian
        matrix".

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> kerasopt.curvature.hessian(model, x, y, loss="mse").round(3).tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """
    check_choice("kind", kind, KINDS)
    return dense(curvature_of(model, x, y, **kwargs), kind)


def dense(curvature: Curvature, kind: str) -> np.ndarray:
    """Return the matrix of a `Curvature`."""
    n = curvature.size
    if n > LARGEST:
        raise ValueError(
            f"The whole matrix is for at most {LARGEST:,} weights: take a `layer`, or what is made "
            f"of products, such as `eigenvalues`. Received: {n:,} weights"
        )
    starts = range(0, n, BLOCK)
    rows = [curvature.products(np.eye(BLOCK, n, start), kind) for start in starts]
    matrix = np.concatenate(rows)[:n]
    return (matrix + matrix.T) / 2
