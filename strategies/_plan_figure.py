"""The picture of a plan."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasopt._files import check_writable, replacing
from kerasopt.callbacks._curve_figure import COLOURS, INK


def draw_plan(path: Path, plan: Any, forms: tuple[str, ...]) -> None:
    """Write two panels, the speed-up and the share of communication, by the number of devices."""
    check_writable("path", path)
    figure = Figure(figsize=(10, 4), layout="constrained")
    speed, share = figure.subplots(1, 2)
    most = plan.predictions[-1].devices
    speed.plot([1, most], [1, most], color=INK, linewidth=0.8, linestyle=":", label="ideal")
    for form, colour in zip(forms, COLOURS, strict=False):
        best = [each for n in range(2, most + 1) if (each := plan.best(form, n)) is not None]
        counts = [1, *(each.devices for each in best)]
        style = {"color": colour, "marker": "o", "markersize": 3, "label": form}
        if best:
            speed.plot(counts, [1, *map(plan.speedup, best)], **style)
            share.plot(counts, [0, *(100 * each.communication_share for each in best)], **style)
    chosen = plan.recommended
    speed.plot(
        [chosen.devices],
        [plan.speedup(chosen)],
        **{"marker": "o", "markersize": 12, "markerfacecolor": "none", "linestyle": ""},
        **{"color": INK, "label": "recommended"},
    )
    for axes, title in ((speed, "speed-up"), (share, "communication, % of the step")):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("devices")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    speed.legend(frameon=False, fontsize=9)
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
