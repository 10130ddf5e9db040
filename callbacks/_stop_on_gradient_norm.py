"""Stopping where the gradient has come to nothing."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from kerasopt._acting import ActingCallback
from kerasopt._validation import check_number
from kerasopt.callbacks._every import position
from kerasopt.callbacks._gradient_tap import GradientTap
from kerasopt.optimizers._flat import norm


class StopOnGradientNorm(ActingCallback):
    """Stops training when the gradient is shorter than a threshold.

        until ‖∇J(w)‖ < θ        θ = threshold, the norm over all weights

    This is how gradient descent ends: where ∇J(w) = 0 it has no direction to go. Use it for
    training by whole batches, or by second-order methods, that is meant to reach a minimum of the
    training error; where that of the validation set is sought, use `EarlyStopping`. The gradient is
    the one that the optimizer is given in a step, of the whole batch under any strategy, before it
    is clipped. Of a mini-batch it is noisy, and may be short by chance or stay long at a minimum.

    It is looked at after each step, for which training waits until the step is done; with
    `steps_per_execution`, after each execution at all of its steps. On TensorFlow's own strategies,
    such as `MirroredStrategy`, the gradients are added up over the replicas once more.

    Args:
        threshold: θ > 0.

    Attributes:
        events: The stop, for the marks of `LearningCurve`.

    Raises:
        TypeError: `threshold` is not a number.
        ValueError: `threshold` is not > 0; in `fit`, on JAX: `keras.distribution` is in use.

    Reference:
        Duda, Hart and Stork, Pattern Classification, 2nd edition, 2000, algorithms 1 and 2 of
        chapter 6; X. Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.25), "mse")
        >>> stop = kerasopt.callbacks.StopOnGradientNorm(1e-3)
        >>> x = np.array([[-1.0], [1.0]])
        >>> history = model.fit(x, 2 * x, epochs=99, verbose=0, callbacks=[stop])
        >>> 5 < len(history.epoch) < 20
        True
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = check_number("threshold", threshold, "(0, inf)")
        self._tap: GradientTap | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look at the gradients of every step."""
        self.on_train_end()  # where the training before was broken off
        rows = self.model.steps_per_execution
        self._tap = GradientTap(self.model, _norm, (rows, 1), every=1, keeps=False)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop if the gradient of a step was short."""
        assert self._tap is not None
        _, norms = self._tap.read()
        if (norms < self.threshold).any():
            self.model.stop_training = True
            now = position(self._epoch, batch, self.params["steps"])
            self.note(now, f"stop: ‖∇J‖ < {self.threshold:g}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the step be as it was."""
        if self._tap is not None:
            self._tap.close()
            self._tap = None


def _norm(gradients: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> Any:
    return ops.reshape(norm(gradients), (1,))
