"""Training and validation curves."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, nan
from os import PathLike
from typing import Any

import keras

from kerasopt._acting import ActingCallback, Event, callbacks_of_fit
from kerasopt._diagnosis import LEAST, Diagnosis, diagnose
from kerasopt._files import check_writable
from kerasopt._histories import History, finite, read_history
from kerasopt._strategy import is_chief
from kerasopt._validation import check_choice, check_count, check_flag, check_names
from kerasopt.callbacks._checks import not_logged
from kerasopt.callbacks._curve_figure import (
    BATCHES,
    INK,
    RATE,
    TRAINING,
    Curve,
    CurveFigure,
    Styles,
    check_look,
    check_picture,
)
from kerasopt.callbacks._every import steps_done
from kerasopt.callbacks._notebook import notebook_view
from kerasopt.callbacks._throughput_monitor import FIGURES

# Parts of metric names that say which way is better, for `mode="auto"`.
FALLS = ("loss", "error", "crossentropy", "hinge", "divergence", "poisson", "false")
RISES = ("acc", "auc", "precision", "recall", "score", "iou", "io_u", "similarity", "true")


class LearningCurve(keras.callbacks.Callback):
    """Draws the training and validation curves while `fit` runs, and says what they show.

    For every metric there is one panel, of the average error per pattern (the loss, (1/n) Σ_p J_p)
    and of the compiled metrics against the epoch, with the best epoch marked, and what callbacks of
    kerasopt did: the rate changed, the batch grew, weights were restored. Once the learning rate
    changes it has a panel, too. The file is replaced whole after each epoch, so that it can be
    looked at any time and survives an interruption; in a notebook the cell shows it as well.

    When training ends after five epochs or more, `diagnosis` is printed, unless `fit` has
    `verbose=0`: whether the curves show underfitting, overfitting, a wrong rate and so on, by which
    figures, and what to try.

    A second `fit` with the same object goes on with the same curve. Under
    `kerasopt.strategies.MultiWorker` the chief draws and prints.

    Args:
        path: File to draw to; its suffix, `.png`, `.svg` or `.pdf`, names the format. Missing
            folders are made. Defaults to `"curves.png"`.
        metrics: Names of the metrics to show, without `val_`, such as `["loss", "accuracy"]`, or
            None for all but those of single layers. Defaults to None.
        every: Number of epochs between two drawings, ≥ 1; set it to the `validation_freq` of `fit`
            where that is more than 1. Defaults to 1.
        smooth: Share of the values before in a moving average, in [0, 1); the values themselves are
            drawn faint behind it. Defaults to 0, which draws the values.
        log_y: Whether the error has a logarithmic axis; `"auto"`: where it falls by a factor of 30.
        show_learning_rate: Whether to take in the learning rate and draw it once it has changed.
        mark_best: Whether to mark the best epoch.
        history: Curves to go on with, of a training before: what `fit` returned, a dictionary of
            lists, or the path of a CSV file. Defaults to None.
        title: Title of the picture, or None. Defaults to None.
        monitor: Name of the logged value whose best epoch is marked. `"loss"` draws training curves
            without validation. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`: which values of `monitor` are best; `"auto"` takes it from the
            name. Defaults to `"auto"`.
        every_batches: Number of batches, ≥ 1, after which the error of these batches is taken in
            and drawn, beside that of the epochs; None for epochs alone. Defaults to None.
        verbose: Whether to print the diagnosis when training ends, if `fit` prints anything.
            Defaults to True.

    Attributes:
        epochs: The numbers of the epochs seen, from 1.
        history: The values logged in these epochs, by name; not-a-number where none was logged.
        best: Position in `epochs` of the best epoch, or None.
        events: What callbacks did: pairs of an epoch and a few words.
        start: The error of the first batch, before any update, for `diagnosis`; None where it is
            not above 0 or not seen, as with `history` or `steps_per_execution > 1`.

    Raises:
        TypeError: A number is not of its type.
        ValueError: The suffix is unknown, a number is outside its range, `mode` is unknown or does
            not follow from the name; at the first drawing: `monitor` or one of `metrics` is not
            logged.
        OSError: When training begins: the file cannot be written.

    Reference:
        Duda, Hart and Stork, Pattern Classification, 2nd edition, 2000, section 6.3.3.

    Example:
        >>> import keras, kerasopt, numpy as np, pathlib, tempfile
        >>> x, y = np.ones((8, 2)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> path = pathlib.Path(tempfile.mkdtemp(), "curves.png")
        >>> curve = kerasopt.callbacks.LearningCurve(path, verbose=False)
        >>> _ = model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=[curve])
        >>> path.exists(), curve.epochs
        (True, [1, 2, 3])
    """

    def __init__(
        self,
        path: str | PathLike[str] = "curves.png",
        metrics: Sequence[str] | None = None,
        every: int = 1,
        smooth: float = 0.0,
        log_y: bool | str = "auto",
        show_learning_rate: bool = True,
        mark_best: bool = True,
        history: History | None = None,
        title: str | None = None,
        monitor: str = "val_loss",
        mode: str = "auto",
        every_batches: int | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        self.path = check_picture(path)
        self.metrics = check_names("metrics", metrics)
        self.every = check_count("every", every)
        self.look = check_look(smooth, log_y, mark_best)
        self.show_learning_rate = check_flag("show_learning_rate", show_learning_rate)
        self.title, self.monitor = title, monitor
        self.mode = check_choice("mode", mode, ("auto", "min", "max"))
        counts = every_batches is not None
        self.every_batches = check_count("every_batches", every_batches) if counts else None
        self.verbose = check_flag("verbose", verbose)
        self._largest_is_best = _largest_is_best(monitor, mode)
        self._figure: CurveFigure | None = None
        self._view: Any = None
        self._epochs_before: int | None = None
        epochs, values = ([], {}) if history is None else read_history("history", history)
        self.batches: list[tuple[int, int, int, float]]
        self.start: float | None
        self._acting: list[tuple[ActingCallback, int]] = []
        state: dict[str, Any] = {"epochs": epochs, "history": values, "batches": [], "events": []}
        self.set_state({**state, "start": None, "within": (0, 0, 0.0)})

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Check that the file can be written."""
        if is_chief(self.model):
            check_writable("path", self.path)
        self._epochs_before = None
        acting = [each for each in callbacks_of_fit() if isinstance(each, ActingCallback)]
        self._acting = [(each, len(each.events)) for each in acting]
        self._view = notebook_view()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begin to count the batches."""
        if self._epochs_before is None:
            done = self.epochs[-1] if self.epochs else 0
            self._epochs_before = max(0, done - epoch)  # 0 where `initial_epoch` counts on
        self._number = self._epochs_before + epoch + 1
        self._done, self._count, self._sum = 0, 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Take in the error of the first batch, and of every so many.

        Keras logs the mean error of all since the epoch began.
        """
        steps = self.params["steps"]
        self._done = count = steps_done(batch, steps)
        if self._number == count == 1 and self.start is None:
            error = float((logs or {}).get("loss", nan))
            self.start = error if 0 < error < inf else None
        if self.every_batches is None or count - self._count < self.every_batches:
            return
        total = count * float((logs or {})["loss"])
        value = (total - self._sum) / (count - self._count)
        self.batches.append((self._number, count, int(steps or 0), value))
        self._count, self._sum = count, total
        if steps and self.epochs:
            self._draw()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take in what the epoch logged; draw every so many epochs."""
        logs = dict(logs or {})
        if self.show_learning_rate and (rate := self._learning_rate()) is not None:
            logs.setdefault(RATE, rate)
        self._append(self._number, logs)
        self.batches = [(*e[:2], e[2] or self._done, e[3]) for e in self.batches]
        if (epoch + 1) % self.every == 0:
            self._draw()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Draw what came after the last drawing; say what the curves show."""
        if self.epochs:
            self.draw()
            prints = self.verbose and self.params["verbose"] != 0 and is_chief(self.model)
            if prints and len(self.epochs) >= LEAST:
                print(self.diagnosis())

    def draw(self) -> None:
        """Draw to the file all that has been seen."""
        self._draw(exact=True)

    @property
    def best(self) -> int | None:
        """Position in `epochs` of the best value of `monitor`, or None if there is none."""
        values = self.history.get(self.monitor, [])
        finite = [position for position, value in enumerate(values) if isfinite(value)]
        choose = max if self._largest_is_best else min
        return choose(finite, key=values.__getitem__, default=None)

    def diagnosis(self) -> Diagnosis:
        """Return what the curves show: see `kerasopt.diagnose`."""
        return diagnose({"epoch": [epoch - 1 for epoch in self.epochs], **self.history}, self.start)

    def get_state(self) -> dict[str, Any]:
        """Return what has been seen, in an epoch that goes on too, as a dict that JSON can hold."""
        self._take_events()
        return {
            "epochs": list(self.epochs),
            "history": {name: list(values) for name, values in self.history.items()},
            "batches": list(self.batches),
            "events": list(self.events),
            "start": self.start,
            "within": (self._done, self._count, self._sum),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.epochs: list[int] = list(state["epochs"])
        self.history: dict[str, list[float]] = {
            name: list(values) for name, values in state["history"].items()
        }
        # The epoch, its batches so far and all of them, 0 where that is not known yet; the error.
        self.batches = [tuple(each) for each in state["batches"]]
        self.events = [Event(*each) for each in state["events"]]
        self.start = state["start"]
        self._done, self._count, self._sum = state["within"]

    def _append(self, epoch: int, logs: Mapping[str, float]) -> None:
        for name in logs:
            self.history.setdefault(name, [nan] * len(self.epochs))
        for name, values in self.history.items():
            values.append(float(logs.get(name, nan)))
        self.epochs.append(epoch)

    def _learning_rate(self) -> float | None:
        rate = getattr(getattr(self.model, "optimizer", None), "learning_rate", None)
        return None if rate is None else float(keras.ops.convert_to_numpy(rate))

    def _draw(self, exact: bool = False) -> None:
        if not is_chief(self.model):
            return
        self._take_events()
        panels = self._panels()
        if self._figure is None or list(self._figure.panels) != list(panels):
            self._figure = CurveFigure(panels, self.title, self.look)
        curves = {metric: self._curves(metric, panels[metric]) for metric in panels}
        best = self.best
        self._figure.draw(curves, None if best is None else self.epochs[best], self.events, exact)
        self._figure.save(self.path)
        if self._view is not None:
            self._view(self._figure.pixels())

    def _take_events(self) -> None:
        """Take in what callbacks have done since the last time, at the epochs of this curve."""
        for place, (callback, seen) in enumerate(self._acting):
            for epoch, text in callback.events[seen:]:
                self.events.append(Event((self._epochs_before or 0) + epoch, text))
            self._acting[place] = callback, len(callback.events)

    def _curves(self, metric: str, styles: Styles) -> dict[str, Curve]:
        """Return the epochs and values of the lines of a panel."""
        lines = {"training": metric, "validation": f"val_{metric}", "rate": metric}
        curves = {
            label: finite(self.epochs, self.history[lines[label]])
            for label in styles
            if label in lines
        }
        if "batches" in styles:
            places = [number - 1 + n / (steps or nan) for number, n, steps, _ in self.batches]
            curves = {"batches": finite(places, [value for *_, value in self.batches]), **curves}
        return curves

    def _panels(self) -> dict[str, Styles]:
        """Return the metrics to show and their lines, once it is known what `fit` logs."""
        logged = sorted(self.history)
        if self.monitor not in self.history:
            way_out = (
                ", and set `every` to `validation_freq`; for training curves alone use "
                "`monitor='loss'`"
            )
            raise not_logged(self.monitor, logged, way_out)
        there = [name for name in logged if not name.startswith("val_")]
        if missing := [name for name in self.metrics or () if name not in there]:
            raise ValueError(
                f"`metrics` must be logged by `fit`; {missing} are not. Received: "
                f"metrics={self.metrics!r}, logged: {logged}"
            )
        # Names with a stroke are those of layers, of which there are many.
        shown = (name for name in there if name not in (RATE, *FIGURES) and "/" not in name)
        metrics = self.metrics or sorted(shown, key=lambda name: name != "loss")  # loss first
        panels = {name: self._lines(name) for name in metrics}
        if len(set(self.history.get(RATE, ()))) > 1 and self.show_learning_rate:
            panels[RATE] = {"rate": {"color": INK}}
        return panels

    def _lines(self, metric: str) -> Styles:
        known = {"training": metric, "validation": f"val_{metric}"}
        lines = {label: TRAINING[label] for label, name in known.items() if name in self.history}
        return {**BATCHES, **lines} if metric == "loss" and self.batches else lines


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
