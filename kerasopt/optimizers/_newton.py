"""Newton's method with the whole matrix of second derivatives."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_flag, check_number
from kerasopt.optimizers._devices import in_turn
from kerasopt.optimizers._flat import ROUNDING, ravel, unravel
from kerasopt.optimizers._objective_optimizer import ObjectiveOptimizer
from kerasopt.optimizers._rule import LearningRate

LARGEST = 5000  # weights: a matrix of 100 MB in float32


@keras.saving.register_keras_serializable("kerasopt")
class Newton(ObjectiveOptimizer):
    """Newton's method: a jump to where the local quadratic has its minimum.

    For models of a few hundred weights, and to see what curvature does: one step solves a
    quadratic of any condition. The plain method goes to the nearest point where the gradient is
    zero, which may be a saddle or a maximum; `saddle_free` turns the steps along directions of
    negative curvature round, so that they lead away from it.

        H = V diag(λ) Vᵀ            H v from the objective, one product for each weight
        λ ← |λ|                     where `saddle_free`
        w ← w - η V (λ + μ)⁻¹ Vᵀ g  directions in which λ + μ is zero are left alone

    The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable. 1 is Newton's own step.
        damping: μ ≥ 0. Shortens the steps along directions of little curvature.
        saddle_free: Whether to take |λ| in place of λ.
        name: Name of the optimizer.
        **kwargs: As in `ObjectiveOptimizer`.

    Raises:
        ValueError: If `damping` is negative, or the model has more than 5,000 weights.

    Reference:
        Dauphin et al., Identifying and attacking the saddle point problem in high-dimensional
        non-convex optimization, 2014, algorithm 1, here in the whole space.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([1.0, 0.125])
        >>> optimizer = kerasopt.optimizers.Newton()
        >>> with kerasopt.Objective(lambda: w[0] ** 2 - 0.5 * w[1] ** 2, [w]) as objective:
        ...     optimizer.apply(objective.gradient(), [w])  # to the saddle
        >>> bool(abs(w.numpy()).max() < 1e-6)
        True
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        damping: float = 0.0,
        saddle_free: bool = False,
        name: str = "newton",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name, **kwargs)
        self.damping = check_number("damping", damping, "[0, inf)")
        self.saddle_free = check_flag("saddle_free", saddle_free)

    def build(self, variables: list[Any]) -> None:
        """Check the number of weights."""
        if self.built:
            return
        count = sum(math.prod(variable.shape) for variable in variables)
        if count > LARGEST:
            raise ValueError(
                f"`Newton` computes a matrix with a row for each weight, of which there must be at "
                f"most {LARGEST}: use `NewtonCG`. Received: {count} weights"
            )
        super().build(variables)

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the step to the minimum of the damped quadratic."""
        g = ravel(gradients)

        def row(unit: Any) -> Any:
            return ravel(objective.hvp(unravel(unit, gradients)))

        hessian = in_turn(row, ops.eye(g.shape[0], dtype=g.dtype))
        values, vectors = ops.eigh((hessian + ops.transpose(hessian)) / 2)
        values = (ops.abs(values) if self.saddle_free else values) + self.damping
        size = ops.abs(values)
        zero = (
            size <= ops.max(size) * g.shape[0] * ROUNDING[keras.backend.standardize_dtype(g.dtype)]
        )
        inverse = ops.where(zero, 0.0, 1.0 / ops.where(zero, 1.0, values))
        step = ops.matmul(vectors, inverse * ops.matmul(ops.transpose(vectors), g))
        return unravel(-step, gradients)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        own = {"damping": self.damping, "saddle_free": self.saddle_free}
        return {**super().get_config(), **own}
