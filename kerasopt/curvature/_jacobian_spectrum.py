"""Singular values of Jacobians by depth, and their picture."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasopt._files import replacing
from kerasopt.callbacks._curve_figure import COLOURS, INK, check_picture

MOST_NAMES = 24


@dataclass(frozen=True)
class JacobianSpectrum:
    """What `jacobian_singular_values` found.

    Attributes:
        names: Names of the depths, from the lowest, `"input"`, to the output.
        stages: For each stage, which ends at the depth one above, singular values of its Jacobian,
            the largest first: an array (samples, values).
        products: For each depth but the last, those of the derivatives of the output by it.
    """

    names: tuple[str, ...]
    stages: tuple[np.ndarray, ...]
    products: tuple[np.ndarray, ...]

    @property
    def log_norms(self) -> np.ndarray:
        """The logarithm of σ_max of the products: an array (samples, depths), -inf for zero."""
        with np.errstate(divide="ignore"):
            return np.log(np.stack([values[:, 0] for values in self.products], axis=1))

    @property
    def mean_log_norm(self) -> np.ndarray:
        """The mean of `log_norms` over the samples whose Jacobian is not zero, by depth."""
        return self._over_samples(np.mean)

    @property
    def variance_log_norm(self) -> np.ndarray:
        """Their variance over these samples, by depth."""
        return self._over_samples(np.var)

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the norms of stages and products, and the variance; the suffix names the format."""
        figure = Figure(figsize=(12, 4), layout="constrained")
        stages, products, variance = figure.subplots(1, 3)
        _draw_norms(stages, self.names[1:], [values[:, 0] for values in self.stages])
        _title(stages, "σ_max of each stage", "stage")
        _draw_norms(products, self.names[:-1], [values[:, 0] for values in self.products])
        _title(products, "σ_max of the output's derivatives", "by what is at this depth")
        factors = np.arange(len(self.products), 0, -1)
        variance.plot(factors, self.variance_log_norm, "o-", color=COLOURS[0], markersize=3)
        _title(variance, "variance of ln σ_max over samples", "number of stages composed")
        with replacing(check_picture(path)) as part:
            figure.savefig(part, dpi=100)

    def _over_samples(self, figure: Callable[[np.ndarray], np.floating]) -> np.ndarray:
        columns = [column[np.isfinite(column)] for column in self.log_norms.T]
        return np.array([figure(column) if column.size else np.nan for column in columns])


def _draw_norms(axes: Axes, names: tuple[str, ...], norms: list[np.ndarray]) -> None:
    """Draw the median and where nine of ten samples lie."""
    low, median, high = (np.array([np.quantile(n, q) for n in norms]) for q in (0.05, 0.5, 0.95))
    places = np.arange(len(names))
    axes.fill_between(places, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(places, median, "o-", color=COLOURS[0], markersize=3)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    if np.max(high) > 0:
        axes.set_yscale("log")
    step = -(-len(names) // MOST_NAMES)
    axes.set_xticks(places[::step], names[::step], rotation=90, fontsize=8)


def _title(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
