"""An optimizer that goes ahead, and weights that follow it half way."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_count, check_number
from kerasopt.optimizers._devices import assign_when, everywhere
from kerasopt.optimizers._pack import place_of
from kerasopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable("kerasopt")
class Lookahead(OptimizerWrapper):
    """Lets any optimizer explore, and goes a part of the way to where it came every few steps.

    It damps the noise and the oscillation of the optimizer within, at the cost of a copy of the
    weights. While the model trains, it holds the fast weights; they equal the slow ones after every
    `sync_period` steps.

        w ← the step of the optimizer                  k - 1 times of k = sync_period
        φ ← φ + α (w - φ),   w ← φ                     every k steps; α = slow_step_size

    Args:
        optimizer: A Keras optimizer, or its name.
        sync_period: k ≥ 1. Defaults to 6.
        slow_step_size: α in (0, 1]. Defaults to 0.5.
        name: Name of the optimizer. Defaults to `"lookahead"`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or `optimizer` is a `LossScaleOptimizer`.

    Reference:
        Zhang et al., Lookahead optimizer: k steps forward, 1 step back, 2019, algorithm 1.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(0.0)
        >>> optimizer = kerasopt.optimizers.Lookahead(keras.optimizers.SGD(1.0), sync_period=2)
        >>> for _ in range(2):
        ...     optimizer.apply([keras.ops.ones(())], [w])
        >>> float(w)
        -1.0
    """

    def __init__(
        self,
        optimizer: Any,
        sync_period: int = 6,
        slow_step_size: float = 0.5,
        name: str = "lookahead",
    ) -> None:
        super().__init__(optimizer, name)
        self.sync_period = check_count("sync_period", sync_period)
        self.slow_step_size = check_number("slow_step_size", slow_step_size, "(0, 1]")

    def build(self, variables: list[Any]) -> None:
        """Create the slow weights."""
        if not self.built:
            super().build(variables)
            self.slow_weights = self.add_optimizer_variables(variables, "slow")

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        slow = [self.slow_weights[place_of(self, w)] for w in weights]
        everywhere(self._start, weights, slow, self.iterations == 0)
        self.optimizer.apply(gradients, weights)
        due = ops.logical_and(self.iterations > 0, self.iterations % self.sync_period == 0)
        everywhere(self._synchronise, weights, slow, due)

    def _start(self, weights: list[Any], slow: list[Any], first: Any) -> None:
        assign_when(first, slow, lambda: weights)

    def _synchronise(self, weights: list[Any], slow: list[Any], due: Any) -> None:
        alpha = self.slow_step_size
        assign_when(
            due,
            [*slow, *weights],
            lambda: 2 * [s + alpha * (w - s) for s, w in zip(slow, weights, strict=True)],
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        own = {"sync_period": self.sync_period, "slow_step_size": self.slow_step_size}
        return {**super().get_config(), **own}
