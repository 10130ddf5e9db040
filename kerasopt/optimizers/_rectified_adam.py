"""Adam that waits until its mean square can be trusted."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, bias, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class RectifiedAdam(RuleOptimizer):
    """Adam whose early steps do not trust the few squares seen so far: no warm-up is needed.

    The variance of Adam's step is large at the start. Here the step is scaled to the variance it
    has later, and taken without the square root as long as that scale is not defined.

        m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²          β₁ = beta_1, β₂ = beta_2
        ρ∞ = 2 / (1 - β₂) - 1,   ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
        r = √((ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ))
        w ← w - η m / (1 - β₁ᵗ) · r √(1 - β₂ᵗ) / (√v + ε)        where ρ > threshold
        w ← w - η m / (1 - β₁ᵗ)                                  else

    Args:
        learning_rate: η ≥ 0: a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            callable. Defaults to 0.001.
        beta_1: β₁ in [0, 1), the memory of the mean gradient. Defaults to 0.9.
        beta_2: β₂ in [0, 1), the memory of the mean square. Defaults to 0.999.
        epsilon: ε ≥ 0, added to the root. Defaults to 1e-7, as Keras' Adam.
        threshold: The ρ ≥ 4 from which on the root is used. Defaults to 5.
        name: Name of the optimizer. Defaults to `"rectified_adam"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is outside its range.

    Reference:
        Liu et al., On the variance of the adaptive learning rate and beyond, 2020, algorithm 2.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> kerasopt.optimizers.RectifiedAdam(0.25).apply([2 * w], [w])
        >>> round(float(w), 4)
        0.5
    """

    slots = (("momentum", "velocity"),)

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        threshold: float = 5.0,
        name: str = "rectified_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")
        self.threshold = check_number("threshold", threshold, "[4, inf)")

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return η / (1 - β₁ᵗ), the factor r √(1 - β₂ᵗ), and whether it is defined."""
        seen = bias(self.beta_2, step)
        longest = 2 / (1 - self.beta_2) - 1
        length = longest - 2 * step * (1 - seen) / seen
        defined = length > self.threshold
        safe = ops.where(defined, length, 5.0)
        rectification = (safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe)
        factor = ops.sqrt(ops.maximum(rectification, 0.0) * seen)
        return learning_rate / bias(self.beta_1, step), factor, defined

    def rule(self, w: Any, g: Any, coefficients: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Return the rectified step, or that of the mean gradient."""
        rate, factor, defined = coefficients
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g * g
        scale = ops.where(ops.cast(defined, "bool"), factor / (ops.sqrt(v) + self.epsilon), 1)
        return -rate * m * scale, m, v

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "epsilon", "threshold")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
