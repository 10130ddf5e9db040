"""The picture of learning curves."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kerasopt._files import replacing

# Blue and vermilion of Okabe and Ito's palette, which colour-blind people can tell apart.
TRAINING, VALIDATION, INK = "#0072B2", "#D55E00", "#555555"
FORMATS = (".png", ".svg", ".pdf")


class CurveFigure:
    """One panel a metric: training against validation by epoch, the best epoch marked.

    The lines are made once and given new data at each drawing.
    """

    def __init__(self, metrics: Sequence[str], title: str | None = None) -> None:
        rows = math.ceil(len(metrics) / 3)
        columns = math.ceil(len(metrics) / rows)
        width, height = 5 * columns, 3.6 * rows + 0.4  # inches
        self.figure = Figure(figsize=(width, height))
        self.figure.suptitle(title or "", y=1 - 0.12 / height, va="top")
        # Fixed margins: a layout engine would take longer than all else that is drawn.
        self.figure.subplots_adjust(
            left=0.75 / width,
            right=1 - 0.2 / width,
            bottom=0.55 / height,
            top=1 - 0.75 / height,
            wspace=0.25,
            hspace=0.4,
        )
        grid = self.figure.subplots(rows, columns, squeeze=False).ravel()
        self.panels = [_Panel(axes, metric) for axes, metric in zip(grid, metrics, strict=False)]
        for axes in grid[len(metrics) :]:
            axes.remove()

    def draw(
        self, epochs: Sequence[int], history: dict[str, list[float]], best: int | None
    ) -> None:
        """Show `history`, a series of values by name; `best` is the position of the best epoch."""
        for panel in self.panels:
            panel.draw(np.asarray(epochs), history, best)

    def save(self, path: Path) -> None:
        """Write the picture in the format that the suffix names, whole or not at all."""
        with replacing(path) as part:
            self.figure.savefig(part, dpi=120)


class _Panel:
    def __init__(self, axes: Axes, metric: str) -> None:
        self.axes, self.metric = axes, metric
        axes.set_title(metric, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("epoch")
        axes.set_ylabel("average error per pattern" if metric == "loss" else "")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        self.lines = {
            name: axes.plot([], [], color=color, linewidth=1.6, marker="o", label=label)[0]
            for name, color, label in (
                (metric, TRAINING, "training"),
                (f"val_{metric}", VALIDATION, "validation"),
            )
        }
        self.best_line = axes.axvline(math.nan, color=INK, linewidth=1, linestyle=":")
        self.best_dot = axes.plot([], [], "o", color=VALIDATION, markersize=7, mec="white")[0]
        self.best_label = axes.set_title("", loc="right", fontsize=9, color=INK)

    def draw(self, epochs: np.ndarray, history: dict[str, list[float]], best: int | None) -> None:
        shown = {name: np.asarray(history[name]) for name in self.lines if name in history}
        for name, values in shown.items():
            self.lines[name].set_data(epochs, values)
            self.lines[name].set_markersize(3 if len(epochs) <= 30 else 0)
        if best is not None:
            name = list(shown)[-1]
            self.best_line.set_xdata([epochs[best]] * 2)
            self.best_dot.set_data([epochs[best]], [shown[name][best]])
            self.best_dot.set_color(self.lines[name].get_color())
            self.best_label.set_text(f"best epoch {epochs[best]}: {shown[name][best]:.4g}")
        self._scale(np.concatenate(list(shown.values())))
        self._legend([self.lines[name] for name in shown], shown[self.metric])

    def _scale(self, values: np.ndarray) -> None:
        """Fit the limits to the finite values; an error that falls far goes on a log axis."""
        values = values[np.isfinite(values)]
        falls_far = values.size and values.min() > 0 and values.max() > 30 * values.min()
        if self.metric == "loss" and falls_far:
            self.axes.set_yscale("log")
            self.axes.yaxis.set_major_formatter("{x:g}")
        else:
            self.axes.set_yscale("linear")
        self.axes.relim()
        self.axes.autoscale_view()

    def _legend(self, lines: list[Line2D], values: np.ndarray) -> None:
        """Put the legend where falling or rising curves leave room."""
        rises = values[-1] > values[0]
        self.axes.legend(
            handles=lines, loc="lower right" if rises else "upper right", frameon=False, fontsize=9
        )
