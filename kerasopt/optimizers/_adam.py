"""Adam and AdamW as Keras has them, in fewer passes over memory."""

from typing import Any

import keras
from keras import ops

from kerasopt.optimizers import _kernels
from kerasopt.optimizers._rule import RuleOptimizer


@keras.saving.register_keras_serializable("kerasopt")
class Adam(RuleOptimizer, keras.optimizers.Adam):
    """Keras' Adam, faster: the same arguments, path and saved state.

    In graph mode, which is what `fit` runs on a CPU, Keras' own passes over memory about ten times
    a step and pays for every variable. Here large weights are moved by TensorFlow's fused kernel
    and all small ones at once. On JAX, and under `jit_compile=True`, XLA does as much for both.

        m ← m + (1 - β₁)(g - m)                        β₁ = beta_1
        v ← v + (1 - β₂)(g² - v)                       β₂ = beta_2
        w ← w - η √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)       with `amsgrad`: the largest v so far

    Weights saved by `keras.optimizers.Adam` are loaded by this class, and the other way round.

    Args:
        learning_rate: Step length η ≥ 0: a float, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable. Defaults to 0.001.
        beta_1: Decay β₁ of the mean gradient, in [0, 1). Defaults to 0.9.
        beta_2: Decay β₂ of the mean square, in [0, 1). Defaults to 0.999.
        epsilon: ε > 0, added to the root. Defaults to 1e-7.
        amsgrad: Whether to divide by the largest √v so far. Defaults to False.
        **kwargs: `name`, and what every Keras optimizer takes.

    Raises:
        ValueError: As `keras.optimizers.Adam`.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, 2015, algorithm 1;
        Reddi et al., On the convergence of Adam and beyond, 2018 (`amsgrad`).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> optimizer = kerasopt.optimizers.Adam(0.5)
        >>> optimizer.apply([2 * w], [w])
        >>> round(float(w), 4)
        0.5
    """

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The mean gradient m and the mean square v; with `amsgrad` the largest v."""
        return ("momentum", "velocity"), *([("velocity_hat",)] if self.amsgrad else [])

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """η √(1 - β₂ᵗ) / (1 - β₁ᵗ)."""
        return learning_rate * ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)

    def rule(self, w: Any, g: Any, rate: Any, m: Any, v: Any, *peak: Any) -> tuple[Any, ...]:
        """Return -α m / (√v + ε)."""
        m = m + (1 - self.beta_1) * (g - m)
        v = v + (1 - self.beta_2) * (g * g - v)
        peak = tuple(ops.maximum(p, v) for p in peak)
        return -rate * m / (ops.sqrt(*(peak or (v,))) + self.epsilon), m, v, *peak

    @property
    def has_kernel(self) -> bool:
        """TensorFlow's kernel has no `amsgrad`."""
        return not self.amsgrad

    def kernel(self, w: Any, g: Any, rate: Any, m: Any, v: Any) -> None:
        """Do the same in place."""
        _kernels.adam(w, g, rate, m, v, self.beta_1, self.beta_2, self.epsilon)


@keras.saving.register_keras_serializable("kerasopt")
class AdamW(Adam, keras.optimizers.AdamW):
    """Keras' AdamW, faster: `Adam` with decoupled weight decay.

        w ← w - η λ w                                  λ = weight_decay
        w ← w - the step of Adam

    Args:
        learning_rate: As of `Adam`. Defaults to 0.001.
        weight_decay: λ ≥ 0; `exclude_from_weight_decay` names weights that do not decay. Defaults
            to 0.004.
        beta_1: As of `Adam`. Defaults to 0.9.
        beta_2: As of `Adam`. Defaults to 0.999.
        epsilon: As of `Adam`. Defaults to 1e-7.
        amsgrad: As of `Adam`. Defaults to False.
        **kwargs: `name`, and what every Keras optimizer takes.

    Raises:
        ValueError: As `keras.optimizers.AdamW`.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, algorithm 2.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(1.0)
        >>> optimizer = kerasopt.optimizers.AdamW(0.5, weight_decay=0.1)
        >>> optimizer.apply([0 * w], [w])
        >>> round(float(w), 4)
        0.95
    """
