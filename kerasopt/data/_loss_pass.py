"""The loss of each sample, by a pass over the data."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt._acting import ActingCallback
from kerasopt._autodiff import value_and_gradient
from kerasopt._objective import rows_of, takes_training


class LossPass(ActingCallback):
    """Tells a sampler the loss of each of its samples, at the end of each epoch."""

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self._sampler, self.training = sampler, False
        self._losses: Callable[[Any], np.ndarray] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take note that the sampler will be told."""
        self.training, self._losses = True, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the losses."""
        sampler, listed = self._sampler, len(self._sampler.outliers.indices)
        losses = self._losses = self._losses or loss_function(self.model)
        batches = [losses(batch) for batch in sampler.samples()]
        sampler.update(np.concatenate(batches)[: len(sampler.history.losses)])
        if not listed and (count := len(sampler.outliers.indices)):
            self.note(epoch + 1, f"{count} outliers")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take note that the sampler will not be told any more."""
        self.training = False

    def get_state(self) -> dict[str, Any]:
        """Return what the sampler remembers."""
        return self._sampler.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Have the sampler go on from what `get_state` returned."""
        self._sampler.set_state(state)


def loss_function(model: keras.Model) -> Callable[[Any], np.ndarray]:
    """Return a compiled function of a batch (x, y, sample_weight): the loss of each of its rows.

    The loss of a batch, J(s) = Σ s_i l_i / n + R, has the derivatives l_i / n by the factors s_i
    of the weights, whatever it is that `compile` was given. If J(s) = Σ s_i l_i / Σ s_i + R, they
    are (l_i - mean) / n, whose sum is zero, and the mean is J(1) - J(0).
    """
    variables = model.variables

    def losses(values: Any, batch: Any) -> Any:
        x, y, sample_weight = batch
        values = values or [variable.value for variable in variables]
        pairs = list(zip(variables, values, strict=True))

        def scope() -> keras.StatelessScope:
            return keras.StatelessScope(pairs, collect_losses=True)

        def total(factors: Any) -> Any:
            weights = factors[0] if sample_weight is None else factors[0] * sample_weight
            takes = {"training": False} if takes_training(model.compute_loss) else {}
            with scope():  # one for each call: metrics that follow the loss change in it
                return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, **takes)

        with scope():
            y_pred = model(x, **({"training": False} if takes_training(model.call) else {}))
        ones = ops.ones((rows_of(x),), keras.config.floatx())
        value, (slopes,) = value_and_gradient(total, [ones])
        mean, sum_of_slopes = value - total([ops.zeros_like(ones)]), ops.sum(slopes)
        is_mean_by_weight = ops.abs(sum_of_slopes) < 0.5 * ops.abs(mean)
        rest = ops.where(is_mean_by_weight, mean, ops.zeros_like(mean))
        return slopes * ops.cast(rows_of(x), slopes.dtype) + rest

    run = _compiled(model, losses)
    return lambda batch: np.asarray(ops.convert_to_numpy(run(batch)), "float64")


def _compiled(model: keras.Model, function: Any) -> Callable[[Any], Any]:
    """Return the function of the values of the model's variables and a batch, compiled."""
    if model.run_eagerly:
        return lambda batch: function((), batch)
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(function)
        return lambda batch: run([variable.value for variable in model.variables], batch)
    import tensorflow as tf

    run = tf.function(function, jit_compile=model.jit_compile, autograph=False)
    return lambda batch: run((), batch)
