"""Training and validation curves."""

from collections.abc import Sequence
from math import isfinite, nan
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from kerasopt._files import check_writable
from kerasopt._validation import check_choice, check_count, check_names
from kerasopt.callbacks._curve_figure import FORMATS, CurveFigure
from kerasopt.callbacks._throughput_monitor import FIGURES

# Parts of metric names that say which way is better, for `mode="auto"`.
FALLS = ("loss", "error", "crossentropy", "hinge", "divergence", "poisson", "false")
RISES = ("acc", "auc", "precision", "recall", "score", "iou", "io_u", "similarity", "true")


class LearningCurve(keras.callbacks.Callback):
    """Draws the training and validation curves while `fit` runs.

    The curves show how training goes: a training error that stays high is underfitting, a
    validation error that turns up is overfitting, an oscillating one has too high a learning rate.
    For every metric there is one panel, of the average error per pattern (the loss, (1/n) Σ_p J_p)
    and of the compiled metrics against the epoch, with the best epoch marked. The file is replaced
    whole after each epoch, so that it can be looked at any time and survives an interruption.

    A second `fit` with the same object goes on with the same curve.

    Args:
        path: File to draw to; its suffix, `.png`, `.svg` or `.pdf`, names the format. Missing
            folders are made. Defaults to `"curves.png"`.
        metrics: Names of the metrics to show, without `val_`, such as `["loss", "accuracy"]`, or
            None for all. Defaults to None.
        every: Number of epochs between two drawings, ≥ 1; set it to the `validation_freq` of `fit`
            where that is more than 1. Defaults to 1.
        monitor: Name of the logged value whose best epoch is marked. `"loss"` draws training curves
            without validation. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`: which values of `monitor` are best; `"auto"` takes it from the
            name. Defaults to `"auto"`.
        title: Title of the picture, or None. Defaults to None.

    Attributes:
        epochs: The numbers of the epochs seen, from 1.
        history: The values logged in these epochs, by name; not-a-number where none was logged.
        best: Position in `epochs` of the best epoch, or None.

    Raises:
        TypeError: `every` is not an integer.
        ValueError: The suffix is unknown, `every` is less than 1, `mode` is unknown or does not
            follow from the name; at the first drawing: `monitor` or one of `metrics` is not logged.
        OSError: When training begins: the file cannot be written.

    Reference:
        Duda, Hart and Stork, Pattern Classification, 2nd edition, 2000, section 6.3.3.

    Example:
        >>> import keras, kerasopt, numpy as np, pathlib, tempfile
        >>> x, y = np.ones((8, 2)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> path = pathlib.Path(tempfile.mkdtemp(), "curves.png")
        >>> curve = kerasopt.callbacks.LearningCurve(path)
        >>> _ = model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=[curve])
        >>> path.exists(), curve.epochs
        (True, [1, 2, 3])
    """

    def __init__(
        self,
        path: str | PathLike[str] = "curves.png",
        metrics: Sequence[str] | None = None,
        every: int = 1,
        monitor: str = "val_loss",
        mode: str = "auto",
        title: str | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"`path` must end in one of {FORMATS}. Received: path={str(path)!r}")
        self.metrics = check_names("metrics", metrics)
        self.every = check_count("every", every)
        self.monitor = monitor
        self.mode = check_choice("mode", mode, ("auto", "min", "max"))
        self.title = title
        self._largest_is_best = _largest_is_best(monitor, mode)
        self._figure: CurveFigure | None = None
        self.set_state({"epochs": [], "history": {}})

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Check that the file can be written."""
        check_writable("path", self.path)
        self._epochs_before: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take in what the epoch logged; draw every so many epochs."""
        if self._epochs_before is None:
            done = self.epochs[-1] if self.epochs else 0
            self._epochs_before = max(0, done - epoch)  # 0 where `initial_epoch` counts on
        self._append(self._epochs_before + epoch + 1, logs or {})
        if (epoch + 1) % self.every == 0:
            self._draw()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Draw what came after the last drawing."""
        if self.epochs:
            self._draw()

    @property
    def best(self) -> int | None:
        """Position in `epochs` of the best value of `monitor`, or None if there is none."""
        values = self.history.get(self.monitor, [])
        finite = [position for position, value in enumerate(values) if isfinite(value)]
        choose = max if self._largest_is_best else min
        return choose(finite, key=values.__getitem__, default=None)

    def get_state(self) -> dict[str, Any]:
        """Return what has been seen, as a dict that JSON can hold."""
        history = {name: list(values) for name, values in self.history.items()}
        return {"epochs": list(self.epochs), "history": history}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.epochs: list[int] = list(state["epochs"])
        self.history: dict[str, list[float]] = {
            name: list(values) for name, values in state["history"].items()
        }

    def _append(self, epoch: int, logs: dict[str, float]) -> None:
        for name in logs:
            self.history.setdefault(name, [nan] * len(self.epochs))
        for name, values in self.history.items():
            values.append(float(logs.get(name, nan)))
        self.epochs.append(epoch)

    def _draw(self) -> None:
        if self._figure is None:
            self._figure = CurveFigure(self._panels(), self.title)
        self._figure.draw(self.epochs, self.history, self.best)
        self._figure.save(self.path)

    def _panels(self) -> list[str]:
        """Return the metrics to show, once it is known what `fit` logs."""
        logged = sorted(self.history)
        if self.monitor not in self.history:
            raise ValueError(
                f"`monitor` must be a value that `fit` logs. Received: monitor={self.monitor!r}, "
                f"logged: {logged}. For a value of the validation set pass `validation_data` or "
                "`validation_split` to `fit`, and set `every` to `validation_freq`; for training "
                "curves alone use `monitor='loss'`."
            )
        there = [name for name in logged if not name.startswith("val_")]
        if missing := [name for name in self.metrics or () if name not in there]:
            raise ValueError(
                f"`metrics` must be logged by `fit`; {missing} are not. Received: "
                f"metrics={self.metrics!r}, logged: {logged}"
            )
        shown = (name for name in there if name not in ("learning_rate", *FIGURES))
        return list(self.metrics or sorted(shown, key=lambda name: name != "loss"))  # loss first


def _largest_is_best(monitor: str, mode: str) -> bool:
    if mode != "auto":
        return mode == "max"
    falls = any(part in monitor for part in FALLS)
    if not falls and not any(part in monitor for part in RISES):
        raise ValueError(
            "`mode` must be 'min' or 'max' where the name of `monitor` does not tell which is "
            f"better. Received: mode='auto', monitor={monitor!r}"
        )
    return not falls
