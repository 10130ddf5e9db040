"""Losses on a line or a plane, and their picture."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from kerasopt._files import replacing
from kerasopt._validation import check_flag
from kerasopt.callbacks._curve_figure import COLOURS, INK, check_picture

LEVELS = 24


@dataclass(frozen=True)
class LossSurface:
    """What `loss_surface` found.

    Attributes:
        coordinates: The values of a, and of b on a plane.
        losses: The losses: `losses[i]` at the i-th value of a, or `losses[i, j]` at the i-th of a
            and the j-th of b.
        directions: The directions, each an array for each trainable weight.
    """

    coordinates: tuple[np.ndarray, ...]
    losses: np.ndarray
    directions: tuple[tuple[np.ndarray, ...], ...]

    def plot(self, path: str | PathLike[str], log: bool | str = "auto") -> None:
        """Draw the line, or the contours of the plane; the suffix names the format.

        Args:
            path: File to draw to, `.png`, `.svg` or `.pdf`.
            log: Whether losses are on a logarithmic scale: True, False, or `"auto"` for one where
                the largest is more than 30 times the smallest. Losses that are not finite are left
                white. Defaults to `"auto"`.
        """
        finite = self.losses[np.isfinite(self.losses)]
        logarithmic = self._is_log(finite, log)
        figure = Figure(figsize=(6, 5) if self.losses.ndim == 2 else (6, 4), layout="constrained")
        axes = figure.subplots()
        if self.losses.ndim == 2 and finite.size and finite.min() < finite.max():
            self._draw_plane(figure, axes, finite, logarithmic)
        else:
            self._draw_line(axes, logarithmic)
        axes.set_xlabel("a")
        axes.set_title("loss around the weights", loc="left", fontsize=11, fontweight="bold")
        with replacing(check_picture(path)) as part:
            figure.savefig(part, dpi=100)

    def _draw_line(self, axes: Any, logarithmic: bool) -> None:
        axes.plot(self.coordinates[0], self.losses, color=COLOURS[0])
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yscale("log" if logarithmic else "linear")
        axes.set_ylabel("loss")
        axes.spines[["top", "right"]].set_visible(False)

    def _draw_plane(self, figure: Any, axes: Any, finite: np.ndarray, logarithmic: bool) -> None:
        space = np.geomspace if logarithmic else np.linspace
        levels = space(finite.min(), finite.max(), LEVELS)
        grid = *self.coordinates, np.ma.masked_invalid(self.losses.T)
        norm = LogNorm(finite.min(), finite.max()) if logarithmic else None
        filled = axes.contourf(*grid, levels=levels, cmap="cividis", norm=norm)
        axes.contour(*grid, levels=levels[::2], colors="white", linewidths=0.4)
        axes.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=1.5)
        axes.set_xlim(self.coordinates[0][[0, -1]])
        axes.set_ylim(self.coordinates[1][[0, -1]])
        axes.set_ylabel("b")
        figure.colorbar(filled, ax=axes, label="loss", format="{x:.3g}")

    @staticmethod
    def _is_log(finite: np.ndarray, log: bool | str) -> bool:
        positive = bool(finite.size) and finite.min() > 0
        if log == "auto":
            return positive and finite.max() > 30 * finite.min()
        if check_flag("log", log) and not positive:
            raise ValueError(
                "`log` must be False where losses are not positive. "
                f"Received: log={log!r}, a smallest loss of {finite.min(initial=np.inf):.3g}"
            )
        return bool(log)
