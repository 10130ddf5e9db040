"""What kind of point the weights are at."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasopt._validation import check_count, check_number
from kerasopt.curvature._curvature import Curvature, curvature_of
from kerasopt.curvature._eigenvalues import ends, random_rows
from kerasopt.curvature._hessian import dense

ALL = 1000  # weights, of which all eigenvalues are computed


@dataclass(frozen=True)
class CriticalPoint:
    """What kind of point it is, and why.

    Attributes:
        kind: `"minimum"`, `"maximum"`, `"saddle"`, `"flat"` or `"not a critical point"`.
        gradient_norm: ‖∇J‖.
        loss: J.
        eigenvalues: Eigenvalues of the Hessian, ascending: all, or the ends of the spectrum.
        positive: How many of these are above zero by more than the tolerance.
        negative: How many are as far below zero.
        flat: How many are neither.
        complete: Whether they are all.
    """

    kind: str
    gradient_norm: float
    loss: float
    eigenvalues: np.ndarray
    positive: int
    negative: int
    flat: int
    complete: bool

    def __str__(self) -> str:
        """Return a sentence."""
        which = "all" if self.complete else "the outer"
        low, high = self.eigenvalues[[0, -1]]
        return (
            f"{self.kind}: ‖∇J‖ = {self.gradient_norm:.2g}; of {which} {len(self.eigenvalues)} "
            f"eigenvalues, from {low:.3g} to {high:.3g}, {self.positive} are positive, "
            f"{self.negative} negative, {self.flat} zero"
        )


def classify_critical_point(
    model: Any,
    x: Any = None,
    y: Any = None,
    k: int = 5,
    gradient_tolerance: float = 1e-4,
    tolerance: float = 1e-5,
    seed: int = 0,
    **kwargs: Any,
) -> CriticalPoint:
    """Say whether the weights are at a minimum, a maximum, a saddle point or on a plateau.

    At a critical point the gradient says nothing; the signs of the Hessian's eigenvalues do. With
    c = max(max |λ|, |J|), by which the curvature of this loss is measured:

        not a critical point    ‖∇J‖ > gradient_tolerance · c
        zero                    |λ| ≤ tolerance · c
        flat                    all λ are zero
        saddle                  some λ > 0, some λ < 0
        minimum, maximum        no λ < 0, no λ > 0, up to the second order: along directions in
                                which λ is zero, higher derivatives decide

    Of models with up to 1,000 weights all eigenvalues are computed, else k at each end.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        k: Number of eigenvalues at each end, of larger models, ≥ 1. Defaults to 5.
        gradient_tolerance: What counts as no gradient, > 0. Defaults to 1e-4.
        tolerance: What counts as no curvature, > 0. Defaults to 1e-5.
        seed: Seed of the first vectors of the eigenvalues. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `kind`, `gradient_norm`, `loss`, `eigenvalues`, `positive`,
        `negative`, `flat` and `complete`; printed, it is a sentence.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range.

    Reference:
        Dauphin et al., Identifying and attacking the saddle point problem in high-dimensional
        non-convex optimization, 2014; X. Wang, Optimization for Training Deep Models, lecture,
        2015, "Local minimum, local maximum, and saddle points".

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((2,)), dense])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> kerasopt.curvature.classify_critical_point(model, x, y, loss="mse").kind
        'minimum'
    """
    check_count("k", k), check_count("seed", seed, least=0)
    least = check_number("gradient_tolerance", gradient_tolerance, "(0, inf)")
    zero = check_number("tolerance", tolerance, "(0, inf)")
    curvature = curvature_of(model, x, y, **kwargs)
    values = np.sort(_spectrum(curvature, k, seed))
    loss, norm = curvature.loss(), float(np.linalg.norm(curvature.gradient()))
    scale = max(float(np.abs(values).max()), abs(loss))
    positive, negative = (int(np.sum(side * values > zero * scale)) for side in (1, -1))
    critical = norm <= least * scale
    kind = _kind(positive, negative) if critical else "not a critical point"
    flat = len(values) - positive - negative
    complete = len(values) == curvature.size
    return CriticalPoint(kind, norm, loss, values, positive, negative, flat, complete)


def _spectrum(curvature: Curvature, k: int, seed: int) -> np.ndarray:
    if curvature.size <= ALL:
        return np.linalg.eigvalsh(dense(curvature, "hessian").astype("float64"))
    start = random_rows(curvature, k, seed)
    return ends(curvature, "hessian", "both", k, start, 1e-6, 200 + 20 * k, False).values


def _kind(positive: int, negative: int) -> str:
    if positive and negative:
        return "saddle"
    return "minimum" if positive else "maximum" if negative else "flat"
