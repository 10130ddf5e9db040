"""Steps whose length does not depend on that of the gradient."""

from typing import Any, ClassVar

import keras
from keras import ops

from kerasopt._validation import check_range
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class Rprop(RuleOptimizer):
    """Resilient backpropagation: each weight has its step length; the gradient tells only the sign.

    Where gradients vanish or explode from layer to layer, their signs still serve. It is for full
    batches: on small ones the signs are those of the noise. This is the variant iRprop⁻, which
    does not take a step back after a change of sign; `torch.optim.Rprop` takes the same path.

        Δ ← min(η⁺ Δ, Δ_max)     where g g' > 0        g' the previous gradient
        Δ ← max(η⁻ Δ, Δ_min)     where g g' < 0, and there g ← 0
        w ← w - Δ sign(g),   g' ← g

    Args:
        learning_rate: Length Δ ≥ 0 of the first step of every weight. Later the method sets the
            lengths itself; when the rate changes, by hand or as a
            `keras.optimizers.schedules.LearningRateSchedule`, all are scaled. Defaults to 0.01.
        etas: The factors (η⁻, η⁺), 0 < η⁻ < 1 < η⁺. Defaults to (0.5, 1.2).
        step_sizes: The bounds (Δ_min, Δ_max) > 0 of the lengths. Defaults to (1e-6, 50).
        name: Name of the optimizer. Defaults to `"rprop"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument is not a number or not a pair of numbers.
        ValueError: An argument is outside its range.

    Reference:
        Riedmiller and Braun, A direct adaptive method for faster backpropagation learning: the
        RPROP algorithm, 1993; Igel and Hüsken, Improving the Rprop learning algorithm, 2000,
        section 2.3 (iRprop⁻).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([1.0, 1.0])
        >>> optimizer = kerasopt.optimizers.Rprop(0.1)
        >>> for _ in range(2):
        ...     optimizer.apply([w.numpy() * [0.001, 1000.0]], [w])
        >>> [round(float(each), 2) for each in w.numpy()]
        [0.78, 0.78]
    """

    slots = (("gain", "previous_gradient"),)  # the gain is Δ / learning_rate
    initial: ClassVar[dict[str, str]] = {"gain": "ones"}

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        name: str = "rprop",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.etas = check_range("etas", etas, "(0, inf)")
        if not self.etas[0] < 1 < self.etas[1]:
            raise ValueError(f"`etas` must be a pair 0 < η⁻ < 1 < η⁺. Received: etas={etas!r}")
        self.step_sizes = check_range("step_sizes", step_sizes, "(0, inf)")

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return the rate and the bounds of the gain; there are none while the rate is zero."""
        moving, least = learning_rate > 0, ops.maximum(learning_rate, 1e-30)
        low, high = (bound / least for bound in self.step_sizes)
        return learning_rate, ops.where(moving, low, 0.0), ops.where(moving, high, float("inf"))

    def rule(
        self, w: Any, g: Any, coefficients: Any, gain: Any, previous: Any
    ) -> tuple[Any, Any, Any]:
        """Return -Δ sign(g)."""
        learning_rate, low, high = coefficients
        agreement = ops.sign(g) * ops.sign(previous)  # the product itself may underflow
        gain = ops.where(agreement < 0, self.etas[0] * gain, gain)
        gain = ops.where(agreement > 0, self.etas[1] * gain, gain)
        gain = ops.clip(gain, low, high)
        g = ops.where(agreement < 0, ops.zeros_like(g), g)
        return -learning_rate * gain * ops.sign(g), gain, g

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        return {**super().get_config(), "etas": self.etas, "step_sizes": self.step_sizes}
