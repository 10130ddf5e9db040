"""How figures leave the training step on TensorFlow: by variables of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasopt.callbacks._step_patches import Steps, loss_scale, plain, replace
from kerasopt.optimizers._devices import summed


class Ring:
    """The last figures, in variables that are written to in every so many steps only."""

    def __init__(
        self, model: keras.Model, row: Any, shape: tuple[int, int], every: int, keeps: bool
    ) -> None:
        self._row, self.every = row, every
        self._values = tf.Variable(tf.zeros(shape), trainable=False)
        self._steps = tf.Variable(tf.zeros(shape[0], tf.int64), trainable=False)
        kept = model.trainable_variables if keeps else []
        self._before = [tf.Variable(tf.zeros(w.shape, w.dtype), trainable=False) for w in kept]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps since the last reading, 0 where there is none, and their figures."""
        found = self._steps.numpy().copy(), self._values.numpy()
        self._steps.assign(tf.zeros_like(self._steps))  # an optimizer may go back to them
        return found

    def keep(self, due: tf.Tensor, weights: Sequence[Any]) -> None:
        """Keep the weights before the step, if it is one to look at."""

        def keep() -> bool:
            for copy, weight in zip(self._before, weights, strict=True):
                copy.assign(weight)
            return True

        if self._before:
            tf.cond(due, keep, lambda: False)

    def write(
        self,
        due: tf.Tensor,
        number: tf.Tensor,
        gradients: Sequence[Any],
        weights: Sequence[Any],
        scale: Any,
    ) -> None:
        """Write the figures of the step, if it is one to look at."""

        def write() -> bool:
            # The place follows from the step, so that all replicas write the same.
            place = (number - 1) // self.every % self._steps.shape[0]
            dense = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
            row = self._row(plain(dense, weights, scale), self._before, weights)
            # XLA would compile an assignment to a slice anew for each place.
            self._values.scatter_nd_update([[place]], [row])
            self._steps.scatter_nd_update([[place]], [number])
            return True

        tf.cond(due, write, lambda: False)


def install(model: keras.Model, rings: list[Ring]) -> Callable[[], None]:
    """Let the steps of a model write to rings; return what undoes it."""
    optimizer = model.optimizer
    original, steps = optimizer.apply, Steps(optimizer)

    def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        weights = list(trainable_variables or model.trainable_variables)
        count = tf.cast(tf.identity(steps.count), tf.int64)
        due = [steps.is_due(count, ring.every) for ring in rings]
        scale = loss_scale(optimizer)
        for ring, is_due in zip(rings, due, strict=True):
            ring.keep(is_due, weights)
        original(grads, trainable_variables)
        replica = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
        gradients = summed(grads) if replica else grads
        for ring, is_due in zip(rings, due, strict=True):
            ring.write(is_due, steps.number(count), gradients, weights, scale)

    undo = replace(optimizer, "apply", apply)
    model.make_train_function(force=True)
    return undo
