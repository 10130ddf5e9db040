"""Gradient descent with a fraction of the previous step."""

from typing import Any

import keras

from kerasopt._validation import check_number
from kerasopt.optimizers import _kernels
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class Momentum(RuleOptimizer):
    """Gradient descent that keeps the fraction α of its previous step.

    Momentum carries the weights across plateaus, where the gradient is small but steady, and damps
    the oscillation across narrow valleys. Each step is a weighted mean of the previous step and of
    the plain gradient step, so its length does not depend on α: `momentum` can be changed
    without a new search for the learning rate.

        Δw ← α Δw - (1 - α) η g          α = momentum, η = learning_rate
        w  ← w + Δw

    In the notation of the source, w(m+1) = w(m) + (1-α) Δw_bp(m) + α Δw(m-1), where
    Δw_bp = -η g is the step that backpropagation alone calls for.
    `keras.optimizers.SGD(learning_rate, momentum=α)` leaves out the factor 1 - α: it takes the same
    path as this class when its learning rate is (1 - α) η, constant or from a schedule.

    Args:
        learning_rate: Step length η ≥ 0: a number, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable without arguments.
            Defaults to 0.01.
        momentum: Fraction α of the previous step, in [0, 1). 0 is plain gradient descent.
            Defaults to 0.9.
        name: Name of the optimizer. Defaults to `"momentum"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`.

    Raises:
        TypeError: `learning_rate` or `momentum` is not a number.
        ValueError: `learning_rate` is negative, or `momentum` is outside [0, 1).

    Reference:
        Duda, Hart and Stork, Pattern Classification, 2nd edition, 2000, section 6.8.10.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> optimizer = kerasopt.optimizers.Momentum(learning_rate=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.apply([2 * w], [w])
        >>> float(w)
        0.0
    """

    slots = (("step",),)
    has_kernel = True

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.9,
        name: str = "momentum",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.momentum = check_number("momentum", momentum, "[0, 1)")

    def rule(self, w: Any, g: Any, learning_rate: Any, step: Any) -> tuple[Any, Any]:
        """Δw ← α Δw - (1 - α) η g."""
        step = self.momentum * step - (1 - self.momentum) * learning_rate * g
        return step, step

    def kernel(self, w: Any, g: Any, learning_rate: Any, step: Any) -> None:
        """Do the same in place."""
        _kernels.heavy_ball(w, g, (1 - self.momentum) * learning_rate, step, self.momentum)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        return {**super().get_config(), "momentum": self.momentum}
