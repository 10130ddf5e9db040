"""What the looks into a training step have in common on all backends."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._rate_factor import innermost


def replace(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Give an object an attribute of its own; return what takes it back."""
    before = vars(owner).get(name)
    setattr(owner, name, value)
    if before is None:
        return lambda: delattr(owner, name)
    return lambda: setattr(owner, name, before)


class Steps:
    """Which steps of an optimizer are looked at: every so many of those in which weights change.

    Attributes:
        count: The variable that counts the calls of the optimizer, accumulating ones included.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        inner = next(innermost(optimizer))
        self.count = inner.variables[0]
        self._calls = inner.gradient_accumulation_steps or 1

    def wait(self, count: Any, every: int) -> Any:
        """Return how many calls there are before the next one to look at."""
        return (self._calls - 1 - count) % (self._calls * every)

    def number(self, count: Any) -> Any:
        """Return which step the next call belongs to, from 1."""
        return count // self._calls + 1


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return by what an optimizer has multiplied the loss, and so the gradients."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return ops.copy(optimizer.dynamic_scale) if optimizer.built else optimizer.initial_scale
    return optimizer.loss_scale_factor or 1.0


def plain(gradients: Sequence[Any], weights: Sequence[Any], scale: Any) -> list[Any]:
    """Return gradients of the loss itself in float32, zeros where there is none."""
    pairs = zip(gradients, weights, strict=True)
    filled = [ops.zeros(w.shape) if g is None else g for g, w in pairs]
    return [ops.cast(g, "float32") / scale for g in filled]
