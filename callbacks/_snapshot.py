"""A point of the training to go back to."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._rate_factor import build_optimizer
from kerasopt.callbacks._checkpoint import training_variables


class Snapshot:
    """Copies of variables, on the device."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._copies = [(variable, ops.copy(variable)) for variable in variables]

    def __getitem__(self, variable: Any) -> Any:
        return next(copy for each, copy in self._copies if each is variable)

    def restore(self) -> None:
        """Give the variables these values; copies of them, for JAX gives away what it is given."""
        for variable, copy in self._copies:
            variable.assign(ops.copy(copy))


def training_state(model: keras.Model) -> list[Any]:
    """Return the variables of a model, its random generators and its optimizer.

    To be called in `on_train_begin`, or after it: the optimizer is built if need be.
    """
    build_optimizer(model)
    return [variable for part in training_variables(model).values() for variable in part]
