"""A learning rate for each weight: the inverse of its second derivative."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_number
from kerasopt.optimizers._diagonal import DiagonalOptimizer
from kerasopt.optimizers._rule import LearningRate, bias


@keras.saving.register_keras_serializable("kerasopt")
class StochasticDiagonalLM(DiagonalOptimizer):
    """Stochastic diagonal Levenberg-Marquardt: each weight has the rate its curvature asks for.

    Along one weight the best rate is the inverse of the second derivative. Here it is estimated
    every few steps, with a floor, so that weights of little curvature do not jump.

        d = r ⊙ r, or s ⊙ H s         of diagonal G or H in the mean, every `update_every` steps
        h ← decay h + (1 - decay) d   corrected for its start at zero
        η_i = η / (max(h_i, 0) + μ)   |h_i| for the Hessian
        w_i ← w_i - η_i g_i

    The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable. 1 would be Newton's step if each
            weight was alone; n weights that pull alike need about 1/n.
        mu: μ > 0, in units of h. The largest rate is η / μ, which deep and convolutional networks
            want small: 0.25 by default.
        decay: Memory of h, in [0, 1).
        update_every: Steps from one measurement of d to the next.
        estimator: `"gauss_newton"`, which is never negative, and within √2 of its size right for
            each weight, r = Jᵀ (∇²L)^½ ε with random signs ε; or `"hutchinson"`, of the Hessian,
            with random signs s, whose error grows with the number of weights.
        seed: Seed of the signs.
        name: Name of the optimizer.
        **kwargs: As in `ObjectiveOptimizer`.

    Raises:
        ValueError: If a number is outside its range.

    Reference:
        LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 9.1; estimates by signs:
        Bekas, Kokiopoulou & Saad, An estimator for the diagonal of a matrix, 2007.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.StochasticDiagonalLM(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.005,
        mu: float = 0.02,
        decay: float = 0.9,
        update_every: int = 50,
        estimator: str = "gauss_newton",
        seed: int | None = None,
        name: str = "stochastic_diagonal_lm",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, update_every, estimator, seed, name, **kwargs)
        self.mu = check_number("mu", mu, "(0, inf)")
        self.decay = check_number("decay", decay, "[0, 1)")

    def build(self, variables: list[Any]) -> None:
        """Create h."""
        if not self.built:
            super().build(variables)
            self.curvatures = self.add_states(variables, "curvature")

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return -g / (ĥ + μ)."""
        new = self.averages(objective, self.decay, self.curvatures)
        self.renew(self.curvatures, new)
        count = ops.cast(self.iterations // self.update_every + 1, "float32")
        correction = bias(self.decay, count)
        size = ops.abs if self.estimator == "hutchinson" else ops.relu

        def move(g: Any, h: Any) -> Any:
            c = ops.cast(correction, g.dtype)
            return -c * g / (size(h) + c * self.mu)  # one division, not two

        return [move(*each) for each in zip(gradients, new, strict=True)]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        return {**super().get_config(), "mu": self.mu, "decay": self.decay}
