"""What the scripts of the gallery share.

A script shows one claim of the lecture. It is `examples/gallery/<name>.py`, and has

-   a docstring in three parts: the number and the title; `The lecture:`, the claim; `Seen:`, what
    the picture shows, and where the claim does not hold as stated, that it does not. The page takes
    it from there; what was measured stands in the table, never in the docstring;
-   between `# page: begin` and `# page: end` the about ten lines that do it, for the page;
-   a function, most often called `make`, that asserts the claim and returns what is `Shown`: the
    figure, and a table whose first row is its head;
-   at its end `if __name__ == "__main__": show(make)`.

    python examples/gallery/rates.py     # draws runs/gallery/rates.png and prints the table
    make gallery                         # runs all, and writes docs/gallery.md and docs/gallery/

Seeds are fixed. A bound in an assertion is far from what was measured, and would be missed if the
claim were wrong. A script takes seconds, at most 40 on two cores, and needs no network.
"""

import argparse
import contextlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's palette, which colour-blind people can tell apart; its yellow is too light.
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
INK = "#555555"


class Shown(NamedTuple):
    """A picture, and the rows of the table beside it, of which the first is the head."""

    figure: Figure
    rows: Sequence[Sequence[Any]]


def panels(*rows: Sequence[str], height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """Return a figure of ten inches with a panel for each title; one may stand in several rows."""
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplot_mosaic([[*row] for row in rows])
    for title, each in axes.items():
        each.set_title(title, loc="left", fontsize=11, fontweight="bold")
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25, linewidth=0.6)
    return figure, [*axes.values()]


def legend(axes: Axes, **place: Any) -> None:
    """Say what the lines are, without a frame."""
    axes.legend(frameon=False, fontsize=9, **place)


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return 1,437 handwritten digits, 64 pixels in 0-1, with their classes, and 360 to test on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32")
    x, test_x, y, test_y = train_test_split(
        pixels, classes, test_size=360, stratify=classes, random_state=0
    )
    return (x, y), (test_x, test_y)


def shuffled(x: np.ndarray, y: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Return the samples in another order in each epoch.

    With arrays, and a seed set, `fit` on TensorFlow takes them in one order in all epochs, and then
    training does not fluctuate as it would.
    """
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(batch_size)


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as Markdown."""
    cells = [[*map(_cell, row)] for row in rows]
    ruler = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ruler, *cells[1:]])


def _cell(value: Any) -> str:
    """Return numbers that are not whole to three digits, all else as it is."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def save(figure: Figure, path: Path) -> None:
    """Write a picture of few colours, which is small."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(path, optimize=True)


def show(make: Callable[[], Shown]) -> None:
    """Draw what a script shows into a folder, and print its table."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/gallery"), help="folder (runs/gallery)")
    folder = parser.parse_args().output
    with contextlib.redirect_stdout(sys.stderr):  # what else is printed
        shown = make()
    save(shown.figure, folder / f"{Path(inspect.getfile(make)).stem}.png")
    print(table(shown.rows))
