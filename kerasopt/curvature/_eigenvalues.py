"""The eigenvalues at the ends of the spectrum."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasopt._validation import check_choice, check_count, check_flag, check_number
from kerasopt.curvature._curvature import KINDS, Curvature, curvature_of
from kerasopt.curvature._lanczos import lanczos, mixed
from kerasopt.curvature._ritz import settled

FEW, MANY = 3, 16  # vectors at a time
ALIKE = 1e-3  # eigenvalues that are no farther apart, by the largest, may be one and the same


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues, and how well they are known.

    Attributes:
        values: The eigenvalues λ.
        residuals: ‖H u - λ u‖ for each: there is an eigenvalue that is no farther away.
        converged: Whether all reached the tolerance.
        products: How many products with a vector it took.
        vectors: The eigenvectors u, as rows of length 1, or None if not asked for.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: bool
    products: int
    vectors: np.ndarray | None = None

    def __str__(self) -> str:
        """Return the eigenvalues with their residuals, line by line."""
        pairs = zip(self.values, self.residuals, strict=True)
        lines = [f"{value:12.5g}  ± {residual:.1g}" for value, residual in pairs]
        end = "converged" if self.converged else "NOT converged"
        return "\n".join([*lines, f"{end} after {self.products} products"])


def eigenvalues(
    model: Any,
    x: Any = None,
    y: Any = None,
    k: int = 5,
    which: str = "largest",
    kind: str = "hessian",
    vectors: bool = False,
    tolerance: float = 1e-7,
    max_products: int | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Eigenvalues:
    """Return the largest or smallest eigenvalues of the Hessian, or both.

    The largest one bounds the learning rate of gradient descent by 2 / λ; negative ones tell a
    saddle; a few that stand far above all others are usual, about one for each class.

    It is a block Lanczos method: three vectors at a time, which share the cost of a gradient, all
    of them orthogonalised twice against all before. It ends when the error of all that are wanted,
    estimated by min(r, Σ r² / gap), is below `tolerance` times the largest |λ|. An eigenvalue that
    is there m times is seen min(m, 3) times; so where three are alike, to a thousandth of the
    largest, it begins again with min(k, 16) vectors at a time, and returns it as often.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        k: How many, ≥ 1. Defaults to 5.
        which: `"largest"`, in falling order; `"smallest"`, the most negative first; or `"both"`,
            the k largest and then the k smallest in falling order. Defaults to `"largest"`.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        vectors: Whether to return the eigenvectors. Defaults to False.
        tolerance: Allowed error of an eigenvalue by the largest |λ|, > 0. Defaults to 1e-7.
        max_products: Products after which it gives up, ≥ 1; as many vectors are kept. Defaults to
            None, which is 200 + 20 k; with n of them the eigenvalues are exact.
        seed: Seed of the first vectors. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `values`, `residuals`, `converged`, `products`, `vectors`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range.

    Reference:
        Golub and Underwood, The block Lanczos method for computing eigenvalues, 1977.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> print(kerasopt.curvature.eigenvalues(model, x, y, k=1, loss="mse"))
                   4  ± 0
        converged after 2 products
    """
    count = check_count("k", k)
    check_choice("which", which, ("largest", "smallest", "both"))
    check_choice("kind", kind, KINDS)
    check_number("tolerance", tolerance, "(0, inf)")
    most = 200 + 20 * count if max_products is None else check_count("max_products", max_products)
    check_flag("vectors", vectors), check_count("seed", seed, least=0)
    curvature = curvature_of(model, x, y, **kwargs)
    spent = 0
    for width in sorted({min(count, FEW), min(count, MANY)}):
        start = random_rows(curvature, width, seed)
        found = ends(curvature, kind, which, count, start, tolerance, most - spent, vectors)
        spent += found.products
        whole = found.products == curvature.size
        if whole or not found.converged or not _alike(found.values):
            break
    return replace(found, products=spent)


def _alike(values: np.ndarray) -> bool:
    """Return whether so many of descending eigenvalues may be one that is there several times."""
    return bool((values[: 1 - FEW] - values[FEW - 1 :] <= ALIKE * np.abs(values).max()).any())


def random_rows(curvature: Curvature, count: int, seed: int) -> np.ndarray:
    """Return vectors to start from."""
    random = np.random.default_rng(seed)
    shape = min(count, curvature.size), curvature.size
    return random.normal(size=shape).astype(curvature.dtype)


def ends(
    curvature: Curvature,
    kind: str,
    which: str,
    k: int,
    start: np.ndarray,
    tolerance: float,
    most: int,
    vectors: bool,
) -> Eigenvalues:
    """Return eigenvalues from the ends of the spectrum, of a Krylov space that begins anywhere."""
    most = max(min(most, curvature.size), len(start))
    for space in lanczos(lambda rows: curvature.products(rows, kind), start, most):
        values, inside, residuals = space.pairs()
        chosen = _chosen(len(values), k, which)
        converged = settled(values, chosen, residuals[chosen], curvature.size, tolerance)
        if converged:
            break
    rows = mixed(inside[:, chosen].T, space.basis) if vectors else None
    return Eigenvalues(values[chosen], residuals[chosen], converged, len(values), rows)


def _chosen(count: int, k: int, which: str) -> np.ndarray:
    """Return the places of the wanted among ascending eigenvalues, in the order of the result."""
    falling = np.arange(count)[::-1]
    if which == "largest":
        return falling[:k]
    if which == "smallest":
        return falling[::-1][:k]
    return falling if count <= 2 * k else np.concatenate([falling[:k], falling[-k:]])
