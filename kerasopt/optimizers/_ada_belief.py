"""Adam that divides by how far gradients are from what was expected."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, bias, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class AdaBelief(RuleOptimizer):
    """Adam with the variance of the gradient in place of its square: long steps where it is steady.

        m ← β₁ m + (1 - β₁) g                          β₁ = beta_1
        s ← β₂ s + (1 - β₂)(g - m)² + ε                β₂ = beta_2, ε = epsilon
        w ← w - η m / (1 - β₁ᵗ) / (√(s / (1 - β₂ᵗ)) + ε)

    Args:
        learning_rate: η ≥ 0: a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            callable. Defaults to 0.001.
        beta_1: β₁ in [0, 1), the memory of the mean gradient. Defaults to 0.9.
        beta_2: β₂ in [0, 1), the memory of the variance. Defaults to 0.999.
        epsilon: ε ≥ 0. Defaults to 1e-16, as its authors': a larger one, such as 1e-8, makes the
            method more like gradient descent.
        name: Name of the optimizer. Defaults to `"ada_belief"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is outside its range.

    Reference:
        Zhuang et al., AdaBelief optimizer: adapting stepsizes by the belief in observed gradients,
        2020, algorithm 2.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> kerasopt.optimizers.AdaBelief(0.45).apply([2 * w], [w])
        >>> round(float(w), 4)
        0.5
    """

    slots = (("momentum", "variance"),)

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-16,
        name: str = "ada_belief",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return η / (1 - β₁ᵗ) and 1 / √(1 - β₂ᵗ)."""
        return learning_rate / bias(self.beta_1, step), ops.rsqrt(bias(self.beta_2, step))

    def rule(self, w: Any, g: Any, coefficients: Any, m: Any, s: Any) -> tuple[Any, Any, Any]:
        """Return the mean gradient over the deviation from it."""
        rate, scale = coefficients
        m = self.beta_1 * m + (1 - self.beta_1) * g
        s = self.beta_2 * s + (1 - self.beta_2) * (g - m) * (g - m) + self.epsilon
        return -rate * m / (ops.sqrt(s) * scale + self.epsilon), m, s

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
