"""Curves of trainings that have ended."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from kerasopt._files import check_writable
from kerasopt._histories import History, finite, read_history
from kerasopt._validation import check_names
from kerasopt.callbacks._curve_figure import COLOURS, CurveFigure, check_look, check_picture
from kerasopt.callbacks._learning_curve import LearningCurve


def plot_history(history: History, path: str | PathLike[str] = "curves.png", **look: Any) -> None:
    """Draw the curves of a training that has ended.

    Args:
        history: What `fit` returned, a dictionary of lists, or the path of a CSV file that
            `keras.callbacks.CSVLogger` wrote.
        path: File to draw to, as in `LearningCurve`.
        **look: `metrics`, `smooth`, `log_y`, `show_learning_rate`, `mark_best`, `title`, `monitor`
            and `mode`, as in `LearningCurve`. `monitor` defaults to `"val_loss"`, or to `"loss"`
            where there was no validation.

    Raises:
        TypeError: `history` is nothing of these.
        ValueError: As `LearningCurve`.
        OSError: The file cannot be read, or written.

    Reference:
        Duda, Hart and Stork, Pattern Classification, 2nd edition, 2000, section 6.3.3.

    Example:
        >>> import kerasopt, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "curves.png")
        >>> kerasopt.callbacks.plot_history({"loss": [2.0, 1.0], "val_loss": [2.1, 1.3]}, path)
        >>> path.exists()
        True
    """
    _, values = read_history("history", history)
    look.setdefault("monitor", "val_loss" if "val_loss" in values else "loss")
    curve = LearningCurve(path, history=history, **look)
    check_writable("path", curve.path)
    curve.draw()


def compare(
    histories: Mapping[str, History],
    path: str | PathLike[str] = "comparison.png",
    metrics: Sequence[str] | None = None,
    smooth: float = 0.0,
    log_y: bool | str = "auto",
    title: str | None = None,
) -> None:
    """Draw the curves of several trainings in one picture: one colour each, training dashed.

    Args:
        histories: What `fit` returned, a dictionary of lists or the path of a CSV file, by the name
            of the training; at most seven.
        path: File to draw to, as in `LearningCurve`. Defaults to `"comparison.png"`.
        metrics: Names of the metrics to show, without `val_`; None for all that all have.
        smooth: As in `LearningCurve`.
        log_y: As in `LearningCurve`.
        title: Title of the picture, or None.

    Raises:
        TypeError: One of `histories` is nothing of these.
        ValueError: There are none, or more than colours; or they have none of `metrics`.
        OSError: A file cannot be read, or written.

    Reference:
        Colours: Okabe and Ito, Color universal design, 2008.

    Example:
        >>> import kerasopt, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "comparison.png")
        >>> runs = {"SGD": {"loss": [2.0, 1.5]}, "Adam": {"loss": [2.0, 1.0]}}
        >>> kerasopt.callbacks.compare(runs, path)
        >>> path.exists()
        True
    """
    if not 0 < len(histories) <= len(COLOURS):
        raise ValueError(
            f"`histories` must be 1 to {len(COLOURS)} trainings, by name: there is no colour for "
            f"more. Received: {list(histories)}"
        )
    file = check_picture(path)
    look = check_look(smooth, log_y, False)
    runs = {name: read_history("histories", each) for name, each in histories.items()}
    common = set.intersection(*({*values} for _, values in runs.values()))
    shown = check_names("metrics", metrics) or sorted(
        (name for name in common if not name.startswith("val_")), key=lambda name: name != "loss"
    )
    if not shown or not common.issuperset(shown):
        raise ValueError(
            "`metrics` must be in all of the histories. "
            f"Received: metrics={metrics!r}, in all: {sorted(common)}"
        )
    panels: dict[str, Any] = {metric: {} for metric in shown}
    curves: dict[str, Any] = {metric: {} for metric in shown}
    for colour, (name, (epochs, values)) in zip(COLOURS, runs.items(), strict=False):
        for metric in shown:
            lines = {name: metric}
            if f"val_{metric}" in values:
                lines = {f"{name}, training": metric, name: f"val_{metric}"}
            for label, key in lines.items():
                dashes = "-" if label == name else "--"
                panels[metric][label] = {"color": colour, "linestyle": dashes}
                curves[metric][label] = finite(epochs, values[key])
    check_writable("path", file)
    figure = CurveFigure(panels, title, look)
    figure.draw(curves, exact=True)
    figure.save(file)
