"""The learning rate of whatever a model was compiled with, for callbacks to read and to scale."""

import re
from collections.abc import Iterator
from math import inf
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from kerasopt.optimizers._layerwise_learning_rate import LayerwiseLearningRate
from kerasopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable("kerasopt")
class ScaledSchedule(LearningRateSchedule):
    """A factor times another schedule; a traced training step reads the factor anew each time."""

    def __init__(self, schedule: LearningRateSchedule, factor: float = 1.0) -> None:
        self.schedule = schedule
        self._cell = _cell(factor)

    @property
    def factor(self) -> float:
        """What the schedule is multiplied by."""
        return float(ops.convert_to_numpy(self._cell[...]))

    @factor.setter
    def factor(self, factor: float) -> None:
        if isinstance(self._cell, keras.Variable):
            self._cell.assign(factor)
        else:
            self._cell[...] = np.float32(factor)

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        return self._cell[...] * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this schedule again."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the schedule again."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


def _cell(value: float) -> Any:
    """Return what holds a number outside of the state of model and optimizer.

    As part of that state the files of an optimizer would differ with and without it.
    """
    variable = keras.Variable(value, trainable=False, dtype="float32", name="factor")
    if keras.backend.backend() != "jax":
        return variable
    import jax  # whose jitted functions take a variable of Keras for a constant

    return jax.new_ref(variable.value)  # on all devices, where Keras distributes the model


class LearningRate:
    """The learning rates of the optimizer of a model and of those within it.

    A number is scaled where it stands; a schedule is put into a `ScaledSchedule`, in which it
    stays after the training. To be made as training begins: the step may be traced anew.

    Attributes:
        layers: For each weight the number of the factor of `scale` that it goes by.

    Raises:
        ValueError: A rate is a function, which cannot be scaled.
    """

    def __init__(self, model: keras.Model) -> None:
        build_optimizer(model)
        self._optimizers = list(innermost(model.optimizer))
        self.layers = [0] * len(model.trainable_variables)
        if sum(map(_wrap_schedule, self._optimizers)):
            model.make_train_function(force=True)

    @property
    def values(self) -> list[float]:
        """The rates of the next step, of all optimizers."""
        return [
            float(ops.convert_to_numpy(optimizer.learning_rate)) for optimizer in self._optimizers
        ]

    @property
    def state(self) -> list[float]:
        """What scaling changes: rates that are numbers, and factors of schedules."""
        pairs = zip(map(_schedule, self._optimizers), self.values, strict=True)
        return [schedule.factor if schedule else rate for schedule, rate in pairs]

    @state.setter
    def state(self, state: list[float]) -> None:
        for optimizer, value in zip(self._optimizers, state, strict=True):
            if schedule := _schedule(optimizer):
                schedule.factor = value
            else:
                optimizer.learning_rate = value

    def scale(self, factor: float, *, low: float = 0.0, high: float = inf) -> None:
        """Multiply the rates by a factor, as far as they stay between `low` and `high`."""
        pairs = zip(self.state, self.values, strict=True)
        self.state = [value * _within(low, high, rate, factor) for value, rate in pairs]


class LayerRates:
    """The rates of the layers of a model whose optimizer is a `LayerwiseLearningRate`.

    Attributes:
        layers: For each weight the number of its layer.

    Raises:
        ValueError: The optimizer is another one.
    """

    def __init__(self, model: keras.Model) -> None:
        self._rate, optimizer = LearningRate(model), model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        if not isinstance(optimizer, LayerwiseLearningRate):
            raise ValueError(
                "`per_layer=True` needs an optimizer that has a rate for each layer: compile the "
                "model with `kerasopt.optimizers.LayerwiseLearningRate(optimizer)`. Received: "
                f"optimizer={type(optimizer).__name__}"
            )
        self._optimizer = optimizer
        names = [path.rpartition("/")[0] for path in optimizer.multipliers]
        self.layers = [list(dict.fromkeys(names)).index(name) for name in names]

    @property
    def values(self) -> list[float]:
        """The rates of the next step, of all weights."""
        return [self._rate.values[0] * multiplier for multiplier in self.state]

    @property
    def state(self) -> list[float]:
        """The multipliers of all weights."""
        return list(self._optimizer.multipliers.values())

    @state.setter
    def state(self, state: list[float]) -> None:
        for path, value in zip(self._optimizer.multipliers, state, strict=True):
            self._optimizer.set_multiplier(f"^{re.escape(path)}$", value)

    def scale(self, *factors: float, low: float = 0.0, high: float = inf) -> None:
        """Multiply the rate of each layer by its factor."""
        rows = zip(self.state, self.values, self.layers, strict=True)
        self.state = [
            value * _within(low, high, rate, factors[layer]) for value, rate, layer in rows
        ]


def _within(low: float, high: float, rate: float, factor: float) -> float:
    """Return the factor, or the one that leads to the limit; a rate of zero may be a warm-up's."""
    return min(max(rate * factor, low), high) / rate if rate else factor


def scaled_schedules(model: keras.Model) -> list[ScaledSchedule]:
    """Return the schedules of the optimizers of a model that callbacks scale."""
    schedules = map(_schedule, innermost(model.optimizer) if model.optimizer else ())
    return [schedule for schedule in schedules if isinstance(schedule, ScaledSchedule)]


def build_optimizer(self: keras.Model) -> None:
    """Create the state of the optimizer.

    An optimizer that takes part in the training step finds its model among the callers, by `self`.
    """
    if not self.optimizer.built and self.built:
        self.optimizer.build(self.trainable_variables)


def innermost(optimizer: Any) -> Iterator[Any]:
    """Yield the optimizers within an optimizer that hold a rate of their own."""
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        for each in optimizer.optimizers:
            yield from innermost(each)
    elif isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        yield from innermost(optimizer.inner_optimizer)
    elif isinstance(optimizer, OptimizerWrapper):
        yield from innermost(optimizer.optimizer)
    else:
        yield optimizer


def _schedule(optimizer: Any) -> Any:
    """Return the schedule that an optimizer holds, or None."""
    held = vars(optimizer).values()
    return next((each for each in held if isinstance(each, LearningRateSchedule)), None)


def _wrap_schedule(optimizer: Any) -> bool:
    """Make the rate of an optimizer one that can be scaled; return whether that changed it."""
    schedule = _schedule(optimizer)
    if schedule is None and not isinstance(optimizer.learning_rate, keras.Variable):
        raise ValueError(
            "`learning_rate` must be a number or a `LearningRateSchedule` where a callback scales "
            f"it. Received: a function in {type(optimizer).__name__}; derive a class with "
            "`__call__` from `keras.optimizers.schedules.LearningRateSchedule`."
        )
    if schedule is None or isinstance(schedule, ScaledSchedule):
        return False
    optimizer.learning_rate = ScaledSchedule(schedule)
    return True
