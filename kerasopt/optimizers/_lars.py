"""A rate for each layer, from the norms of its weights and of its gradient."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_flag, check_number
from kerasopt.optimizers import _kernels
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class LARS(RuleOptimizer):
    """Layer-wise adaptive rate scaling: momentum for very large batches.

    Every layer's step is a set fraction of the norm of its weights, whatever its gradient's norm.

        λ  = ρ ‖w‖ / (‖g‖ + β ‖w‖ + ε)                 ρ = trust_coefficient, β = weight_decay
        Δw ← μ Δw - η λ (g + β w)                      μ = momentum
        w  ← w + Δw                                    with `nesterov`: w + μ Δw - η λ (g + β w)

    λ = 1 where ‖w‖ or ‖g‖ is zero. `weight_decay` is part of the gradient here, as in the source,
    not decoupled as in other Keras optimizers; `exclude_from_weight_decay` exempts weights of it.

    Args:
        learning_rate: η ≥ 0: a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            callable. Defaults to 1.0.
        momentum: μ in [0, 1), the fraction of the previous step. Defaults to 0.9.
        trust_coefficient: ρ > 0, the length of a step relative to the weights. Defaults to 0.001.
        epsilon: ε ≥ 0. Defaults to 0.
        nesterov: Whether to look a step ahead. Defaults to False.
        name: Name of the optimizer. Defaults to `"lars"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Reference:
        You, Gitman and Ginsburg, Large batch training of convolutional networks, 2017, algorithm 1.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> w = keras.Variable([3.0, 4.0])  # of norm 5
        >>> kerasopt.optimizers.LARS(trust_coefficient=0.1).apply([np.array([0.0, 77.0])], [w])
        >>> w.numpy().round(4).tolist()
        [3.0, 3.5]
    """

    slots = (("step",),)
    elementwise = False
    reads_weights = True
    decoupled = False
    has_kernel = True

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        nesterov: bool = False,
        name: str = "lars",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.momentum = check_number("momentum", momentum, "[0, 1)")
        self.trust_coefficient = check_number("trust_coefficient", trust_coefficient, "(0, inf)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")
        self.nesterov = check_flag("nesterov", nesterov)

    def rule(self, w: Any, g: Any, coefficients: Any, step: Any) -> tuple[Any, Any]:
        """Return Δw, or with `nesterov` what it will be."""
        rate, g = self._local(w, g, *coefficients)
        step = self.momentum * step - rate * g
        return self.momentum * step - rate * g if self.nesterov else step, step

    def kernel(self, w: Any, g: Any, coefficients: Any, step: Any) -> None:
        """Do the same in place."""
        rate, g = self._local(w, g, *coefficients)
        _kernels.heavy_ball(w, g, rate, step, self.momentum, self.nesterov)

    def _local(self, w: Any, g: Any, learning_rate: Any, decay: float) -> tuple[Any, Any]:
        """Return η λ and g + β w."""
        size, slope = norm(w), norm(g)
        trust = self.trust_coefficient * size / (slope + decay * size + self.epsilon)
        trust = ops.where((size > 0) & (slope > 0), trust, 1)
        return learning_rate * trust, g + decay * w if decay else g

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("momentum", "trust_coefficient", "epsilon", "nesterov")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def norm(tensor: Any) -> Any:
    """Return the Euclidean norm of all elements."""
    flat = ops.reshape(tensor, (1, -1))
    return ops.sqrt(ops.matmul(flat, ops.transpose(flat))[0, 0])  # a pass, without the squares
