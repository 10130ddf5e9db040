"""Newton's method without the matrix: the linear system is solved by conjugate gradients."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_choice, check_count, check_number
from kerasopt.optimizers._diagonal import random_signs
from kerasopt.optimizers._flat import ROUNDING, ravel, unravel, widest
from kerasopt.optimizers._objective_optimizer import ObjectiveOptimizer
from kerasopt.optimizers._rule import LearningRate

SHORTEST = 20  # halvings of a step before it is given up
LARGEST = 1000.0  # times the first λ: beyond it training could not go on with other data


@keras.saving.register_keras_serializable("kerasopt")
class NewtonCG(ObjectiveOptimizer):
    """Hessian-free optimization: Newton steps for models of any size.

    Where the loss is a long curved valley, as in deep autoencoders and recurrent networks, one step
    goes as far as many gradient steps. Take large batches, or all the data: the matrix of a small
    batch says little of the others.

        B = G (Gauss-Newton) or H (Hessian), by products B v
        p ≈ -(B + λ)⁻¹ g            conjugate gradients, which start from the last p, made shorter
        w ← w + η α p               α = 1, ½, ¼, … until J falls by 10⁻⁴ α |gᵀp|, else 0
        ρ = (J(w + p) - J(w)) / (gᵀp + ½ pᵀ B p)
        λ ← 3/2 λ where ρ < ¼,  λ ← 2/3 λ where ρ > ¾        Levenberg and Marquardt

    λ stays where the change is lost in the rounding of J, and grows to 1000 times the first one at
    most. The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`. Each iteration
    of the conjugate gradients costs one product, which `python -m benchmarks second_order` times.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable.
        curvature: `"gauss_newton"`, which is positive semi-definite where the loss is convex in the
            outputs; or `"hessian"`, where the iterations end in the first direction of negative
            curvature, along which they go as far as if it was positive.
        damping: The first λ ≥ 0; with 0, which `preconditioner` excludes, it stays 0.
        cg_iterations: The largest number of iterations, ≥ 1.
        cg_tolerance: They end when the residual is shorter than this times ‖g‖, in [0, 1).
        preconditioner: None, or `"diagonal"`: divides by (max(d, 0) + λ)^¾, with an estimate d of
            the diagonal of B that is measured once a step by random signs.
        warm_start: By what the last p is multiplied to start from, in [0, 1).
        seed: Seed of the signs.
        name: Name of the optimizer.
        **kwargs: As in `ObjectiveOptimizer`.

    Raises:
        ValueError: If a number is outside its range, or `damping` is 0 with a preconditioner.

    Reference:
        Martens, Deep learning via Hessian-free optimization, 2010, sections 4.1, 4.4, 4.5, 4.7.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.NewtonCG(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        curvature: str = "gauss_newton",
        damping: float = 0.1,
        cg_iterations: int = 50,
        cg_tolerance: float = 0.01,
        preconditioner: str | None = None,
        warm_start: float = 0.95,
        seed: int = 0,
        name: str = "newton_cg",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name, **kwargs)
        self.curvature = check_choice("curvature", curvature, ["gauss_newton", "hessian"])
        self.damping = check_number("damping", damping, "[0, inf)")
        self.cg_iterations = check_count("cg_iterations", cg_iterations)
        self.cg_tolerance = check_number("cg_tolerance", cg_tolerance, "[0, 1)")
        self.preconditioner = check_choice("preconditioner", preconditioner, [None, "diagonal"])
        if preconditioner and not damping:
            raise ValueError(
                "`damping` must be a number > 0 with a `preconditioner`, which divides by it where "
                f"the curvature is not positive. Received: damping={damping!r}"
            )
        self.warm_start = check_number("warm_start", warm_start, "[0, 1)")
        self.seed = check_count("seed", seed, 0)

    def build(self, variables: list[Any]) -> None:
        """Create λ, the last p and the estimate of the diagonal."""
        if self.built:
            return
        super().build(variables)
        count = sum(math.prod(variable.shape) for variable in variables)
        wide = widest(variables)
        start = keras.initializers.Constant(self.damping)
        self.damping_now = self.add_variable((), start, wide, name="damping")
        self.last = self.add_variable((count,), "zeros", wide, name="last")
        if self.preconditioner:
            self.diagonal = self.add_variable((count,), "zeros", wide, name="diagonal")

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the damped Newton step, no longer than the loss falls."""
        g, damping = ravel(gradients), ops.copy(self.damping_now)
        multiply = objective.gnvp if self.curvature == "gauss_newton" else objective.hvp

        def curved(v: Any) -> Any:
            return ravel(multiply(unravel(v, gradients)))

        start = self.warm_start * self.last
        p, residual = conjugate_gradient(
            lambda v: curved(v) + damping * v,
            -g,
            start,
            self._divisor(curved, g, damping),
            self.cg_iterations,
            self.cg_tolerance,
        )
        slope = ops.sum(g * p)
        predicted = slope + 0.5 * (ops.sum(p * (-g - residual)) - damping * ops.sum(p * p))
        before = objective.loss()

        def change(length: Any) -> Any:
            steps = unravel(length * p, gradients)
            ahead = [w + step for w, step in zip(objective.values, steps, strict=True)]
            difference = objective.loss(ahead) - before
            return ops.where(ops.isfinite(difference), difference, float("inf"))

        whole = change(ops.ones_like(damping))
        length = backtracked(change, whole, slope)
        ratio = whole / predicted
        factor = ops.where(ratio > 0.75, 2 / 3, ops.where(ratio >= 0.25, 1.0, 1.5))
        rounding = ROUNDING[keras.backend.standardize_dtype(g.dtype)]
        seen = ops.abs(predicted) > 10 * rounding * ops.abs(before)
        factor = ops.where(seen, factor, 1.0)
        renewed = damping * ops.cast(factor, damping.dtype)
        self.damping_now.assign(ops.minimum(renewed, LARGEST * self.damping))
        self.last.assign(length * p)
        return unravel(length * p, gradients)

    def _divisor(self, curved: Callable[[Any], Any], g: Any, damping: Any) -> Any:
        """Return what the residual is divided by, elementwise."""
        if not self.preconditioner:
            return ops.ones_like(g)
        signs = ops.cast(random_signs(g.shape[0], self.seed, self.iterations), g.dtype)
        step = ops.cast(self.iterations, g.dtype)
        diagonal = (step * self.diagonal + signs * curved(signs)) / (step + 1)
        self.diagonal.assign(diagonal)
        return (ops.relu(diagonal) + damping) ** 0.75

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = [*("curvature", "damping", "cg_iterations", "cg_tolerance", "preconditioner")]
        names += ["warm_start", "seed"]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def conjugate_gradient(
    matrix: Callable[[Any], Any], b: Any, x: Any, divisor: Any, iterations: int, tolerance: float
) -> tuple[Any, Any]:
    """Solve A x = b from a first guess; return x and the residual b - A x.

    It ends after a direction in which A has no positive curvature: there it goes as far as if the
    curvature had the other sign.
    """
    enough = tolerance * ops.sqrt(ops.sum(b * b))
    r = b - matrix(x)
    z = r / divisor

    def unfinished(count: Any, positive: Any, x: Any, r: Any, d: Any, rz: Any) -> Any:
        left = ops.logical_and(count < iterations, ops.sqrt(ops.sum(r * r)) > enough)
        return ops.logical_and(positive, left)

    def iterate(count: Any, positive: Any, x: Any, r: Any, d: Any, rz: Any) -> tuple[Any, ...]:
        curved = matrix(d)
        curvature = ops.sum(d * curved)
        length = rz / ops.where(curvature == 0, 1.0, ops.abs(curvature))
        x, r = x + length * d, r - length * curved
        z = r / divisor
        new = ops.sum(r * z)
        return count + 1, curvature > 0, x, r, z + new / ops.where(rz > 0, rz, 1.0) * d, new

    state = (ops.zeros((), "int32"), ops.full((), True, "bool"), x, r, z, ops.sum(r * z))
    _, _, x, r, _, _ = ops.while_loop(unfinished, iterate, state)
    return x, r


def backtracked(change: Callable[[Any], Any], whole: Any, slope: Any) -> Any:
    """Return the first of 1, ½, ¼, … with which the loss falls enough, or 0."""

    def falls(length: Any, difference: Any) -> Any:
        return ops.logical_and(difference <= 1e-4 * length * slope, difference < 0)

    def shorter(length: Any, difference: Any) -> tuple[Any, Any]:
        return length / 2, change(length / 2)

    def too_long(length: Any, difference: Any) -> Any:
        return ops.logical_and(length > 2.0**-SHORTEST, ops.logical_not(falls(length, difference)))

    length, difference = ops.while_loop(too_long, shorter, (ops.ones_like(whole), whole))
    return ops.where(falls(length, difference), length, ops.zeros_like(length))
