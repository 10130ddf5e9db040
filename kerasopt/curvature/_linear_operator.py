"""The matrices in the form that SciPy's solvers take."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kerasopt._validation import check_choice
from kerasopt.curvature._curvature import KINDS, curvature_of

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def linear_operator(
    model: Any, x: Any = None, y: Any = None, *, kind: str = "hessian", **kwargs: Any
) -> "LinearOperator":
    """Return the matrix as a `scipy.sparse.linalg.LinearOperator`, for SciPy's solvers.

    Use it with `eigsh`, `cg`, `minres`, `svds` and others, or by `operator @ v`; each product with
    a vector costs about two gradients. The operator follows the weights of the model.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Raises:
        TypeError: As of `Curvature`.
        ValueError: As of `Curvature`; `kind` is unknown.

    Reference:
        Pearlmutter, Fast exact multiplication by the Hessian, 1994.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> from scipy.sparse.linalg import cg
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> operator = kerasopt.curvature.linear_operator(model, x, y, loss="mse")
        >>> cg(operator, np.array([1.0, 2.0], "float32"))[0].round(3).tolist()
        [1.0, 0.5]
    """
    from scipy.sparse.linalg import LinearOperator  # takes a while to import

    check_choice("kind", kind, KINDS)
    curvature = curvature_of(model, x, y, **kwargs)

    def matvec(v: np.ndarray) -> np.ndarray:
        return curvature.products(v.reshape(1, -1), kind)[0]

    def matmat(columns: np.ndarray) -> np.ndarray:
        return curvature.products(columns.T, kind).T

    return LinearOperator(
        (curvature.size, curvature.size),
        matvec=matvec,
        rmatvec=matvec,
        matmat=matmat,
        rmatmat=matmat,
        dtype=curvature.dtype,
    )
