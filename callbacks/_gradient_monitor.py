"""What the gradient of each layer is like."""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from math import nan
from os import PathLike
from typing import Any

import keras
import numpy as np

from kerasopt._files import check_writable
from kerasopt._strategy import is_chief
from kerasopt._validation import check_count, check_flag, check_names
from kerasopt.callbacks._curve_figure import check_picture
from kerasopt.callbacks._gradient_diagnosis import exploded, vanished
from kerasopt.callbacks._gradient_figure import draw_norms
from kerasopt.callbacks._gradient_statistics import STATISTICS, LayerStatistics, layers_of
from kerasopt.callbacks._gradient_tap import GradientTap
from kerasopt.callbacks._summaries import Summaries

KEPT = 1000  # steps of an epoch


class GradientMonitor(keras.callbacks.Callback):
    """Logs what the gradient of each layer is like, and warns when it vanishes or explodes.

    Use it where a deep or recurrent network does not learn. Backpropagation multiplies as many
    Jacobians as there are layers, so that the gradients of lower layers become very small or very
    large. In every so many steps, for all weights of a layer together, it takes

        "norm"            ‖g‖                        logged as gradient_norm/…
        "mean"            mean of the g_i            gradient_mean/…
        "std"             their standard deviation   gradient_std/…
        "zero_fraction"   fraction of the g_i = 0    gradient_zero_fraction/…
        "update_ratio"    ‖Δw‖ / ‖w‖                 update_ratio/…

    where g is the gradient that the optimizer is given, of the whole batch under any strategy and
    before it is clipped, and Δw what the step adds to the weights. An update ratio of about 0.001
    is usual. A layer with many zeros has units that are dead. The means of an epoch are logged,
    with the path of the layer after the stroke, and not-a-number where no step was looked at.

    Once each in a training it warns that the gradient

        vanishes   the median of ‖g‖ in an epoch is < 0.001 of that of the top layer
        explodes   ‖g‖ is not finite, or > 1000 times the median of all ‖g‖ of the layer so far

    naming the layer and the step. Under `LossScaleOptimizer`, which looks for the scale that is
    just small enough, a gradient that is not finite is none to warn of.

    It works with any Keras optimizer, within the compiled step, and what it took is read when an
    epoch ends; of one with more than 1000 such steps the last 1000. The step is compiled twice: one
    that looks at the gradient and, for those between, the plain one. For `"update_ratio"` a copy of
    the weights is kept. On TensorFlow's own strategies, such as `MirroredStrategy`, the gradients
    are added up over the replicas once more, where they are looked at.

    Args:
        every: Number ≥ 1 of steps between two that are looked at. Defaults to 50.
        statistics: What to take, of the names above. Defaults to all.
        histograms: Whether to take histograms of log10 |g_i| as well: `histograms[layer]` has the
            numbers of elements in half decades from 1e-12 to 1e4. Defaults to False.
        path: File to draw the norms to, layers against steps, after each epoch; its suffix,
            `.png`, `.svg` or `.pdf`, names the format. Defaults to None: no picture.
        log_dir: Folder for TensorBoard, to which all that was taken is written, or None. It needs
            TensorFlow on any backend. Defaults to None. Of `kerasopt.strategies.MultiWorker` the
            chief writes both.

    Attributes:
        history: What was taken, as lists of equal length by the names of the logs, and `"step"`,
            counted from 1 by the optimizer, which may have gone back to one, and with
            `gradient_accumulation_steps` takes one in so many batches.
        histograms: One list of counts a step by layer, if asked for.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `every` is less than 1, a name is unknown, a picture has no `"norm"` or an
            unknown suffix; in `fit`, on JAX: `keras.distribution` is in use.
        OSError: When training begins: the file cannot be written.

    Reference:
        Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
        networks, 2010; Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural
        networks, 2013; X. Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="top")])
        >>> model.compile("sgd", "mse")
        >>> monitor = kerasopt.callbacks.GradientMonitor(every=2, statistics=["norm"])
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> _ = model.fit(x, y, batch_size=16, verbose=0, callbacks=[monitor])
        >>> monitor.history["step"], len(monitor.history["gradient_norm/top"])
        ([1, 3], 2)
    """

    def __init__(
        self,
        every: int = 50,
        statistics: Sequence[str] = tuple(STATISTICS),
        histograms: bool = False,
        path: str | PathLike[str] | None = None,
        log_dir: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.every = check_count("every", every)
        self.statistics = check_names("statistics", statistics) or []
        if unknown := [name for name in self.statistics if name not in STATISTICS]:
            raise ValueError(
                f"`statistics` must be of {[*STATISTICS]}; {unknown} are not. "
                f"Received: statistics={statistics!r}"
            )
        self._takes_histograms = check_flag("histograms", histograms)
        self.path = None if path is None else check_picture(path)
        if self.path and "norm" not in self.statistics:
            raise ValueError(
                "`statistics` must have 'norm' where `path` asks for its picture. Received: "
                f"statistics={statistics!r}"
            )
        self.log_dir = log_dir
        self._tap: GradientTap | None = None
        self._steps: list[int]  # that are looked at in this epoch
        self._rows: list[list[float]]
        self.set_state(
            {"history": {"step": []}, "histograms": {}, "warned": [], "steps": [], "rows": []}
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look at the gradients from now on."""
        self.on_train_end()  # where the training before was broken off
        self._writes = is_chief(self.model)
        if self.path and self._writes:
            check_writable("path", self.path)
        self._summaries = Summaries(self.log_dir) if self.log_dir and self._writes else None
        self._warned: list[str] = []
        self._steps, self._rows = [], []
        self._layers = layers_of(self.model)
        self._figures = LayerStatistics(self._layers, self.statistics, self._takes_histograms)
        shape = KEPT, len(self._layers) * self._figures.width
        self._tap = GradientTap(
            self.model, self._figures, shape, self.every, self._figures.needs_before
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Take what the epoch has left; log, draw and warn."""
        self._read()
        steps, values = np.array(self._steps, "int64"), np.array(self._rows, "float32")
        self._steps, self._rows = [], []
        figures = values.reshape(len(steps), len(self._layers), self._figures.width)
        taken = self._named(figures)
        logs.update({name: float(np.mean(v)) if v.size else nan for name, v in taken.items()})
        if not len(steps):
            return
        for name, series in {"step": steps, **taken}.items():
            self.history.setdefault(name, []).extend(series.tolist())
        self._take_histograms(steps, figures[:, :, len(self.statistics) :], taken)
        if "norm" in self.statistics:
            self._look_at_norms(steps)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the step be as it was."""
        if self._tap is not None:
            self._tap.close()
            self._tap = None

    def get_state(self) -> dict[str, Any]:
        """Return what has been taken, in the middle of an epoch too, as a dict for JSON."""
        self._read()
        taken = {"history": self.history, "histograms": self.histograms, "warned": self._warned}
        return deepcopy({**taken, "steps": self._steps, "rows": self._rows})

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.history: dict[str, list[float]] = deepcopy(state["history"])
        self.histograms: dict[str, list[list[float]]] = deepcopy(state["histograms"])
        self._warned = list(state["warned"])
        self._steps, self._rows = list(state["steps"]), list(state["rows"])

    def _read(self) -> None:
        """Take from the device what is there."""
        if self._tap is not None:
            steps, rows = self._tap.read()
            self._steps = [*self._steps, *steps.tolist()][-KEPT:]
            self._rows = [*self._rows, *rows.tolist()][-KEPT:]

    def _named(self, figures: np.ndarray) -> dict[str, np.ndarray]:
        return {
            f"{STATISTICS[name]}/{layer}": figures[:, row, column]
            for column, name in enumerate(self.statistics)
            for row, layer in enumerate(self._layers)
        }

    def _take_histograms(
        self, steps: np.ndarray, counts: np.ndarray, taken: dict[str, np.ndarray]
    ) -> None:
        """Keep the histograms, and write all of these steps for TensorBoard."""
        layers = self._layers if self._takes_histograms else ()
        for row, layer in enumerate(layers):
            self.histograms.setdefault(layer, []).extend(counts[:, row].tolist())
        if self._summaries:
            for place, step in enumerate(steps):
                scalars = {name: series[place] for name, series in taken.items()}
                shown = {
                    f"gradient/{layer}": counts[place, row] for row, layer in enumerate(layers)
                }
                self._summaries.write(int(step), scalars, shown)
            self._summaries.flush()

    def _look_at_norms(self, steps: np.ndarray) -> None:
        """Draw all norms, and warn of those of these steps."""
        layers = [*self._layers]
        norms = np.array([self.history[f"gradient_norm/{layer}"] for layer in layers]).T
        if self.path and self._writes:
            draw_norms(self.path, layers, np.array(self.history["step"]), norms)
        earlier, new = np.split(norms, [-len(steps)])
        scaled = isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)
        self._warn("vanishes", vanished(layers, steps, new))
        self._warn("explodes", exploded(layers, steps, new, earlier, scaled))

    def _warn(self, what: str, text: str | None) -> None:
        if text and what not in self._warned:
            self._warned.append(what)
            warnings.warn(text, stacklevel=2)
