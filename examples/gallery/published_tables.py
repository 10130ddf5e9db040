"""17. The tables of Yadan et al. and Dean et al., from the planner.

The lecture: AlexNet takes 10.5 days on one GPU, 6.6 on two with model parallelism, 7 with data
parallelism, 7.2 on four with data parallelism, and 4.8 on four with both. With CPU machines the
speed-up cannot keep increasing: communication comes to dominate, and all wait for the slowest.

Seen: the same numbers from what `kerasopt.strategies.plan` predicts with: sizes of the models,
speeds of devices and links of that time, and two constants that are fitted for each paper: the
share of the peak speed that is reached and an overhead, and the latency of a message and the
variation of times across machines. The fully connected speech model is fastest on few machines, the
locally connected image model on many. The circles are what was published.
"""

from typing import Any

from _gallery import BLUE, INK, RED, Shown, legend, panels, show
from matplotlib.axes import Axes

from kerasopt.strategies.validate_plan import Row, dean, yadan


# page: begin
def predictions() -> tuple[list[Row], dict[str, list[Row]]]:
    """Return days of AlexNet by form of parallelism, and speed-ups by number of machines."""
    days, _ = yadan()
    speedups, _ = dean()
    assert all(abs(row.error) < 0.12 for row in days)
    assert all(abs(row.error) < 0.25 for rows in speedups.values() for row in rows)
    best = {name: max(rows, key=lambda row: row.ours) for name, rows in speedups.items()}
    assert best["speech"].name == "8 machines"  # as published
    assert best["images"].ours > 12
    return days, speedups


# page: end


CIRCLE: dict[str, Any] = {
    "color": INK,
    "markerfacecolor": "none",
    "markersize": 11,
    "markeredgewidth": 1.5,
}


def draw_days(axes: Axes, days: list[Any]) -> None:
    """Draw bars of what is predicted, with circles where it was measured."""
    places = range(len(days))[::-1]
    axes.barh(places, [row.ours for row in days], color=BLUE, height=0.6, label="planner")
    axes.plot([row.published for row in days], places, "o", label="published", **CIRCLE)
    axes.set(xlabel="days", yticks=places, yticklabels=[row.name for row in days])
    axes.grid(visible=False, axis="y")
    legend(axes, loc="lower right")


def draw_speedups(axes: Axes, speedups: dict[str, list[Row]]) -> None:
    """Draw speed-ups by the number of machines."""
    for (name, rows), colour in zip(speedups.items(), (RED, BLUE), strict=True):
        counts = [int(row.name.split()[0]) for row in rows]
        axes.semilogx(counts, [row.ours for row in rows], color=colour, marker=".", label=name)
        known = [(n, row.published) for n, row in zip(counts, rows, strict=True) if row.published]
        axes.plot(*zip(*known, strict=True), "o", **CIRCLE)
    axes.set(xlabel="machines", ylabel="times faster than one", ylim=(0, None))
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    axes.minorticks_off()
    legend(axes, loc="upper left")


def make() -> Shown:
    """Compare the planner with both papers."""
    days, speedups = predictions()
    figure, (left, right) = panels(["AlexNet, 100 epochs", "speed-up by machines"])
    draw_days(left, days)
    draw_speedups(right, speedups)
    rows: list[list[Any]] = [["", "published", "planner", "difference"]]
    named = [("days", row) for row in days]
    named += [(f"speed-up, {name}", row) for name, some in speedups.items() for row in some]
    for what, row in named:
        if row.published:
            rows.append([f"{what}: {row.name}", row.published, row.ours, f"{row.error:+.0%}"])
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
