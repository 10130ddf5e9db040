"""Adam with Nesterov's look ahead, by the difference of gradients."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, bias, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class Adan(RuleOptimizer):
    """Adaptive Nesterov momentum: Adam that also follows how the gradient changes.

    The difference of successive gradients takes the place of the gradient at a point ahead. It is
    steady with large batches and large rates.

        d ← g - g'                                     g' the previous gradient; d = 0 at first
        m ← β₁ m + (1 - β₁) g                          β₁ = beta_1
        v ← β₂ v + (1 - β₂) d                          β₂ = beta_2
        n ← β₃ n + (1 - β₃)(g + β₂ d)²                 β₃ = beta_3
        w ← w - η (m̂ + β₂ v̂) / (√n̂ + ε)                m̂ = m / (1 - β₁ᵗ), and so on

    Its authors count the β from the other end: their (0.02, 0.08, 0.01) are our defaults.
    `weight_decay` is decoupled, as of every Keras optimizer, which is their variant without a
    proximal step.

    Args:
        learning_rate: η ≥ 0: a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            callable. Defaults to 0.001.
        beta_1: β₁ in [0, 1), the memory of the mean gradient. Defaults to 0.98.
        beta_2: β₂ in [0, 1), the memory of the mean difference. Defaults to 0.92.
        beta_3: β₃ in [0, 1), the memory of the mean square. Defaults to 0.99.
        epsilon: ε ≥ 0, added to the root. Defaults to 1e-8.
        name: Name of the optimizer. Defaults to `"adan"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is outside its range.

    Reference:
        Xie et al., Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models,
        2022, algorithm 1.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> kerasopt.optimizers.Adan(0.5).apply([2 * w], [w])
        >>> round(float(w), 4)
        0.5
    """

    slots = (("momentum", "difference", "velocity", "previous_gradient"),)

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.98,
        beta_2: float = 0.92,
        beta_3: float = 0.99,
        epsilon: float = 1e-8,
        name: str = "adan",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.beta_3 = check_number("beta_3", beta_3, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return the factors of m, of v and of √n, and 1 from the second step on."""
        return (
            learning_rate / bias(self.beta_1, step),
            learning_rate * self.beta_2 / bias(self.beta_2, step),
            ops.rsqrt(bias(self.beta_3, step)),
            ops.cast(step > 1, step.dtype),
        )

    def rule(
        self, w: Any, g: Any, coefficients: Any, m: Any, v: Any, n: Any, previous: Any
    ) -> tuple[Any, ...]:
        """Return the step along the mean gradient and its mean change."""
        of_m, of_v, of_root, later = coefficients
        d = later * (g - previous)
        ahead = g + self.beta_2 * d
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * d
        n = self.beta_3 * n + (1 - self.beta_3) * ahead * ahead
        return -(of_m * m + of_v * v) / (of_root * ops.sqrt(n) + self.epsilon), m, v, n, g

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "beta_3", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
