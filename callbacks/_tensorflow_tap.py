"""How figures leave the training step on TensorFlow: by variables of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasopt.callbacks._step_patches import loss_scale, plain, replace
from kerasopt.optimizers._devices import summed


class Ring:
    """The last figures, in variables that are written to in every so many steps only."""

    def __init__(
        self, model: keras.Model, row: Any, shape: tuple[int, int], every: int, keeps: bool
    ) -> None:
        self._row, self._every = row, every
        self._values = tf.Variable(tf.zeros(shape), trainable=False)
        self._steps = tf.Variable(tf.zeros(shape[0], tf.int64), trainable=False)
        kept = model.trainable_variables if keeps else []
        self._before = [tf.Variable(tf.zeros(w.shape, w.dtype), trainable=False) for w in kept]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps, 0 where there is none, and their figures."""
        return self._steps.numpy(), self._values.numpy()

    def keep(self, step: tf.Tensor, weights: Sequence[Any]) -> None:
        """Keep the weights before the step, if it is one to look at."""

        def keep() -> bool:
            for copy, weight in zip(self._before, weights, strict=True):
                copy.assign(weight)
            return True

        if self._before:
            tf.cond(step % self._every == 0, keep, lambda: False)

    def write(
        self, step: tf.Tensor, gradients: Sequence[Any], weights: Sequence[Any], scale: Any
    ) -> None:
        """Write the figures of the step, if it is one to look at."""

        def write() -> bool:
            # The place follows from the step, so that all replicas write the same.
            place = step // self._every % self._steps.shape[0]
            dense = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
            row = self._row(plain(dense, weights, scale), self._before, weights)
            self._values[place].assign(row)
            self._steps[place].assign(step + 1)
            return True

        tf.cond(step % self._every == 0, write, lambda: False)


def install(model: keras.Model, rings: list[Ring]) -> Callable[[], None]:
    """Let the steps of a model write to rings; return what undoes it."""
    optimizer = model.optimizer
    original = optimizer.apply

    def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        weights = list(trainable_variables or model.trainable_variables)
        step = tf.cast(tf.identity(optimizer.iterations), tf.int64)
        scale = loss_scale(optimizer)
        for ring in rings:
            ring.keep(step, weights)
        original(grads, trainable_variables)
        replica = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
        gradients = summed(grads) if replica else grads
        for ring in rings:
            ring.write(step, gradients, weights, scale)

    undo = replace(optimizer, "apply", apply)
    model.make_train_function(force=True)
    return undo
