"""What a callback asks of the strategy of its model, which may be of TensorFlow or of kerasopt."""

from collections.abc import Callable
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


def _strategy(model: keras.Model) -> Any:
    return getattr(model, "distribute_strategy", None)  # on Keras' TensorFlow backend only
