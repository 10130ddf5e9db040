"""A point of the training to go back to."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt._rate_factor import build_optimizer
from kerasopt.callbacks._checkpoint import training_variables


class Snapshot:
    """Values of variables, on the device: given ones, or copies of those that they have."""

    def __init__(self, variables: Sequence[Any], values: Sequence[Any] | None = None) -> None:
        pairs = zip(variables, values or variables, strict=True)
        self._copies = [(v, ops.copy(ops.convert_to_tensor(value, v.dtype))) for v, value in pairs]

    def __getitem__(self, variable: Any) -> Any:
        return next(copy for each, copy in self._copies if each is variable)

    @property
    def values(self) -> list[np.ndarray]:
        """The values, as `Snapshot` takes them."""
        return [ops.convert_to_numpy(copy) for _, copy in self._copies]

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
