"""The second derivative by each weight."""

from typing import Any

import numpy as np

from kerasopt._validation import check_choice, check_count
from kerasopt.curvature._curvature import Curvature, curvature_of
from kerasopt.curvature._probes import probe
from kerasopt.optimizers._diagonal import ESTIMATORS


def diagonal(
    model: Any,
    x: Any = None,
    y: Any = None,
    samples: int = 64,
    estimator: str = "hutchinson",
    seed: int = 0,
    **kwargs: Any,
) -> list[np.ndarray]:
    """Return the diagonal of the Hessian, the second derivative of the loss by each weight.

    Its inverse is the optimal learning rate of each weight, as far as the others stay.

        hutchinson    diag H ≈ 1/S Σ_s v_s ⊙ H v_s    v of random signs
        gauss_newton  diag G ≈ 1/S Σ_s r_s ⊙ r_s      r = Jᵀ (∇²L)^½ ε, ε of random signs

    The first is noisy where a row of H has large elements beside the diagonal; the second is never
    negative where the penalties are convex, and its standard deviation is at most √(2/S) times what
    it estimates.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        samples: Number S of products, ≥ 1. With as many as there are weights, or more, the diagonal
            is exact. Defaults to 64.
        estimator: `"hutchinson"` or `"gauss_newton"`. Defaults to `"hutchinson"`.
        seed: Seed of the signs. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An array for each weight, of its shape, in the order of `model.trainable_variables`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range; the model's outputs have
            more than 64 columns, or none, and the estimator is `"gauss_newton"`.

    Reference:
        Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007; LeCun, Bottou,
        Orr and Müller, Efficient BackProp, 1998.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> kerasopt.curvature.diagonal(model, x, y, loss="mse")[0].round(3).tolist()
        [[1.0], [4.0]]
    """
    check_count("samples", samples), check_count("seed", seed, least=0)
    check_choice("estimator", estimator, ESTIMATORS)
    curvature = curvature_of(model, x, y, **kwargs)
    return curvature.split(flat_diagonal(curvature, samples, estimator, seed))


def flat_diagonal(curvature: Curvature, samples: int, estimator: str, seed: int) -> np.ndarray:
    """Return the diagonal as one vector."""
    if estimator == "gauss_newton" and samples < curvature.size:
        seeds = range(seed, seed + samples)
        return np.mean([curvature.gauss_newton_diagonal(each) for each in seeds], axis=0)
    kind = "hessian" if estimator == "hutchinson" else "gauss_newton"
    sums = [block.sum(axis=0) for block in probe(curvature, kind, samples, seed)]
    return np.sum(sums, axis=0) / min(samples, curvature.size)
