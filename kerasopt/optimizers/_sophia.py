"""Momentum divided by curvature, with a limit for every weight."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_number
from kerasopt.optimizers._diagonal import DiagonalOptimizer
from kerasopt.optimizers._rule import LearningRate


@keras.saving.register_keras_serializable("kerasopt")
class Sophia(DiagonalOptimizer):
    """Sophia: momentum over curvature, where the curvature is known; else a step of fixed length.

        m ← β₁ m + (1 - β₁) g
        h ← β₂ h + (1 - β₂) d            every `update_every` steps, d of diag H or G in the mean
        w ← w - η clip(m / max(γ h, ε), -1, 1)

    No weight moves more than η in a step; one of negative or unknown curvature moves by η.

    The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable.
        beta_1: Memory β₁ of the gradients, in [0, 1).
        beta_2: Memory β₂ of the curvature, in [0, 1).
        gamma: γ > 0: the larger, the fewer weights are clipped.
        epsilon: ε > 0.
        update_every: Steps from one measurement of d to the next.
        estimator: `"hutchinson"` (Sophia-H): s ⊙ H s with random signs s; or `"gauss_newton"`
            (Sophia-G, with random signs in place of random labels, so for any loss).
        seed: Seed of the signs.
        name: Name of the optimizer.
        **kwargs: As in `ObjectiveOptimizer`; `weight_decay` is decoupled.

    Raises:
        ValueError: If a number is outside its range.

    Reference:
        Liu, Li, Hall, Liang & Ma, Sophia: A scalable stochastic second-order optimizer for language
        model pre-training, 2023, algorithm 3.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.Sophia(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.96,
        beta_2: float = 0.99,
        gamma: float = 0.01,
        epsilon: float = 1e-12,
        update_every: int = 10,
        estimator: str = "hutchinson",
        seed: int | None = None,
        name: str = "sophia",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, update_every, estimator, seed, name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.gamma = check_number("gamma", gamma, "(0, inf)")
        self.epsilon = check_number("epsilon", epsilon, "(0, inf)")

    def build(self, variables: list[Any]) -> None:
        """Create m and h."""
        if not self.built:
            super().build(variables)
            self.momentums = self.add_states(variables, "momentum")
            self.curvatures = self.add_states(variables, "curvature")

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return -clip(m / max(γ h, ε), -1, 1)."""
        ms, hs = self.momentums, self.curvatures
        m = [self.beta_1 * m + (1 - self.beta_1) * g for m, g in zip(ms, gradients, strict=True)]
        h = self.averages(objective, self.beta_2, hs)
        self.renew([*ms, *hs], [*m, *h])
        return [
            -ops.clip(m / ops.maximum(self.gamma * h, self.epsilon), -1, 1)
            for m, h in zip(m, h, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "gamma", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
