"""One redraw of the learning curves after 500 epochs."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from livelossplot import PlotLosses
from livelossplot.outputs import MatplotlibPlot

import kerasopt
from benchmarks._race import Row, race

EPOCHS = 500


def logs(epoch: int) -> dict[str, float]:
    """Return what an epoch might log."""
    loss = 2 / (1 + epoch / 20)
    return {
        "loss": loss,
        "accuracy": 1 - loss / 3,
        "val_loss": loss + 0.1,
        "val_accuracy": 0.9 - loss / 3,
    }


def rows() -> Iterator[Row]:
    """Compare with livelossplot, both drawing two panels to a PNG file."""
    matplotlib.use("agg")
    folder = tempfile.mkdtemp()
    curve = kerasopt.callbacks.LearningCurve(Path(folder, "ours.png"), every=EPOCHS)
    curve.on_train_begin()
    path = str(Path(folder, "theirs.png"))
    live = PlotLosses(outputs=[MatplotlibPlot(figpath=path)], mode="script")
    for epoch in range(EPOCHS):
        curve.on_epoch_end(epoch, logs(epoch))
        live.update(logs(epoch))

    def redraw() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it clears the terminal
            live.send()

    yield race("`LearningCurve` redraw, 500 epochs", "livelossplot", curve.on_train_end, redraw)
