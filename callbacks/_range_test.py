"""What a range test of the learning rate found."""

from collections.abc import Sequence
from math import inf, isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kerasopt._files import replacing
from kerasopt.callbacks._curve_figure import COLOURS, INK, smoothed

LINES = dict(zip(("smoothed", "valley", "steepest", "curvature"), COLOURS, strict=False))


class RangeTest:
    """The losses at growing rates, and the rates that they suggest.

    Attributes:
        learning_rate: The suggested rate.
        rates: The rates of the steps.
        losses: The loss before each of them.
        smoothed: The losses, smoothed.
        suggestions: The suggested rates by name: `"valley"`, `"steepest"` and `"curvature"`.
    """

    def __init__(
        self,
        rates: Sequence[float],
        losses: Sequence[float],
        smooth: float,
        curvature: float,
        suggest: str,
    ) -> None:
        self.rates, self.losses = list(rates), list(losses)
        self._rest = smooth, curvature, suggest
        self.smoothed = list(map(float, smoothed(np.array(losses), smooth)))
        first = min(round(1 / (1 - smooth)), len(losses) // 2)  # before it the average is of few
        last = first + int(np.argmin(self.smoothed[first:]))
        part, falling = self.rates[first : last + 1], self.smoothed[first : last + 1]
        self.suggestions = {
            "valley": part[valley(falling)],
            "steepest": part[steepest(part, falling)],
            "curvature": 1 / curvature if curvature else inf,
        }
        self.learning_rate = self.suggestions[suggest]
        if not isfinite(self.learning_rate):
            raise ValueError(
                "`suggest` must be 'valley' or 'steepest' where the loss has no curvature. "
                f"Received: suggest={suggest!r}; the largest eigenvalue is {curvature}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that make this object again."""
        names = "rates", "losses", "smooth", "curvature", "suggest"
        return dict(zip(names, (list(self.rates), list(self.losses), *self._rest), strict=True))

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the loss against the rate, with the suggestions; the suffix names the format."""
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color=INK, alpha=0.35, linewidth=1, label="loss")
        axes.plot(
            self.rates, self.smoothed, color=LINES["smoothed"], linewidth=1.8, label="smoothed"
        )
        for name, rate in self.suggestions.items():
            if not isfinite(rate):
                continue
            label = f"{name}: {rate:.3g}"
            axes.axvline(rate, color=LINES[name], linestyle="--", linewidth=1.2, label=label)
        low, high = min(self.smoothed), max(self.smoothed[0], np.median(self.smoothed))
        axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("average error per pattern")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        with replacing(Path(path)) as part:
            figure.savefig(part, dpi=120)


def valley(losses: Sequence[float]) -> int:
    """Return the middle of the longest stretch in which the losses fall."""
    falls = np.concatenate([[0], np.diff(losses) < 0, [0]]).astype(int)
    edges = np.flatnonzero(np.diff(falls))
    if not len(edges):  # they never fall
        return 0
    starts, ends = edges[::2], edges[1::2]
    longest = np.argmax(ends - starts)
    return int(starts[longest] + ends[longest]) // 2


def steepest(rates: Sequence[float], losses: Sequence[float]) -> int:
    """Return where the losses fall fastest against the logarithm of the rate."""
    return int(np.argmin(np.gradient(losses, np.log(rates)))) if len(rates) > 1 else 0
