"""A learning rate that falls when the weights oscillate and rises when they do not."""

import sys
from math import inf, isfinite
from typing import Any

import numpy as np
from keras import ops

from kerasopt._acting import ActingCallback, check_one_rate_driver
from kerasopt._rate_factor import LayerRates, LearningRate
from kerasopt._validation import check_choice, check_count, check_flag, check_number, check_range
from kerasopt.callbacks._checks import check_built, logged
from kerasopt.callbacks._direction import all_finite, cosines
from kerasopt.callbacks._every import Every, position
from kerasopt.callbacks._pace import Pace
from kerasopt.callbacks._snapshot import Snapshot, training_state

HOPELESS = 4.0  # times the loss of the first batch
NEW: dict[str, Any] = {
    "rates": None,
    "paces": None,
    "good": None,
    "begin": None,
    "update": None,
    "loss": None,
    "refused": inf,
    "waits": True,
    "every": [0, 0, 0],
}


class AdaptiveLearningRate(ActingCallback):
    """Lowers the learning rate when the weights oscillate and raises it when their way is steady.

    Use it where the right rate is not known: started a hundred times too low or ten times too high
    it finds its way. After each epoch the rate of any optimizer, a number or a schedule, is scaled:

        c = Δwᵀ Δw' / (‖Δw‖ ‖Δw'‖)                     Δw the way in this epoch, Δw' in the last one
        η ← up^p η     if c > high,                     p = 1, 2, … ≤ acceleration
        η ← down^p η   if c < low                       (low, high) = cosines, p ≤ 3

    p counts raises, or falls, in a row; after falls the raises have p = 1 until they make up for a
    factor of `down`. When the loss is not finite, or more than `tolerance` above the one before (at
    first above four times that of the first batch), weights and the state of the optimizer go back
    to those which had it, and the rate falls; unless that has just been done and has not helped:
    then it is not the rate. With `mode="loss"` this alone lowers the rate, and each epoch without
    it raises it: the bold driver.

    On quadratics with one step an epoch, from a hundredth of and from ten times the best constant
    rate, it takes less than twice the steps of that rate: of condition 10 and 100 by the weights,
    of condition 10 by the loss (`tests/test_adaptive_learning_rate.py`). On batches the direction
    of whole epochs is compared: within an epoch each sample comes once, which alone makes
    successive ways disagree. Plain SGD from afar may need more epochs than a short training has.
    Units of a ReLU network that a far too high rate has switched off do not come back unless the
    loss rose above four times the first one.

    On the device, and in its state, it keeps two copies of weights and optimizer, and one of the
    weights. `events` has each fall; a raise shows in the `learning_rate` that is logged. A second
    `fit` with the same object and model goes on.

    Args:
        mode: `"weights"` or `"loss"`. Defaults to `"weights"`.
        up: Factor > 1 of a raise. Defaults to 1.05.
        down: Factor in (0, 1) of a fall. Defaults to 0.7.
        acceleration: Largest power p ≥ 1 of a raise; 1 for none. Defaults to 10.
        cosines: The pair low ≤ high, in [-1, 1]. Defaults to (0.7, 0.9).
        every: Number of batches ≥ 1 from one scaling to the next, or None: an epoch. The ways
            compared are then those of so many batches, and the loss is the running mean of the
            epoch. For epochs that are few and long. Defaults to None.
        per_layer: Whether each layer has a rate of its own, by the way of its own weights. Needs
            `kerasopt.optimizers.LayerwiseLearningRate` as the optimizer. Defaults to False.
        monitor: Name of the loss that is logged. A validation loss also rises when the model
            overfits. Defaults to `"loss"`.
        tolerance: By which fraction of its value the loss may rise, ≥ 0. Defaults to 0.04.
        min_learning_rate: Least rate, ≥ 0. Defaults to 0.
        max_learning_rate: Largest rate, ≥ `min_learning_rate`. Defaults to infinity.
        verbose: 1 to print each fall. Defaults to 0.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range; when training begins: the rate is a function,
            another callback sets it, the model is not built, or `per_layer` lacks its optimizer;
            later: `monitor` is not logged.

    Reference:
        X. Wang, Optimization for Training Deep Models, lecture, 2015; Vogl, Mangis, Rigler, Zink
        and Alkon, Accelerating the convergence of the back-propagation method, 1988, and Battiti,
        Accelerated backpropagation learning: two optimization methods, 1989 (`"loss"`).

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> y = x.sum(axis=1, keepdims=True)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(1e-4), "mse")
        >>> adaptive = kerasopt.callbacks.AdaptiveLearningRate()
        >>> loss = model.fit(x, y, epochs=60, verbose=0, callbacks=[adaptive]).history["loss"]
        >>> loss[-1] < 1e-3 * loss[0]
        True
    """

    drives_learning_rate = True

    def __init__(
        self,
        mode: str = "weights",
        up: float = 1.05,
        down: float = 0.7,
        acceleration: int = 10,
        cosines: tuple[float, float] = (0.7, 0.9),
        every: int | None = None,
        per_layer: bool = False,
        monitor: str = "loss",
        tolerance: float = 0.04,
        min_learning_rate: float = 0.0,
        max_learning_rate: float = inf,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.mode = check_choice("mode", mode, ("weights", "loss"))
        self.up = check_number("up", up, "(1, inf)")
        self.down = check_number("down", down, "(0, 1)")
        self.acceleration = check_count("acceleration", acceleration)
        self.cosines = check_range("cosines", cosines, "[-1, 1]")
        self.every = every
        self._every = None if every is None else Every("every", every)
        self.per_layer = check_flag("per_layer", per_layer)
        if mode == "loss" and per_layer:
            raise ValueError(
                "`mode` must be 'weights' where `per_layer` is True: all layers have one loss. "
                f"Received: mode={mode!r}, per_layer=True"
            )
        self.monitor = monitor
        self.tolerance = check_number("tolerance", tolerance, "[0, inf)")
        self.min_learning_rate = check_number("min_learning_rate", min_learning_rate, "[0, inf)")
        above = f"[{self.min_learning_rate}, inf]"
        self.max_learning_rate = check_number("max_learning_rate", max_learning_rate, above)
        self.verbose = check_count("verbose", verbose, least=0)
        self._rate: LearningRate | LayerRates
        self._trained: Any = None  # the model whose training is gone on with
        self._state: dict[str, Any] | None = NEW  # to be taken up where training goes on
        self._loss: Any

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take the rate in hand."""
        check_one_rate_driver()
        check_built(self.model, type(self).__name__)
        if self._trained not in (None, self.model) and self._state is None:
            self._state = NEW
        self._trained = self.model
        self._rate = LayerRates(self.model) if self.per_layer else LearningRate(self.model)
        self._layers = np.array(self._rate.layers)
        self._good = self._begin = Snapshot(training_state(self.model))
        if self._every:
            self._every.begin_training()
        self._take_up()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batches of this epoch."""
        self._take_up()
        self._epoch = epoch
        if self._every:
            self._every.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Set the rate every so many batches."""
        self._take_up()
        if self._loss is None:  # the only one that no step has gone before
            first = float(logs.get(self.monitor, inf))
            self._loss = first + (HOPELESS - 1) * abs(first)
        steps = self.params["steps"]
        if self._every and self._every.reached(batch, steps):
            self._adapt(position(self._epoch, batch, steps), logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Log the rate of the epoch and set that of the next one."""
        logs["learning_rate"] = self._rate.values[0]
        if self._every is None:
            self._adapt(epoch + 1, logs)

    def get_state(self) -> dict[str, Any]:
        """Return the rates, what the next comparison needs, and the weights to go back to."""
        if self._state is not None:
            return self._state
        return {
            "rates": self._rate.state,
            "paces": [[pace.raises, pace.falls] for pace in self._paces],
            "good": self._good.values,
            "begin": self._begin.values,
            "update": self._update and [ops.convert_to_numpy(each) for each in self._update],
            "loss": self._loss,
            "refused": self._refused,
            "waits": self._waits,
            "every": self._every and self._every.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on, in the training that has begun or begins next, from what `get_state` returned."""
        self._state = state

    def _take_up(self) -> None:
        """Go on from the state that was set, if one was."""
        if (state := self._state) is None:
            return
        self._state, variables = None, training_state(self.model)
        if state["rates"] is not None:
            self._rate.state = state["rates"]
            self._good, self._begin = (Snapshot(variables, state[k]) for k in ("good", "begin"))
        arguments = self.up, self.down, self.acceleration
        paces = state["paces"] or [(0, 0)] * (max(self._layers) + 1)
        self._paces = [Pace(*arguments, *each) for each in paces]
        self._update = state["update"] and [ops.convert_to_tensor(u) for u in state["update"]]
        self._loss, self._refused, self._waits = state["loss"], state["refused"], state["waits"]
        if self._every:
            self._every.set_state(state["every"])

    def _adapt(self, epoch: float, logs: dict[str, Any]) -> None:
        """Set the rate, and go back if the loss has risen.

        A loss of the training is that of the weights with which the epoch began: they are gone back
        to, and after that the next loss does not show yet what the lower rate does.
        """
        loss, weights = logged(self.monitor, logs), self.model.trainable_variables
        update = [ops.convert_to_tensor(w) - self._begin[w] for w in weights]
        back = self._has_risen(loss) or not all_finite(update)
        if back:
            factors = [pace.fall() for pace in self._paces]
        elif self.mode == "weights":
            factors = self._by_direction(update)
        else:
            factors = [1.0 if self._waits else self._paces[0].rise()]
        self._change(epoch, factors, back)
        before, self._begin = self._begin, Snapshot(training_state(self.model))
        slower = min(factors) < 1  # the next update leads out of the oscillation: it says nothing
        self._update = update if self.mode == "weights" and not slower else None
        self._good = self._begin if back or self.monitor.startswith("val_") else before
        self._loss = self._loss if back else loss
        self._refused, self._waits = loss if back else inf, back

    def _has_risen(self, loss: float) -> bool:
        """Return whether the loss is too high, and less so than it was at the rate before."""
        risen = loss > self._loss + self.tolerance * abs(self._loss)
        helps = not loss > self._refused - self.tolerance * abs(self._refused)
        return not isfinite(loss) or (risen and helps)

    def _by_direction(self, update: list[Any]) -> list[float]:
        if self._update is None:
            return [1.0] * len(self._paces)
        angles = zip(self._paces, cosines(update, self._update, self._layers), strict=True)
        low, high = self.cosines
        return [
            pace.rise() if cosine > high else pace.fall() if cosine < low else 1.0
            for pace, cosine in angles
        ]

    def _change(self, epoch: float, factors: list[float], back: bool) -> None:
        """Scale the rates, of the weights gone back to if need be."""
        rates = self._rate.state
        if back:
            self._good.restore()
            self._rate.state = rates
            self.model.reset_metrics()  # what was thrown away does not count
        self._rate.scale(*factors, low=self.min_learning_rate, high=self.max_learning_rate)
        if min(factors) < 1:
            text = f"{'back, ' if back else ''}rate × {min(factors):.2g}"
            self.note(epoch, text)
            if self.verbose:
                sys.stdout.write(f"\nEpoch {epoch:.4g}: {text}\n")
