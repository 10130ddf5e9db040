"""The trace: the sum of all eigenvalues."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasopt._validation import check_choice, check_count
from kerasopt.curvature._curvature import KINDS, curvature_of
from kerasopt.curvature._probes import probe


@dataclass(frozen=True)
class Trace:
    """An estimate of the trace.

    Attributes:
        value: The estimate.
        standard_error: Of the estimate; 0 where it is exact.
        samples: Number of products that it was made of.
    """

    value: float
    standard_error: float
    samples: int

    def __float__(self) -> float:
        """Return the estimate."""
        return self.value

    def __str__(self) -> str:
        """Return the estimate with its error."""
        return f"{self.value:.5g} ± {self.standard_error:.1g} ({self.samples} products)"


def trace(
    model: Any,
    x: Any = None,
    y: Any = None,
    samples: int = 64,
    kind: str = "hessian",
    seed: int = 0,
    **kwargs: Any,
) -> Trace:
    """Return the trace of the Hessian, the sum of all eigenvalues: n times the mean curvature.

        tr H ≈ 1/S Σ_s v_sᵀ H v_s                     v of random signs

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        samples: Number S of products, ≥ 2. With as many as there are weights, or more, the trace is
            exact. Defaults to 64.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        seed: Seed of the signs. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `value`, `standard_error` and `samples`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range.

    Reference:
        Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian
        smoothing splines, 1990.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> print(kerasopt.curvature.trace(model, x, y, loss="mse"))
        5 ± 0 (2 products)
    """
    check_count("samples", samples, least=2), check_count("seed", seed, least=0)
    check_choice("kind", kind, KINDS)
    curvature = curvature_of(model, x, y, **kwargs)
    rows = [block.sum(axis=1, dtype="float64") for block in probe(curvature, kind, samples, seed)]
    forms = np.concatenate(rows)
    exact = len(forms) == curvature.size
    error = 0.0 if exact else forms.std(ddof=1) / np.sqrt(len(forms))
    return Trace(float(forms.mean()), float(error), len(forms))
