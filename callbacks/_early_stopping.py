"""Stopping at a minimum of the validation error."""

from copy import deepcopy
from math import copysign, inf, isfinite, nan
from typing import Any

import keras
import numpy as np

from kerasopt._acting import ActingCallback, callbacks_of_fit
from kerasopt._callers import callers
from kerasopt._validation import check_choice, check_count, check_flag, check_number
from kerasopt.callbacks._checks import not_logged
from kerasopt.callbacks._evaluate_every import EvaluateEvery
from kerasopt.callbacks._every import Every, position
from kerasopt.callbacks._stopping_criteria import ALPHAS, CRITERIA

REMEMBERED = (
    *("wait", "best", "best_epoch", "best_weights"),  # by Keras' class
    *("best_optimizer", "held", "average", "averaged", "errors", "losses"),
    *("reason", "stopped_epoch", "_epoch"),
)


class EarlyStopping(keras.callbacks.EarlyStopping, ActingCallback):
    """Stops training at a minimum of the error on the validation set.

    The training error goes on falling while that on the validation set turns up: from there on the
    network learns its training patterns by heart. Use it in the place of
    `keras.callbacks.EarlyStopping`, whose arguments it takes with their meaning and order, wherever
    a validation set is at hand; with `restore_best_weights=True` the weights of the minimum are
    back in the model at the end of `fit`, whatever ended it. After a `KeyboardInterrupt`, with
    which `fit` does not reach its end, call `on_train_end()` to get them back.

    Training stops when one of these held in `patience` checks in a row (0 is as 1):

        "patience"  E is not below its minimum E_opt by more than `min_delta`
        "GL"        GL = 100 (E / E_opt - 1) > α
        "PQ"        GL / P > α,  P = 1000 (mean E_tr / min E_tr - 1) over the last 5 checks
        "UP"        E is above that of 5 checks ago

    where E is the monitored value, E_tr the training loss, and a check is made after each epoch;
    `"PQ"` and `"UP"` look at every fifth. P is large while training still makes progress. Where
    more is better, such as for an accuracy, the criteria look at -E and divide by its magnitude.
    `"GL"` stops early, `"PQ"` and `"UP"` gain a little in the error and take longer. The minimum is
    that of noisy values: with `smooth` a moving average takes their place,

        m ← s m + (1 - s) E,   E ← m / (1 - sᵗ)        s = smooth, in check t

    `monitor` has to be logged, where Keras' class warns and never stops. The state of the callback
    is in `get_state()`, so that a training that is taken up again stops where it would have.

    Args:
        monitor: Name of the value to watch. Defaults to `"val_loss"`.
        min_delta: Least difference that counts as better, whatever its sign. Defaults to 0.
        patience: Number ≥ 0 of checks in a row for which the criterion has to hold. Defaults to 0.
        verbose: 1 prints when training is stopped and weights are restored. Defaults to 0.
        mode: `"min"` or `"max"`: which values are best; `"auto"` takes it from the metric. Defaults
            to `"auto"`.
        baseline: Value that `"patience"` has to see beaten within `patience` checks, or None.
            Defaults to None.
        restore_best_weights: Whether the model ends with the weights of the best check rather than
            with the last ones. Defaults to False, as in Keras.
        start_from_epoch: Number ≥ 0 of epochs before the first check. Defaults to 0.
        smooth: s in [0, 1). Defaults to 0: no average.
        relative: Whether `min_delta` is a fraction of the magnitude of the best value. Defaults to
            False.
        criterion: `"patience"`, `"GL"`, `"PQ"` or `"UP"`. Defaults to `"patience"`.
        alpha: α > 0 of `"GL"` and `"PQ"`. Defaults to 5 and 3, the most patient of those in the
            paper.
        stopping_threshold: Value that is good enough: training stops once it is reached. Defaults
            to None.
        divergence_threshold: Value that is hopeless: training stops once it is reached. Defaults to
            None.
        check_finite: Whether training stops when the value is not finite. Otherwise such a value
            counts as one that is not better. Defaults to True.
        every_batches: Number ≥ 1 of training batches between two checks, in place of an epoch. For
            a `val_` value put an `EvaluateEvery` whose number divides it before this callback;
            values of the training are means over the epoch so far. Defaults to None.
        restore_optimizer: Whether the state of the optimizer goes back with the best weights, its
            learning rate and count of steps included. Defaults to False.

    Attributes:
        reason: Why training was stopped; empty if it was not.
        events: The stop and the restoring, for the marks of `LearningCurve`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, `relative` has no `min_delta`, `alpha` or
            `baseline` is given to a criterion without it, `restore_optimizer` without
            `restore_best_weights`; when training begins, `every_batches` has no `EvaluateEvery`
            that goes with it; later, `monitor` is not logged.

    Reference:
        Prechelt, Early stopping - but when?, 1998; X. Wang, Optimization for Training Deep Models,
        lecture, 2015, on learning curves.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(1.0), "mse")  # too high a rate: it diverges
        >>> stop = kerasopt.callbacks.EarlyStopping("loss", restore_best_weights=True)
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> len(model.fit(x, y, epochs=9, verbose=0, callbacks=[stop]).epoch), stop.reason
        (2, 'not better')
    """

    min_delta: float

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        *,
        smooth: float = 0.0,
        relative: bool = False,
        criterion: str = "patience",
        alpha: float | None = None,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_finite: bool = True,
        every_batches: int | None = None,
        restore_optimizer: bool = False,
    ) -> None:
        check_choice("mode", mode, ("auto", "min", "max"))
        self.criterion = check_choice("criterion", criterion, ("patience", *CRITERIA))
        self.in_a_row = max(1, check_count("patience", patience, 0))
        super().__init__(  # type: ignore[call-arg]  # Keras carries no types
            monitor,
            check_number("min_delta", min_delta, "(-inf, inf)"),
            patience if criterion == "patience" else inf,  # another rule than Keras' decides
            verbose,
            mode,
            baseline,
            check_flag("restore_best_weights", restore_best_weights),
            check_count("start_from_epoch", start_from_epoch, 0),
        )
        self.smooth = check_number("smooth", smooth, "[0, 1)")
        self.fraction = self.min_delta if check_flag("relative", relative) else None
        self.alpha = ALPHAS.get(criterion) if alpha is None else alpha
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.check_finite = check_flag("check_finite", check_finite)
        self.every_batches = every_batches
        self.restore_optimizer = check_flag("restore_optimizer", restore_optimizer)
        self._check_arguments()
        self._every = None if every_batches is None else Every("every_batches", every_batches)
        if self._every:
            self.on_train_batch_end = self._on_train_batch_end  # Keras asks who overrides it
        self._begin_anew()

    def _check_arguments(self) -> None:
        for name in ("baseline", "stopping_threshold", "divergence_threshold"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, "(-inf, inf)")
        if self.alpha is not None:
            check_number("alpha", self.alpha, "(0, inf)")
            if self.criterion not in ALPHAS:
                raise ValueError(
                    f"`alpha` must be None where `criterion` is not one of {[*ALPHAS]}. "
                    f"Received: alpha={self.alpha!r}, criterion={self.criterion!r}"
                )
        if self.baseline is not None and self.criterion != "patience":
            raise ValueError(
                "`baseline` must be None where `criterion` is not 'patience'. Received: "
                f"baseline={self.baseline!r}, criterion={self.criterion!r}"
            )
        if self.fraction == 0:
            raise ValueError("`min_delta` must be > 0 with `relative`. Received: min_delta=0")
        if self.restore_optimizer and not self.restore_best_weights:
            raise ValueError(
                "`restore_optimizer` needs `restore_best_weights=True`: the state belongs to these "
                "weights. Received: restore_optimizer=True, restore_best_weights=False"
            )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the training before, unless its state has just been set."""
        if not self._resumes:
            self._begin_anew()
        if self._every:
            self._check_evaluation(self._every.number)
            self._every.begin_training()

    def _begin_anew(self) -> None:
        super().on_train_begin()
        self.best_optimizer: list[np.ndarray] | None = None
        self.held = self.averaged = self._epoch = 0
        self.average, self.reason, self._resumes = 0.0, "", False
        self.errors: list[float] = []
        self.losses: list[float] = []

    def _check_evaluation(self, number: int) -> None:
        callbacks = callbacks_of_fit()
        before = callbacks[: callbacks.index(self)] if self in callbacks else []
        counts = [each.n_batches for each in before if isinstance(each, EvaluateEvery)]
        if self.monitor.startswith("val_") and all(number % n for n in counts):
            raise ValueError(
                "`every_batches` must be a multiple of the `n_batches` of an `EvaluateEvery` that "
                "stands before this callback, where a value of the validation set is watched. "
                f"Received: monitor={self.monitor!r}, every_batches={number}, and "
                f"before it `n_batches` of {counts}: put an `EvaluateEvery` before this callback."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note which epoch it is; training goes on."""
        self._epoch, self.stopped_epoch, self.reason = epoch, 0, ""
        self._resumes = False
        if self._every:
            self._every.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the value of this epoch."""
        if self._every is None:
            self._check(logs or {}, epoch + 1)

    def _on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params["steps"]
        if self._every and self._every.reached(batch, steps):
            self._check(logs or {}, position(self._epoch, batch, steps))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the best weights, and the state of the optimizer, if asked for."""
        super().on_train_end(logs)
        self._resumes = False
        if self.best_weights is not None:
            self.note(self._epoch + 1, f"epoch {self.best_epoch + 1} restored")
        if self.best_optimizer is not None:
            variables = self.model.optimizer.variables
            for variable, value in zip(variables, self.best_optimizer, strict=True):
                variable.assign(value)

    def get_monitor_value(self, logs: dict[str, Any]) -> float | None:
        """Return the monitored value; None if it will be there after another epoch or batch."""
        if self.monitor in logs:
            return float(logs[self.monitor])
        of_validation = self.monitor.startswith("val_")
        if of_validation and not any(name.startswith("val_") for name in logs):
            evaluates = any(isinstance(each, EvaluateEvery) for each in callbacks_of_fit())
            if self._every is None and (evaluates or _fit_validates()):
                return None
        raise not_logged(self.monitor, logs, ", or put an `EvaluateEvery` before this callback")

    def get_state(self) -> dict[str, Any]:
        """Return what is remembered between epochs, as plain values and arrays."""
        own = {name: deepcopy(getattr(self, name)) for name in REMEMBERED}
        return {**own, "every": self._every and self._every.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on, in the next `fit`, from what `get_state` returned."""
        for name in REMEMBERED:
            setattr(self, name, deepcopy(state[name]))
        if self._every:
            self._every.set_state(state["every"])
        self._resumes = True

    def _check(self, logs: dict[str, Any], now: float) -> None:
        if self._epoch < self.start_from_epoch or (value := self.get_monitor_value(logs)) is None:
            return
        if not isfinite(value):
            if self.check_finite:
                self._stop("not finite", now)
            if self.check_finite or self.best is None:
                return
        value = self._averaged(value) if isfinite(value) else nan
        before = self.best
        self._keep_best(value)
        if reason := self._reason(value, logs, self.best != before):
            self._stop(reason, now)

    def _averaged(self, value: float) -> float:
        self.averaged += 1
        self.average = self.smooth * self.average + (1 - self.smooth) * value
        return self.average / (1 - self.smooth**self.averaged)

    def _keep_best(self, value: float) -> None:
        """Let Keras' class compare the value with the best one, and keep the weights of that."""
        reference = self.baseline if self.best is None else self.best
        if self.fraction is not None and reference is not None:
            # Keras gives the sign that goes with the mode.
            self.min_delta = copysign(self.fraction * abs(reference), self.min_delta)
        kept = self.best_weights
        super().on_epoch_end(self._epoch, {self.monitor: value})
        if self.restore_optimizer and self.best_weights is not kept:
            variables = self.model.optimizer.variables
            self.best_optimizer = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

    def _reason(self, value: float, logs: dict[str, Any], improved: bool) -> str:
        """Return why training should stop; an empty text if it should not."""
        sign = 1 if self.monitor_op is keras.ops.less else -1
        good, bad = self.stopping_threshold, self.divergence_threshold
        if good is not None and sign * value <= sign * good:
            return "good enough"
        if bad is not None and sign * value >= sign * bad:
            return "diverged"
        if self.criterion == "patience":
            return "not better" if not improved and self.wait >= self.in_a_row else ""
        self.errors.append(sign * value)
        self.losses.append(float(logs["loss"]))
        verdict = CRITERIA[self.criterion](self.errors, self.losses, self.alpha or 0.0)
        if verdict is not None:
            self.held = self.held + 1 if verdict else 0
        return self.criterion if verdict and self.held >= self.in_a_row else ""

    def _stop(self, reason: str, now: float) -> None:
        self.reason = reason
        self.stopped_epoch = self._epoch
        self.model.stop_training = True
        self.note(now, f"stop: {reason}")


def _fit_validates() -> bool:
    """Return whether the `fit` that is calling has validation data, be it for other epochs."""
    for names in callers():
        if "validation_freq" in names:
            return names["validation_data"] is not None
    return False
