"""The average of the weights in place of a schedule."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._train_step import attend, in_step
from kerasopt._validation import check_number
from kerasopt.optimizers._devices import assign_when, everywhere
from kerasopt.optimizers._pack import place_of
from kerasopt.optimizers._wrapper import OptimizerWrapper

MOMENTA = ("beta_1", "momentum")  # what Keras' optimizers call it


@keras.saving.register_keras_serializable("kerasopt")
class ScheduleFree(OptimizerWrapper):
    """Trains at a constant rate as well as with a decaying one, by averaging the weights.

    The gradient is taken at y, between the steps z of the optimizer and their average x. `fit`
    trains at y; `evaluate`, `predict`, `save` and callbacks find x in the model, during `fit`
    and after it. No end of the training has to be known.

        y = β x + (1 - β) z                            β = momentum
        z ← z + Δ(y)                                   Δ the step of the optimizer
        x ← x + c (z - x),   c = a / Σ a,   a = tʳ (max η)ᵖ        p = weight_lr_power

    It takes the place of the momentum: β is by default `beta_1`, or `momentum`, of the optimizer,
    in which it is switched off. A warm-up is a `learning_rate` schedule of the optimizer. In a loop
    of your own, which calls `apply`, the model holds y, and x after `finalize_variable_values`.

    Args:
        optimizer: A Keras optimizer, or its name; `SGD` and `AdamW` are those of the source.
        momentum: β in (0, 1). Defaults to the momentum of the optimizer, or 0.9 if it has none.
        r: Power of the step number in the weight of the average, ≥ 0. Defaults to 0.
        weight_lr_power: Power p ≥ 0 of the largest rate so far. Defaults to 2.
        name: Name of the optimizer. Defaults to `"schedule_free"`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or `optimizer` is a `LossScaleOptimizer`,
            averages itself (`use_ema`), or has a momentum and was built.

    Reference:
        Defazio et al., The road less scheduled, 2024, algorithm 1 and equations 3-5.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> optimizer = kerasopt.optimizers.ScheduleFree(keras.optimizers.SGD(0.5))
        >>> for _ in range(2):
        ...     optimizer.apply([2 * w], [w])
        >>> optimizer.finalize_variable_values([w])
        >>> round(float(w), 3)
        0.0
    """

    def __init__(
        self,
        optimizer: Any,
        momentum: float | None = None,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "schedule_free",
    ) -> None:
        super().__init__(optimizer, name)
        if self.optimizer.use_ema:
            raise ValueError(
                "`optimizer` must not average the weights itself. "
                f"Received: optimizer={optimizer!r} with use_ema=True"
            )
        own = [attribute for attribute in MOMENTA if getattr(self.optimizer, attribute, 0)]
        if own and self.optimizer.built:
            raise ValueError(
                "`optimizer` must be new: its momentum is switched off. "
                f"Received: optimizer={optimizer!r}, which was built"
            )
        for attribute in own:
            momentum = getattr(self.optimizer, attribute) if momentum is None else momentum
            setattr(self.optimizer, attribute, 0.0)
        self.momentum = check_number("momentum", 0.9 if momentum is None else momentum, "(0, 1)")
        self.r = check_number("r", r, "[0, inf)")
        self.weight_lr_power = check_number("weight_lr_power", weight_lr_power, "[0, inf)")

    def build(self, variables: list[Any]) -> None:
        """Create z and what the average needs."""
        if self.built:
            return
        attend()
        super().build(variables)
        self.steps = self.add_optimizer_variables(variables, "z")
        self.largest_rate = self.add_variable((), name="largest_rate")
        self.total_weight = self.add_variable((), name="total_weight")
        self.averaged = self.add_variable((), dtype="bool", name="averaged")

    def before_forward(self, variables: list[Any]) -> None:
        """Put y into a model that holds x."""
        self._each(self._leave_average, variables)

    def figures(self) -> dict[str, Any]:
        """Add nothing to the logs."""
        return {}

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Put x into the model."""
        if self.built:
            self._each(self._take_average, list(var_list))

    def _each(self, function: Any, weights: list[Any], *rest: Any) -> None:
        z = [self.steps[place_of(self, w)] for w in weights]
        everywhere(function, weights, z, self.averaged, *rest)

    def _leave_average(self, weights: list[Any], z: list[Any], averaged: Any) -> None:
        def values() -> list[Any]:
            beta = self.momentum
            return [*(beta * x + (1 - beta) * s for x, s in zip(weights, z, strict=True)), False]

        assign_when(averaged, [*weights, averaged], values)

    def _take_average(self, weights: list[Any], z: list[Any], averaged: Any) -> None:
        def values() -> list[Any]:
            beta = self.momentum
            return [*((y - (1 - beta) * s) / beta for y, s in zip(weights, z, strict=True)), True]

        started = ops.logical_and(self.iterations > 0, ops.logical_not(averaged))
        assign_when(started, [*weights, averaged], values)

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        self.before_forward(weights)  # does nothing where the model has done it
        rate, count = ops.cast(self.learning_rate, "float32"), ops.copy(self.iterations)
        self._each(self._start, weights, count == 0)
        y = [ops.copy(weight) for weight in weights]
        self.optimizer.apply(gradients, weights)
        scalars = [self.largest_rate, self.total_weight]
        renew = functools.partial(self._renew, in_step())
        self._each(renew, weights, y, scalars, rate, self.iterations > count)

    def _start(self, weights: list[Any], z: list[Any], averaged: Any, first: Any) -> None:
        assign_when(first, z, lambda: weights)

    def _renew(
        self,
        averaging: bool,
        weights: list[Any],
        z: list[Any],
        averaged: Any,
        y: list[Any],
        scalars: list[Any],
        rate: Any,
        moved: Any,
    ) -> None:
        """Renew z and put y, or x if `averaging`, into the model; the optimizer's step is w - y."""
        largest, total = scalars
        beta, c = self.momentum, self._share(largest, total, rate, moved)
        for w, s, old in zip(weights, z, y, strict=True):
            share, step = ops.cast(c, old.dtype), w - old
            x = (old - (1 - beta) * s) / beta
            x = x + share * (s + step - x)
            ahead = old + share * (s - old) + (1 - beta * (1 - share)) * step
            self.assign(s, s + step)
            self.assign(w, x if averaging else ahead)
        self.assign(averaged, ops.convert_to_tensor(averaging))

    def _share(self, largest: Any, total: Any, rate: Any, moved: Any) -> Any:
        """Return the weight c of the new z in the average."""
        peak = ops.maximum(largest, ops.where(moved, rate, 0.0))
        step = ops.cast(self.iterations, "float32")
        weight = ops.where(moved, step**self.r * peak**self.weight_lr_power, 0.0)
        sum_ = total + weight
        self.assign(largest, peak)
        self.assign(total, sum_)
        return weight / ops.where(sum_ > 0, sum_, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("momentum", "r", "weight_lr_power")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
