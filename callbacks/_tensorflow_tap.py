"""How figures leave the training step on TensorFlow: by variables of their own."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasopt.callbacks._step_patches import Steps, loss_scale, plain, replace
from kerasopt.optimizers._devices import summed


class Ring:
    """The last figures, in variables that are written to in every so many steps only.

    Attributes:
        idle: How many of the next executions have surely no step to look at.
    """

    def __init__(
        self, model: keras.Model, row: Any, shape: tuple[int, int], every: int, keeps: bool
    ) -> None:
        self._row, self.every, self.idle = row, every, 0
        self._values = tf.Variable(tf.zeros(shape), trainable=False)
        self._steps = tf.Variable(tf.zeros(shape[0], tf.int64), trainable=False)
        kept = model.trainable_variables if keeps else []
        self._before = [tf.Variable(tf.zeros(w.shape, w.dtype), trainable=False) for w in kept]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps since the last reading, 0 where there is none, and their figures."""
        found = self._steps.numpy().copy(), self._values.numpy()
        self._steps.assign(tf.zeros_like(self._steps))  # an optimizer may go back to them
        self.idle = 0
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
    functions = _Functions(model, rings)
    stack = contextlib.ExitStack()
    stack.callback(functions.take_back)
    stack.callback(replace(model.optimizer, "apply", functions.apply))
    stack.callback(replace(model, "make_train_function", functions.make))
    functions.make()
    return stack.close


class _Functions:
    """Two training functions: one that writes to rings, and for all other steps the plain one.

    To ask in each step whether it is one to look at costs some per cent of a short step.
    """

    def __init__(self, model: keras.Model, rings: list[Ring]) -> None:
        self._model, self._rings, self._steps = model, rings, Steps(model.optimizer)
        self._apply, self._make = model.optimizer.apply, model.make_train_function
        self._plain, self._looks = model.train_function, False

    def make(self, force: bool = False) -> None:
        """Have Keras make both, the plain one if there is none or it is forced."""
        if self._model.train_function is not None:  # else `compile` has dropped the plain one too
            self.take_back()
        self._make(force)
        self._plain = self._model.train_function
        self._make(force=True)
        self._looking, self._model.train_function = self._model.train_function, self._run

    def take_back(self) -> None:
        """Give the model the plain one."""
        self._model.train_function = self._plain

    def _run(self, iterator: Any) -> Any:
        """Run the steps of an execution."""
        if all(ring.idle for ring in self._rings):
            for ring in self._rings:
                ring.idle -= 1
            return self._plain(iterator)
        self._looks = True
        try:
            logs = self._looking(iterator)
        finally:
            self._looks = False
        count = int(tf.identity(self._steps.count))
        for ring in self._rings:
            ring.idle = self._steps.wait(count, ring.every) // self._model.steps_per_execution
        return logs

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take the optimizer's step, and write to the rings in the function that does so."""
        if not self._looks:
            self._apply(grads, trainable_variables)
            return
        weights = list(trainable_variables or self._model.trainable_variables)
        count = tf.cast(tf.identity(self._steps.count), tf.int64)
        due = [self._steps.wait(count, ring.every) == 0 for ring in self._rings]
        scale = loss_scale(self._model.optimizer)
        for ring, is_due in zip(self._rings, due, strict=True):
            ring.keep(is_due, weights)
        self._apply(grads, trainable_variables)
        replica = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
        gradients = summed(grads) if replica else grads
        for ring, is_due in zip(self._rings, due, strict=True):
            ring.write(is_due, self._steps.number(count), gradients, weights, scale)
