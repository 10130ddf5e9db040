"""How figures leave the training step on JAX: a step that returns them, in the place of some."""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np

from kerasopt.callbacks._step_patches import loss_scale, plain, replace


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
    compiles, original = model.jit_compile and not model.run_eagerly, model.train_step
    count = int(model.optimizer.iterations)

    @functools.cache
    def step_for(due: tuple[Ring, ...]) -> Any:
        step = functools.partial(_looking_step, model, original, [ring.row for ring in due])
        return jax.jit(step, donate_argnums=0) if compiles else step

    def train_step(state: Any, data: Any) -> Any:
        nonlocal count
        due = tuple(ring for ring in rings if count % ring.every == 0)
        count += 1
        logs, state, rows = step_for(due)(state, data)
        for ring, row in zip(due, rows, strict=True):
            ring.rows.append(row)
        return logs, state

    undo = replace(model, "train_step", train_step)
    model.jit_compile = False  # which of the compiled steps it is is chosen outside of them
    model.make_train_function(force=True)
    model.jit_compile = compiles
    return undo


def _looking_step(
    model: keras.Model, step: Any, functions: list[Any], state: Any, data: Any
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
            number = keras.ops.convert_to_tensor(optimizer.iterations) + 1
            gradients = plain(grads, trainable_variables, loss_scale(optimizer))
        rows[:] = [(number, row(gradients, trainable_variables, weights)) for row in functions]
        return weights, new

    undo = replace(optimizer, "stateless_apply", stateless_apply)
    try:
        logs, state = step(state, data)
    finally:
        undo()
    return logs, state, rows
