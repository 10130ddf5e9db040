"""What a callback asks of the strategy of its model, which may be of TensorFlow or of kerasopt."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def is_chief(model: keras.Model) -> bool:
    """Return whether this process writes the files of the training."""
    return getattr(_strategy(model), "is_chief", True)


def worker_values(model: keras.Model, value: Any) -> np.ndarray:
    """Return the values of all workers, in their order; all workers must call this."""
    gather = getattr(_strategy(model), "worker_values", None)
    return gather(value) if gather else np.asarray(value)[None]


def start_clock(model: keras.Model) -> Callable[[], float] | None:
    """Let a strategy of kerasopt count the seconds it waits; return how to read them, if it is one.

    To be called as training begins: the step is traced anew.
    """
    strategy = _strategy(model)
    if not hasattr(strategy, "start_clock"):
        return None
    if strategy.start_clock():
        model.make_train_function(force=True)
    return lambda: float(strategy.clock.numpy())


def metric_values(model: keras.Model) -> list[np.ndarray]:
    """Return the values of the variables of the metrics."""
    values = [map(keras.ops.convert_to_numpy, _parts(model, v)) for v in model.metrics_variables]
    return [functools.reduce(operator.add, each) for each in values]


def assign_metrics(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Give the variables of the metrics these values."""
    for variable, value in zip(model.metrics_variables, values, strict=True):
        for index, part in enumerate(_parts(model, variable)):
            part.assign(value if index == 0 and is_chief(model) else np.zeros_like(value))


def _parts(model: keras.Model, variable: keras.Variable) -> Sequence[Any]:
    """Return what each replica of this process has of a sum over all replicas.

    Under the strategies of kerasopt the first replica counts, so that the sum is exact.
    """
    strategy = _strategy(model)
    return strategy.experimental_local_results(variable.value) if strategy else [variable]


def _strategy(model: keras.Model) -> Any:
    return getattr(model, "distribute_strategy", None)  # on Keras' TensorFlow backend only
