"""The gradient at the worst point nearby."""

from typing import Any

import keras
from keras import ops

from kerasopt._objective import objective
from kerasopt._validation import check_flag, check_number
from kerasopt.optimizers._devices import summed
from kerasopt.optimizers._flat import norm
from kerasopt.optimizers._objective_optimizer import check_no_accumulation, check_precision
from kerasopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable("kerasopt")
class SAM(OptimizerWrapper):
    """Sharpness-aware minimisation: looks for weights around which the loss is low as well.

    Takes the step of any optimizer with the gradient at the point where the loss is highest nearby,
    so it costs two gradients. Flat minima generalise better where data are few or labels are wrong.

        e = ρ g / ‖g‖                 adaptive: e = ρ w² g / ‖w g‖
        w ← step of `optimizer` with ∇J(w + e)

    The model must be prepared: `kerasopt.Model`, or `kerasopt.prepare(model)`. Moving statistics
    are renewed once a step, at w, and both gradients are of the same random draws.

    Args:
        optimizer: Any Keras optimizer, or its name.
        rho: ρ ≥ 0, the radius.
        adaptive: Whether the neighbourhood is measured in units of each weight, so that it does not
            depend on their scale (ASAM, with ρ about ten times larger).
        name: Name of the optimizer.

    Raises:
        TypeError: If `optimizer` is not an optimizer.
        ValueError: If `rho` is negative, or `optimizer` accumulates gradients.

    Reference:
        Foret, Kleiner, Mobahi & Neyshabur, Sharpness-aware minimization for efficiently improving
        generalization, 2021, equation 2; adaptive: Kwon, Kim, Park & Choi, ASAM, 2021, equation 10.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.SAM("adam"), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    needs_objective = True

    def __init__(
        self, optimizer: Any, rho: float = 0.05, adaptive: bool = False, name: str = "sam"
    ) -> None:
        super().__init__(optimizer, name)
        check_no_accumulation("SAM", self.optimizer.gradient_accumulation_steps)
        self.rho = check_number("rho", rho, "[0, inf)")
        self.adaptive = check_flag("adaptive", adaptive)

    def check_model(self, model: keras.Model) -> None:
        """Refuse a model whose gradients must be scaled."""
        check_precision("SAM", model, ("float16",))

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        given = [i for i, g in enumerate(gradients) if g is not None]
        here = objective("SAM").of([weights[i] for i in given])
        slopes = summed([gradients[i] for i in given])
        units = [ops.abs(w) if self.adaptive else ops.ones_like(w) for w in here.values]
        scaled = [u * ops.cast(g, u.dtype) for u, g in zip(units, slopes, strict=True)]
        size = norm(scaled)
        length = self.rho / ops.where(size > 0, size, 1.0)
        ahead = [
            w + ops.cast(length, s.dtype) * u * s
            for w, u, s in zip(here.values, units, scaled, strict=True)
        ]
        scale = self.optimizer.loss_scale_factor or 1.0  # which the optimizer divides by
        for i, g in zip(given, here.gradient(ahead), strict=True):
            gradients[i] = scale * g
        self.optimizer.apply(gradients, weights)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        return {**super().get_config(), "rho": self.rho, "adaptive": self.adaptive}
