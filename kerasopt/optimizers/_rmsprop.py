"""RMSprop as Keras has it, in fewer passes over memory."""

from typing import Any

import keras
from keras import ops

from kerasopt.optimizers import _kernels
from kerasopt.optimizers._rule import RuleOptimizer


@keras.saving.register_keras_serializable("kerasopt")
class RMSprop(RuleOptimizer, keras.optimizers.RMSprop):
    """Keras' RMSprop, faster: the same arguments, path and saved state.

        v  ← ρ v + (1 - ρ) g²                          ρ = rho
        a  ← ρ a + (1 - ρ) g                           with `centered`; else a = 0
        Δw ← μ Δw + η g / √(v - a² + ε)                μ = momentum
        w  ← w - Δw

    Args:
        learning_rate: Step length η ≥ 0: a float, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable. Defaults to 0.001.
        rho: Decay ρ of the mean square, in [0, 1). Defaults to 0.9.
        momentum: Fraction μ of the previous step, in [0, 1). Defaults to 0.0.
        epsilon: ε > 0, added under the root. Defaults to 1e-7.
        centered: Whether to divide by the variance in place of the mean square. Defaults to False.
        **kwargs: `name`, and what every Keras optimizer takes.

    Raises:
        ValueError: As `keras.optimizers.RMSprop`.

    Reference:
        Tieleman and Hinton, Neural networks for machine learning, lecture 6.5, 2012;
        Graves, Generating sequences with recurrent neural networks, 2013, equations 38-45
        (`centered`).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> kerasopt.optimizers.RMSprop(0.1, rho=0.75).apply([2 * w], [w])
        >>> round(float(w), 4)
        0.8
    """

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The mean square v, the previous step Δw and the mean gradient a, where needed."""
        momentum = [("momentum",)] if self.momentum > 0 else []
        return ("velocity",), *momentum, *([("average_gradient",)] if self.centered else [])

    def rule(self, w: Any, g: Any, learning_rate: Any, v: Any, *rest: Any) -> tuple[Any, ...]:
        """Return -η g / √(v - a² + ε), with a fraction of the previous step."""
        step, mean = rest[: self.momentum > 0], rest[self.momentum > 0 :]
        v = self.rho * v + (1 - self.rho) * g * g
        mean = tuple(self.rho * a + (1 - self.rho) * g for a in mean)
        variance = v - mean[0] * mean[0] if mean else v
        move = learning_rate * g / ops.sqrt(variance + self.epsilon)
        step = tuple(self.momentum * s + move for s in step)
        return -(step[0] if step else move), v, *step, *mean

    @property
    def has_kernel(self) -> bool:
        """TensorFlow's kernel has a memory of the step, and no `centered`."""
        return self.momentum > 0 and not self.centered

    def kernel(self, w: Any, g: Any, learning_rate: Any, v: Any, step: Any) -> None:
        """Do the same in place."""
        _kernels.rmsprop(w, g, learning_rate, v, step, self.rho, self.momentum, self.epsilon)
