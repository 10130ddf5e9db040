"""How elongated the valley is."""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from kerasopt._validation import check_choice
from kerasopt.curvature._curvature import KINDS, curvature_of
from kerasopt.curvature._hessian import dense


@dataclass(frozen=True)
class ConditionNumber:
    """The condition number, and the eigenvalues that it is of.

    Attributes:
        value: The condition number κ; infinite where an eigenvalue is zero, to rounding.
        largest: The eigenvalue of largest magnitude.
        smallest: The eigenvalue of smallest magnitude.
    """

    value: float
    largest: float
    smallest: float

    def __float__(self) -> float:
        """Return κ."""
        return self.value

    def __str__(self) -> str:
        """Return κ with the eigenvalues."""
        return f"{self.value:.5g} (|{self.largest:.4g}| / |{self.smallest:.4g}|)"


def condition_number(
    model: Any, x: Any = None, y: Any = None, *, kind: str = "hessian", **kwargs: Any
) -> ConditionNumber:
    """Return the condition number of the Hessian: how much gradient descent zigzags.

    The number of steps that gradient descent takes grows like κ; Newton's method does not depend on
    it. All eigenvalues are computed, of at most 5,000 weights: take a `layer` of a larger model.

        κ = max_ij |λ_i / λ_j|

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `value`, `largest` and `smallest`.

    Raises:
        TypeError: As of `Curvature`.
        ValueError: As of `Curvature`; `kind` is unknown; there are more than 5,000 weights.

    Reference:
        X. Wang, Optimization for Training Deep Models, lecture, 2015, "Hessian matrix".

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> print(kerasopt.curvature.condition_number(model, x, y, loss="mse"))
        4 (|4| / |1|)
    """
    check_choice("kind", kind, KINDS)
    curvature = curvature_of(model, x, y, **kwargs)
    values = np.linalg.eigvalsh(dense(curvature, kind).astype("float64"))
    values = values[np.argsort(np.abs(values))]
    smallest, largest = float(values[0]), float(values[-1])
    rounding = curvature.size * float(np.finfo(curvature.dtype).eps) * abs(largest)
    value = abs(largest / smallest) if abs(smallest) > rounding else inf
    return ConditionNumber(value, largest, smallest)
