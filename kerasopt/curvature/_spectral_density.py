"""How the eigenvalues are spread."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kerasopt._files import check_writable, replacing
from kerasopt._validation import check_choice, check_count
from kerasopt.callbacks._curve_figure import COLOURS, INK, check_picture
from kerasopt.curvature._curvature import KINDS, curvature_of
from kerasopt.curvature._eigenvalues import random_rows
from kerasopt.curvature._lanczos import lanczos


@dataclass(frozen=True)
class SpectralDensity:
    """Which share of the eigenvalues is where.

    Attributes:
        values: Points of the spectrum, ascending.
        weights: The share of all eigenvalues for which each stands; their sum is 1.
        size: The number of eigenvalues.
        exact: Whether `values` are all eigenvalues.
    """

    values: np.ndarray
    weights: np.ndarray
    size: int
    exact: bool

    def curve(self, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
        """Return eigenvalues and their density, smoothed over a hundredth of the spectrum."""
        low, high = self.values[0], self.values[-1]
        width = (high - low) / 100 or max(abs(high), 1.0) / 100
        grid = np.linspace(low - 5 * width, high + 5 * width, points)
        bells = np.exp(-0.5 * ((grid[:, None] - self.values) / width) ** 2)
        return grid, bells @ self.weights / (width * np.sqrt(2 * np.pi))

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the density; the suffix, `.png`, `.svg` or `.pdf`, names the format."""
        check_writable("path", target := check_picture(path))
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        grid, density = self.curve()
        axes.plot(grid, density, color=COLOURS[0], linewidth=1.6)
        axes.set_yscale("log")
        axes.set_ylim(0.1 * density.max() / self.size, 3 * density.max())
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        ends = self.values[[0, -1]]
        axes.plot(ends, [0.02, 0.02], "^", color=COLOURS[1], transform=axes.get_xaxis_transform())
        axes.set_title(f"eigenvalues from {ends[0]:.3g} to {ends[1]:.3g}", loc="left", fontsize=11)
        axes.set_xlabel("eigenvalue")
        axes.set_ylabel("density")
        axes.spines[["top", "right"]].set_visible(False)
        with replacing(target) as part:
            figure.savefig(part, dpi=120)


def spectral_density(
    model: Any,
    x: Any = None,
    y: Any = None,
    steps: int = 40,
    probes: int = 4,
    kind: str = "hessian",
    seed: int = 0,
    **kwargs: Any,
) -> SpectralDensity:
    """Return how the eigenvalues of the Hessian are spread, by stochastic Lanczos quadrature.

    The spectrum of a network is a bulk around zero, and a few eigenvalues far above it. A Krylov
    space of random vectors has in its eigenvalues the points, and in the first components of their
    eigenvectors the weights, of a quadrature by the spectrum:

        1/n Σ_i f(λ_i) ≈ Σ_k w_k f(θ_k),  w_k = 1/p Σ_{i ≤ p} u_ik²     p probes, block Lanczos

    It is exact in the mean for polynomials f of degree 2 steps - 1.

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        steps: Number of Lanczos steps, ≥ 1. Defaults to 40.
        probes: Number p of random vectors, ≥ 1: more of them, less noise. Memory is that of
            `steps` × `probes` vectors. Defaults to 4.
        kind: `"hessian"`, or `"gauss_newton"` for G as of `ggnvp`. Defaults to `"hessian"`.
        seed: Seed of the vectors. Defaults to 0.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        An object with the attributes `values`, `weights`, `size` and `exact`, and the methods
        `curve()`, which returns the density at some points, and `plot(path)`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `Curvature`; an argument is outside its range.

    Reference:
        Ghorbani, Krishnan and Xiao, An investigation into neural net optimization via Hessian
        eigenvalue density, 2019; Golub and Meurant, Matrices, moments and quadrature, 1994.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> density = kerasopt.curvature.spectral_density(model, x, y, loss="mse")
        >>> density.values.round(3).tolist(), density.weights.tolist()
        ([1.0, 4.0], [0.5, 0.5])
    """
    check_count("steps", steps), check_count("probes", probes), check_count("seed", seed, least=0)
    check_choice("kind", kind, KINDS)
    curvature = curvature_of(model, x, y, **kwargs)
    n, start = curvature.size, random_rows(curvature, probes, seed)
    most = min(n, steps * len(start))
    *_, space = lanczos(lambda rows: curvature.products(rows, kind), start, most)
    values, vectors, _ = space.pairs()
    exact = len(values) == n
    weights = np.mean(vectors[: len(start)] ** 2, axis=0)
    return SpectralDensity(values, np.full(n, 1 / n) if exact else weights, n, exact)
