"""How figures leave the training step on JAX: a step that returns them, in the place of some."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np

from kerasopt.callbacks._step_patches import Steps, loss_scale, plain, replace


class Ring:
    """The last figures, on the device until they are read."""

    def __init__(
        self, model: keras.Model, row: Any, shape: tuple[int, int], every: int, keeps: bool
    ) -> None:
        self.row, self.every, self._shape = row, every, shape
        self.rows: deque[tuple[Any, Any]] = deque(maxlen=shape[0])

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps since the last reading and their figures."""
        steps = np.array([int(step) for step, _ in self.rows], "int64")
        values = np.array([row for _, row in self.rows]).reshape(-1, self._shape[1])
        self.rows.clear()
        return steps, values


def install(model: keras.Model, rings: list[Ring]) -> Callable[[], None]:
    """Let the steps of a model write to rings; return what undoes it."""
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "Gradients can be looked at on JAX without `keras.distribution` only. Received: "
            f"{keras.distribution.distribution()}. Take the callback out, or train on one device."
        )
    make, step = model.make_train_function, _TrainStep(model, rings)

    def make_train_function(force: bool = False) -> None:
        """Have Keras compile nothing: the step does it, and anew if it is forced."""
        before, model.jit_compile = model.jit_compile, False
        make(force)
        model.jit_compile = before
        if force:
            step.compiled.clear()

    stack = contextlib.ExitStack()
    stack.callback(lambda: model.make_train_function(force=True))
    stack.callback(replace(model, "train_step", step))
    stack.callback(replace(model, "make_train_function", make_train_function))
    model.make_train_function(force=True)
    return stack.close


class _TrainStep:
    """A training step that writes to rings; one is compiled for each set of those to write to."""

    def __init__(self, model: keras.Model, rings: list[Ring]) -> None:
        self._model, self._rings, self._original = model, rings, model.train_step
        self._compiles = model.jit_compile and not model.run_eagerly
        self._steps = Steps(model.optimizer)
        variables = model.optimizer.variables
        self._place = next(i for i, v in enumerate(variables) if v is self._steps.count)
        self._count, self._left = 0, None
        self.compiled: dict[tuple[Ring, ...], Any] = {}

    def __call__(self, state: Any, data: Any) -> Any:
        """Run the step."""
        count = state[2][self._place]
        if count is not self._left:  # the optimizer is not where the last step has left it
            self._count = int(count)
        due = tuple(each for each in self._rings if not self._steps.wait(self._count, each.every))
        self._count += 1
        logs, state, rows = self._step_for(due)(state, data)
        self._left = state[2][self._place]
        for ring, row in zip(due, rows, strict=True):
            ring.rows.append(row)
        return logs, state

    def _step_for(self, due: tuple[Ring, ...]) -> Any:
        if due not in self.compiled:
            rows = [ring.row for ring in due]
            step = functools.partial(_looking_step, self._model, self._steps, self._original, rows)
            self.compiled[due] = jax.jit(step, donate_argnums=0) if self._compiles else step
        return self.compiled[due]


def _looking_step(
    model: keras.Model, steps: Steps, step: Any, functions: list[Any], state: Any, data: Any
) -> tuple[Any, Any, list[Any]]:
    """Run a training step; return its results, and its number with what each function says."""
    optimizer = model.optimizer
    rows: list[Any] = []
    apply = optimizer.stateless_apply

    def stateless_apply(
        optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> Any:
        weights, new = apply(optimizer_variables, grads, trainable_variables)
        with keras.StatelessScope(list(zip(optimizer.variables, optimizer_variables, strict=True))):
            number = steps.number(keras.ops.convert_to_tensor(steps.count))
            gradients = plain(grads, trainable_variables, loss_scale(optimizer))
        rows[:] = [(number, row(gradients, trainable_variables, weights)) for row in functions]
        return weights, new

    undo = replace(optimizer, "stateless_apply", stateless_apply)
    try:
        logs, state = step(state, data)
    finally:
        undo()
    return logs, state, rows
