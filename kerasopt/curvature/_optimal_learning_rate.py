"""The learning rates that the curvature allows."""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from kerasopt._validation import check_choice, check_count, check_flag
from kerasopt.callbacks._gradient_statistics import layers_of
from kerasopt.curvature._curvature import KINDS, Curvature, curvature_of
from kerasopt.curvature._diagonal import flat_diagonal
from kerasopt.curvature._eigenvalues import ends, random_rows


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of gradient descent, by the curvature.

    Attributes:
        curvature: The largest eigenvalue λ.
        optimal: 1 / λ; infinite where λ is not positive.
        limit: 2 / λ, above which gradient descent diverges along the eigenvector.
        layers: 1 / λ of each layer by itself, from the lowest to the top; or None.
        weights: 1 / h of each weight, infinite where h is not positive, as arrays of the shapes of
            the weights; or None.
    """

    curvature: float
    optimal: float
    limit: float
    layers: dict[str, float] | None = None
    weights: list[np.ndarray] | None = None

    def __float__(self) -> float:
        """Return 1 / λ."""
        return self.optimal

    def __str__(self) -> str:
        """Return the rates, line by line."""
        lines = [f"{self.optimal:.4g} = 1 / {self.curvature:.4g}, at most {self.limit:.4g}"]
        lines += [f"{rate:10.4g}  {name}" for name, rate in (self.layers or {}).items()]
        return "\n".join(lines)


def optimal_learning_rate(
    model: Any,
    x: Any = None,
    y: Any = None,
    per_layer: bool = False,
    per_weight: bool = False,
    samples: int = 64,
    kind: str = "hessian",
    seed: int = 0,
    **kwargs: Any,
) -> LearningRates:
    """Return the learning rate that is optimal for the steepest direction, and the largest stable.

    Along an eigenvector, gradient descent with η multiplies the distance from the minimum by
    1 - η λ in each step. With 1 / λ it is there in one; up to 2 / λ it oscillates and converges;
    beyond, it diverges.

        η_opt = 1 / λ_max,  limit 2 / λ_max           of all weights, or of those of each layer
        η_i = 1 / h_ii                                of each weight

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        per_layer: Whether to give a rate for each layer, as if the others stayed. Defaults to
            False.
        per_weight: Whether to give a rate for each weight. Defaults to False.
        samples: Number of products for the h_ii, ≥ 1, as of `diagonal`. Defaults to 64.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        seed: Seed of the random vectors. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `curvature`, `optimal`, `limit`, `layers` and `weights`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range.

    Reference:
        LeCun, Simard and Pearlmutter, Automatic learning rate maximization by on-line estimation of
        the Hessian's eigenvectors, 1993; X. Wang, Optimization for Training Deep Models, lecture,
        2015, "Learning rate".

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> print(kerasopt.curvature.optimal_learning_rate(model, x, y, loss="mse"))
        0.25 = 1 / 4, at most 0.5
    """
    check_flag("per_layer", per_layer), check_flag("per_weight", per_weight)
    check_count("samples", samples), check_count("seed", seed, least=0)
    check_choice("kind", kind, KINDS)
    curvature = curvature_of(model, x, y, **kwargs)
    value = largest(curvature, kind, seed)
    layers = weights = None
    if per_layer:
        layers = {
            name: inverse(largest(part, kind, seed)) for name, part in _parts(curvature).items()
        }
    if per_weight:
        estimator = "hutchinson" if kind == "hessian" else "gauss_newton"
        h = flat_diagonal(curvature, samples, estimator, seed)
        weights = curvature.split(np.where(h > 0, 1 / np.where(h > 0, h, 1), inf))
    return LearningRates(value, inverse(value), 2 * inverse(value), layers, weights)


def largest(curvature: Curvature, kind: str, seed: int) -> float:
    """Return the largest eigenvalue."""
    start = random_rows(curvature, 1, seed)
    return float(ends(curvature, kind, "largest", 1, start, 1e-7, 300, False).values[0])


def inverse(value: float) -> float:
    """Return 1 / λ; where the curvature is not positive, it bounds no rate."""
    return 1 / value if value > 0 else inf


def _parts(curvature: Curvature) -> dict[str, Curvature]:
    """Return the same loss as a function of the weights of each layer."""
    weights, inside = curvature.model.trainable_variables, {id(w) for w in curvature.weights}
    parts = {
        name: [weights[place] for place in places if id(weights[place]) in inside]
        for name, places in layers_of(curvature.model).items()
    }
    return {name: curvature.of(some) for name, some in parts.items() if some}
