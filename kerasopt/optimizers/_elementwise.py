"""The frame of every optimizer that treats each weight by itself."""

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import keras
from keras import ops

from kerasopt._validation import check_number

if keras.backend.backend() == "tensorflow":
    from tensorflow import convert_to_tensor as dense  # adds up the rows of sparse gradients
else:
    from keras.ops import convert_to_tensor as dense

LearningRate: TypeAlias = (
    float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], float]
)


class ElementwiseOptimizer(keras.optimizers.Optimizer):
    """An optimizer given by one pure rule for a weight and its state.

    A subclass names its state in `slots` and writes `rule`, which assigns nothing: it cannot read a
    variable after it was assigned. The state of slot `s` is the list of variables
    `getattr(self, s)`, one for each weight, of its shape and dtype, starting at zero.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: LearningRate, **kwargs: Any) -> None:
        """Check the rate when it is a number; Keras checks schedules and callables."""
        if isinstance(learning_rate, Real):
            learning_rate = check_number("learning_rate", learning_rate, "[0, inf)")
        super().__init__(learning_rate=learning_rate, **kwargs)

    def rule(self, w: Any, g: Any, learning_rate: Any, *state: Any) -> tuple[Any, ...]:
        """Return the step Δw and the new value of each slot, in the order of `slots`."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `rule`.")

    def build(self, variables: list[Any]) -> None:
        """Create the slots of `variables`."""
        if self.built:
            return
        super().build(variables)
        for slot in self.slots:
            setattr(self, slot, self.add_optimizer_variables(variables, slot))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one weight by the step of `rule`, and renew its slots."""
        index = self._get_variable_index(variable)
        state = [getattr(self, slot)[index] for slot in self.slots]
        gradient = ops.cast(dense(gradient), variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        step, *renewed = self.rule(variable, gradient, learning_rate, *state)
        for slot, value in zip(state, renewed, strict=True):
            self.assign(slot, value)
        self.assign_add(variable, step)
