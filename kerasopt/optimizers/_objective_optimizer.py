"""The frame of every optimizer that asks for more than the gradient."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from kerasopt._objective import Objective, objective
from kerasopt.optimizers._devices import everywhere, summed
from kerasopt.optimizers._rule import LearningRate, check_rate


def check_precision(name: str, model: keras.Model, refused: Sequence[str]) -> None:
    """Refuse a model whose layers compute in one of some types."""
    for layer in model._flatten_layers():
        if layer.compute_dtype in refused:
            raise ValueError(
                f"`{name}` compares values of the loss, or derives it twice, which {refused} are "
                "too coarse for. Let the layers compute in float32 or float64, by "
                "`keras.config.set_dtype_policy`. "
                f"Received: layer '{layer.name}' of compute_dtype={layer.compute_dtype!r}"
            )


def check_no_accumulation(name: str, steps: Any) -> None:
    """Refuse Keras' accumulation of gradients."""
    if steps is not None:
        raise ValueError(
            f"`gradient_accumulation_steps` must be None: `{name}` looks at the loss of one batch, "
            f"not only at its gradient. Use larger batches. "
            f"Received: gradient_accumulation_steps={steps!r}"
        )


def of_all(weights: Sequence[Any], gradients: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """Return the gradients of the given weights, and zeros for the others, in their types."""
    of = {id(w): g for w, g in zip(given, gradients, strict=True)}
    return [ops.cast(of[id(w)] if id(w) in of else ops.zeros(w.shape), w.dtype) for w in weights]


class ObjectiveOptimizer(keras.optimizers.Optimizer):
    """An optimizer that sees the loss of the batch as a function of the weights.

    Derive from it and write `step`, to make an optimizer of your own that re-evaluates the loss or
    multiplies by its second derivatives. The model must be prepared: `kerasopt.Model`,
    `kerasopt.Sequential` or `kerasopt.prepare(model)`.

        w ← w + η Δw,  Δw = step(objective, gradients)

    `step` is called once a step; under the strategies of `kerasopt.strategies` once for all
    replicas, and the objective is that of the global batch.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable.
        name: Name of the optimizer.
        **kwargs: `weight_decay` (decoupled), `clipnorm`, `clipvalue`, `global_clipnorm` (of the
            gradient that `step` gets), `use_ema` and so on, as in `keras.optimizers.Optimizer`.

    Reference:
        H v: Pearlmutter, Fast exact multiplication by the Hessian, 1994; G v: Schraudolph, Fast
        curvature matrix-vector products for second-order gradient descent, 2002.

    Example:
        >>> import keras, kerasopt
        >>> class SteepestDescent(kerasopt.optimizers.ObjectiveOptimizer):
        ...     def step(self, objective, gradients):
        ...         curved = objective.hvp(gradients)
        ...         dot = lambda a, b: sum(keras.ops.sum(x * y) for x, y in zip(a, b))
        ...         length = dot(gradients, gradients) / dot(gradients, curved)
        ...         return [-length * g for g in gradients]
        >>> w = keras.Variable([4.0, 0.0])
        >>> optimizer = SteepestDescent()
        >>> with kerasopt.Objective(lambda: keras.ops.sum(3.0 * w * w), [w]) as objective:
        ...     optimizer.apply(objective.gradient(), [w])
        >>> bool(abs(w.numpy()).max() < 1e-6)
        True
    """

    needs_objective = True
    refused: ClassVar[Sequence[str]] = ("float16", "bfloat16")

    def __init__(
        self, learning_rate: LearningRate = 1.0, name: str | None = None, **kwargs: Any
    ) -> None:
        check_no_accumulation(type(self).__name__, kwargs.get("gradient_accumulation_steps"))
        super().__init__(learning_rate=check_rate(learning_rate), name=name, **kwargs)

    def check_model(self, model: keras.Model) -> None:
        """Refuse a model whose layers compute too coarsely."""
        check_precision(type(self).__name__, model, self.refused)

    def step(self, objective: Objective, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return Δw for each of `objective.variables`."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `step`.")

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        weights = self._trainable_variables
        here = objective(type(self).__name__).of(weights)
        steps = self.step(here, summed(of_all(weights, grads, trainable_variables)))
        everywhere(self._move, weights, list(steps), learning_rate)

    def _move(self, weights: Sequence[Any], steps: Sequence[Any], learning_rate: Any) -> None:
        for weight, step in zip(weights, steps, strict=True):
            self.assign_add(weight, ops.cast(learning_rate, step.dtype) * step)
