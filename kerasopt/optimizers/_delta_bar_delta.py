"""A learning rate for each weight, which grows while the weight moves steadily."""

from typing import Any, ClassVar

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class DeltaBarDelta(RuleOptimizer):
    """Gradient descent with a rate for each weight: up while it is steady, down when it swings.

    Weights along a flat direction need a large rate, those across a narrow valley a small one. Each
    weight finds its own from the signs of its gradients, so that all converge at roughly the same
    speed. For full batches or large ones: noise that turns the sign looks like a swing.

        γ ← γ + κ          where ḡ g > 0               κ = kappa
        γ ← (1 - φ) γ      where ḡ g < 0               φ = phi
        γ ← min(max(γ, min_gain), max_gain)            the rate of a weight is η γ
        ḡ ← (1 - θ) g + θ ḡ                            θ = theta; the test above sees the old ḡ
        w ← w - η γ g                                  with momentum: Δw ← μ Δw - η γ g, w ← w + Δw

    γ starts at 1 and ḡ at 0. `state_of(weight)["gain"]` shows the γ of a weight.

    Args:
        learning_rate: η ≥ 0, the rate of every weight at the start: a number, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable. Defaults to 0.001.
        kappa: κ ≥ 0, what steady movement adds to the gain. Defaults to 0.5.
        phi: φ in [0, 1), the fraction of the gain that a swing takes. Defaults to 0.3.
        theta: θ in [0, 1), the memory of the mean gradient ḡ. Defaults to 0.7.
        min_gain: Least gain, ≥ 0. Defaults to 1e-5.
        max_gain: Largest gain, ≥ `min_gain`. Defaults to 1e5.
        momentum: Fraction μ of the previous step, in [0, 1). Defaults to 0.0.
        name: Name of the optimizer. Defaults to `"delta_bar_delta"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is outside its range, or `max_gain` is less than `min_gain`.

    Reference:
        Jacobs, Increased rates of convergence through learning rate adaptation, Neural Networks 1,
        1988, equations 5 and 6.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([1.0, 1.0])
        >>> optimizer = kerasopt.optimizers.DeltaBarDelta(learning_rate=0.25, kappa=1.0)
        >>> for _ in range(2):
        ...     optimizer.apply([w.numpy() * [1.0, 8.0]], [w])  # curvatures 1 and 8
        >>> [round(float(gain), 1) for gain in optimizer.state_of(w)["gain"]]
        [2.0, 0.7]
    """

    initial: ClassVar[dict[str, str]] = {"gain": "ones"}

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        kappa: float = 0.5,
        phi: float = 0.3,
        theta: float = 0.7,
        min_gain: float = 1e-5,
        max_gain: float = 1e5,
        momentum: float = 0.0,
        name: str = "delta_bar_delta",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.kappa = check_number("kappa", kappa, "[0, inf)")
        self.phi = check_number("phi", phi, "[0, 1)")
        self.theta = check_number("theta", theta, "[0, 1)")
        self.min_gain = check_number("min_gain", min_gain, "[0, inf)")
        self.max_gain = check_number("max_gain", max_gain, f"[{self.min_gain}, inf]")
        self.momentum = check_number("momentum", momentum, "[0, 1)")

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The gain γ and the mean gradient ḡ; with momentum the previous step Δw."""
        return (("gain", "mean_gradient", *(["step"] if self.momentum else [])),)

    def rule(
        self, w: Any, g: Any, learning_rate: Any, gain: Any, mean: Any, *step: Any
    ) -> tuple[Any, ...]:
        """Return -η γ g, with a fraction of the previous step."""
        agreement = mean * g
        gain = ops.where(agreement > 0, gain + self.kappa, gain)
        gain = ops.where(agreement < 0, (1 - self.phi) * gain, gain)
        gain = ops.clip(gain, self.min_gain, self.max_gain)
        mean = (1 - self.theta) * g + self.theta * mean
        move = -learning_rate * gain * g
        step = tuple(self.momentum * previous + move for previous in step)
        return step[0] if step else move, gain, mean, *step

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("kappa", "phi", "theta", "min_gain", "max_gain", "momentum")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
