"""The pictures of learning curves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasopt._acting import Event
from kerasopt._files import replacing
from kerasopt._validation import check_flag, check_number

if TYPE_CHECKING:
    from PIL import Image

# Okabe and Ito's palette, which colour-blind people can tell apart; its yellow is too light.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#555555"
FORMATS = (".png", ".svg", ".pdf")
MARKERS = "v^sDPX*"  # of the events
RATE = "learning_rate"
NICE = np.array([base * 10**power for power in range(7) for base in (1, 1.5, 2, 3, 5, 7)])

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]  # epochs and values
Styles: TypeAlias = dict[str, dict[str, Any]]  # of lines, by their labels
TRAINING: Styles = {"training": {"color": COLOURS[0]}, "validation": {"color": COLOURS[1]}}
BATCHES: Styles = {"batches": {"color": COLOURS[0], "alpha": 0.35, "linewidth": 0.8}}


class Look(NamedTuple):
    """How curves are drawn: what share of a value is that of those before, and what else is."""

    smooth: float = 0.0
    log_y: bool | str = "auto"
    mark_best: bool = True


def check_picture(path: Any) -> Path:
    """Return the path of a picture if its suffix names a format; else raise."""
    if Path(path).suffix not in FORMATS:
        raise ValueError(f"`path` must end in one of {FORMATS}. Received: path={str(path)!r}")
    return Path(path)


def check_look(smooth: Any, log_y: Any, mark_best: Any) -> Look:
    """Return how curves are to be drawn, if that is understood; else raise."""
    if log_y != "auto":
        check_flag("log_y", log_y)
    share = check_number("smooth", smooth, "[0, 1)")
    return Look(share, log_y, check_flag("mark_best", mark_best))


class CurveFigure:
    """One panel a metric, of curves by epoch.

    All artists are made once. What moves with each epoch is drawn onto a picture of all else, which
    is kept, and is drawn again where an axis has to grow.
    """

    def __init__(self, panels: Mapping[str, Styles], title: str | None, look: Look) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # not before one is drawn

        rows = math.ceil(len(panels) / 3)
        columns = math.ceil(len(panels) / rows)
        head = 0.75 if title else 0.4
        width, height = 5 * columns, 3.6 * rows + head - 0.35  # inches
        self.figure = Figure(figsize=(width, height), dpi=120)
        self.canvas: Any = FigureCanvasAgg(self.figure)
        self.figure.suptitle(title or "", y=1 - 0.12 / height, va="top")
        # Fixed margins: a layout engine would take longer than all else that is drawn.
        self.figure.subplots_adjust(
            left=0.75 / width,
            right=1 - 0.2 / width,
            bottom=0.55 / height,
            top=1 - head / height,
            wspace=0.25,
            hspace=0.4,
        )
        grid = self.figure.subplots(rows, columns, squeeze=False).ravel()
        self.panels = {
            metric: Panel(axes, metric, styles, look)
            for axes, (metric, styles) in zip(grid, panels.items(), strict=False)
        }
        for axes in grid[len(panels) :]:
            axes.remove()
        self._background: Any = None

    def draw(
        self,
        curves: Mapping[str, Mapping[str, Curve]],
        best: int | None = None,
        events: Sequence[Event] = (),
        exact: bool = False,
    ) -> None:
        """Show the curves of each metric; with `exact` limits leave no room for epochs to come."""
        grown = [
            panel.draw(curves[metric], best, events, exact) for metric, panel in self.panels.items()
        ]
        moving = [artist for panel in self.panels.values() for artist in panel.moving()]
        if any(grown) or self._background is None:
            for artist in moving:
                artist.set_visible(False)
            self.canvas.draw()
            for artist in moving:
                artist.set_visible(True)
            self._background = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._background)
        for artist in moving:
            artist.axes.draw_artist(artist)

    def pixels(self) -> "Image.Image":
        """Return what has been drawn."""
        from PIL import Image  # as above

        return Image.fromarray(np.asarray(self.canvas.buffer_rgba()))

    def save(self, path: Path) -> None:
        """Write the picture in the format that the suffix names, whole or not at all."""
        with replacing(path) as part:
            if path.suffix == ".png":
                self.pixels().save(part, format="png", compress_level=1)
            else:
                self.figure.savefig(part)


class Panel:
    """The curves of one metric, with the best epoch and the events of the training marked."""

    def __init__(self, axes: Any, metric: str, styles: Styles, look: Look) -> None:
        self.axes, self.metric, self.look = axes, metric, look
        # A given height: to find one, matplotlib would lay out all that is in the panel.
        title = {"y": 1.0, "fontsize": 11, "fontweight": "bold"}
        axes.set_title(metric.replace("_", " "), loc="left", **title)
        axes.set_xlabel("epoch")
        axes.set_ylabel("average error per pattern" if metric == "loss" else "")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        self.raw = {
            name: axes.plot([], [], **{"linewidth": 1, **style, "alpha": 0.3})[0]
            for name, style in styles.items()
        }
        self.lines = {
            name: axes.plot([], [], **{"linewidth": 1.6, "markersize": 3, **style}, label=name)[0]
            for name, style in styles.items()
        }
        self.best_line = axes.axvline(math.nan, color=INK, linewidth=1, linestyle=":")
        self.best_dot = axes.plot([], [], "o", markersize=7, markeredgecolor="white")[0]
        self.best_label = axes.set_title("", loc="right", y=1.0, fontsize=9, color=INK)
        self.events: dict[str, Any] = {}
        self._limits: Any = None
        self._shown: list[tuple[Any, ...]] = []

    def moving(self) -> Iterator[Any]:
        """Yield what moves with each epoch."""
        yield from (*self.raw.values(), *self.lines.values(), *self.events.values())
        yield from (self.best_line, self.best_dot, self.best_label)

    def draw(
        self, curves: Mapping[str, Curve], best: int | None, events: Sequence[Event], exact: bool
    ) -> bool:
        """Take in the values; return whether anything that does not move has changed."""
        for name, (epochs, values) in curves.items():
            raw = values if self.look.smooth else np.full(len(values), math.nan)
            self.raw[name].set_data(epochs, raw)
            self.lines[name].set_data(epochs, smoothed(values, self.look.smooth))
            self.lines[name].set_marker("o" if len(epochs) <= 30 else "")
        if best is not None and self.look.mark_best and self.metric != RATE:
            self._mark(best, *[*curves.items()][-1])
        if self.metric == "loss":
            self._mark_events(events)
        grown = self._scale(list(curves.values()), exact)
        return self._legend([name for name in curves if len(curves[name][0])]) or grown

    def _mark(self, best: int, name: str, curve: Curve) -> None:
        value = dict(zip(*curve, strict=True)).get(best, math.nan)
        self.best_line.set_xdata([best, best])
        self.best_dot.set_data([best], [value])
        self.best_dot.set_color(self.lines[name].get_color())
        self.best_label.set_text(f"best epoch {best}: {value:.4g}")

    def _mark_events(self, events: Sequence[Event]) -> None:
        """Put a mark of its own at the top edge for each kind: the first word of what happened."""
        kinds: dict[str, list[Event]] = {}
        for event in events:
            kinds.setdefault(event.text.split()[0], []).append(event)
        for kind, some in kinds.items():
            if kind not in self.events:
                marker = MARKERS[len(self.events) % len(MARKERS)]
                style = {"color": INK, "linestyle": "", "marker": marker, "markersize": 5}
                edge = self.axes.get_xaxis_transform()
                self.events[kind] = self.axes.plot([], [], transform=edge, clip_on=False, **style)[
                    0
                ]
            texts = {event.text for event in some}
            label = texts.pop() if len(texts) == 1 else kind
            self.events[kind].set_label(f"{label} ({len(some)} times)" if len(some) > 1 else label)
            self.events[kind].set_data([event.epoch for event in some], [1.0] * len(some))

    def _scale(self, curves: Sequence[Curve], exact: bool) -> bool:
        """Fit the limits to the finite values, with room to grow; return whether they changed."""
        epochs, values = (np.concatenate(each) for each in zip(*curves, strict=True))
        values = values[np.isfinite(values)]
        if not values.size:
            return False
        log = self._is_log(values)
        first, last = epochs.min(), epochs.max()
        end = last if exact else first + NICE[np.searchsorted(NICE, last - first)]
        before = self._limits[2] if self._limits and self._limits[0] == log and not exact else None
        heights = fitted(np.log10(values) if log else values, before)
        limits = log, (first - 0.03 * (end - first or 1), end + 0.02 * (end - first or 1)), heights
        if limits == self._limits:
            return False
        self._limits = limits
        self.axes.set_yscale("log" if log else "linear")
        if log:
            self.axes.yaxis.set_major_formatter("{x:g}")
        self.axes.set_xlim(limits[1])
        self.axes.set_ylim([10**height for height in heights] if log else heights)
        return True

    def _is_log(self, values: np.ndarray) -> bool:
        """Return whether the axis is logarithmic: on its own, where an error falls far."""
        if self.look.log_y != "auto":
            return bool(self.look.log_y) and values.min() > 0
        far = values.min() > 0 and values.max() > 30 * values.min()
        return bool(far) and self.metric in ("loss", RATE)

    def _legend(self, names: Sequence[str]) -> bool:
        """Renew the legend, where falling or rising curves leave room, if what it says changed."""
        handles = [*(self.lines[name] for name in names), *self.events.values()]
        values = np.asarray(self.lines[names[0]].get_ydata()) if names else np.zeros(1)
        place = "lower right" if values[-1] > values[0] else "upper right"
        shown = [(place, handle.get_label(), handle.get_marker()) for handle in handles]
        if shown == self._shown:
            return False
        self._shown = shown
        self.axes.legend(handles=handles, loc=place, frameon=False, fontsize=9)
        return True


def smoothed(values: np.ndarray, share: float) -> np.ndarray:
    """Return the moving average m ← share m + (1 - share) v, corrected for its start at zero."""
    if not share:
        return values
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean, weight = share * mean + (1 - share) * value, share * weight + 1 - share
        means.append(mean / weight if weight else math.nan)
    return np.array(means)


def fitted(values: np.ndarray, before: tuple[float, float] | None) -> tuple[float, float]:
    """Return limits for values: those before, if they do; else with room where values went."""
    low, high = float(values.min()), float(values.max())
    room = high - low or abs(high) or 1.0
    if before and before[0] <= low and high <= before[1] and room > (before[1] - before[0]) / 2:
        return before
    below, above = (0.05, 0.05) if before is None else (0.3 * (low < before[0]) + 0.05, 0.05)
    return low - below * room, high + above * room
