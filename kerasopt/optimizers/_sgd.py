"""Gradient descent as Keras has it, in fewer passes over memory."""

from typing import Any

import keras

from kerasopt.optimizers import _kernels
from kerasopt.optimizers._rule import RuleOptimizer


@keras.saving.register_keras_serializable("kerasopt")
class SGD(RuleOptimizer, keras.optimizers.SGD):
    """Keras' SGD, faster: the same arguments, path and saved state.

        Δw ← μ Δw - η g                                μ = momentum, η = learning_rate
        w  ← w + Δw                                    with `nesterov`: w + μ Δw - η g

    `Momentum` is the same with a step length that does not depend on the momentum. Gradients of
    embeddings are made dense: for a very large one, without momentum, Keras' own class is faster.

    Args:
        learning_rate: Step length η ≥ 0: a float, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable. Defaults to 0.01.
        momentum: Fraction μ of the previous step, a float in [0, 1]. Defaults to 0.0.
        nesterov: Whether to look a step ahead. Defaults to False.
        **kwargs: `name`, and what every Keras optimizer takes.

    Raises:
        ValueError: As `keras.optimizers.SGD`.

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964;
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013,
        equations 3 and 4 (`nesterov`).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> kerasopt.optimizers.SGD(0.25).apply([2 * w], [w])
        >>> float(w)
        0.5
    """

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The previous step, if a fraction of it is kept."""
        return (("momentum",),) if self.momentum else ()

    def rule(self, w: Any, g: Any, learning_rate: Any, *step: Any) -> tuple[Any, ...]:
        """Return -η g or, with momentum, the step and its new memory."""
        if not step:
            return (-learning_rate * g,)
        memory = self.momentum * step[0] - learning_rate * g
        return self.momentum * memory - learning_rate * g if self.nesterov else memory, memory

    has_kernel = True

    def kernel(self, w: Any, g: Any, learning_rate: Any, *step: Any) -> None:
        """Do the same in place."""
        if step:
            _kernels.heavy_ball(w, g, learning_rate, step[0], self.momentum, self.nesterov)
        else:
            _kernels.gradient_descent(w, g, learning_rate)
