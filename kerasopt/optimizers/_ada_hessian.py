"""Adam with second derivatives in place of squared gradients."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_flag, check_number
from kerasopt.optimizers._diagonal import DiagonalOptimizer
from kerasopt.optimizers._rule import LearningRate, bias


@keras.saving.register_keras_serializable("kerasopt")
class AdaHessian(DiagonalOptimizer):
    """AdaHessian: Adam that divides by the curvature of each weight, not by its gradients.

        d = s ⊙ H s                      random signs s; averaged over each filter of a convolution
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) d²           in the steps that measure d
        w ← w - η m̂ / (v̂^(k/2) + ε)      m̂, v̂: corrected for their start at zero

    The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`. A step with a
    measurement costs about three gradients.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable.
        beta_1: Memory β₁ of the gradients, in [0, 1).
        beta_2: Memory β₂ of the curvature, in [0, 1).
        epsilon: ε ≥ 0.
        hessian_power: k in [0, 1]: 1 divides by the curvature, 0 not at all.
        spatial_averaging: Whether |d| is averaged over the places within a filter of two dimensions
            or more: kernels of rank ≥ 4.
        update_every: Steps from one measurement of d to the next.
        estimator: `"hutchinson"`, of the Hessian, or `"gauss_newton"`.
        seed: Seed of the signs.
        name: Name of the optimizer.
        **kwargs: As in `ObjectiveOptimizer`; `weight_decay` is decoupled.

    Raises:
        ValueError: If a number is outside its range.

    Reference:
        Yao, Gholami, Shen, Mustafa, Keutzer & Mahoney, AdaHessian, 2021, algorithm 1.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.AdaHessian(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-4,
        hessian_power: float = 1.0,
        spatial_averaging: bool = True,
        update_every: int = 1,
        estimator: str = "hutchinson",
        seed: int | None = None,
        name: str = "ada_hessian",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, update_every, estimator, seed, name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")
        self.hessian_power = check_number("hessian_power", hessian_power, "[0, 1]")
        self.spatial_averaging = check_flag("spatial_averaging", spatial_averaging)

    def build(self, variables: list[Any]) -> None:
        """Create m and v."""
        if not self.built:
            super().build(variables)
            self.momentums = self.add_states(variables, "momentum")
            self.velocities = self.add_states(variables, "velocity")

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return -m̂ / (v̂^(k/2) + ε)."""
        ms, vs = self.momentums, self.velocities
        m = [self.beta_1 * m + (1 - self.beta_1) * g for m, g in zip(ms, gradients, strict=True)]
        v = self.averages(objective, self.beta_2, vs, lambda d: self._average(d) ** 2)
        self.renew([*ms, *vs], [*m, *v])
        step = ops.cast(self.iterations, "float32")
        bias_1 = bias(self.beta_1, step + 1)
        bias_2 = bias(self.beta_2, step // self.update_every + 1)

        def move(m: Any, v: Any) -> Any:
            size = (v / ops.cast(bias_2, v.dtype)) ** (self.hessian_power / 2)
            return -m / ops.cast(bias_1, m.dtype) / (size + self.epsilon)

        return [move(*each) for each in zip(m, v, strict=True)]

    def _average(self, d: Any) -> Any:
        if len(d.shape) < 4 or not self.spatial_averaging:
            return d
        places = tuple(range(len(d.shape) - 2))
        return ops.mean(ops.abs(d), axis=places, keepdims=True) * ops.ones_like(d)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "epsilon", "hessian_power", "spatial_averaging")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
