"""Optimizers that take part in the training step of their model, on any backend.

Keras shows an optimizer the gradient, but neither what comes before the forward pass nor the logs.
An optimizer that has `before_forward` and `figures` calls `attend` when it is built: the model that
builds it, which is found among the callers, then calls both in each of its training steps.

On TensorFlow, without a strategy, Keras builds the optimizer while it traces the first step. Then
the first call of the training function is not attended, all others are.
"""

import contextlib
import sys
import threading
import types
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras


def attend() -> None:
    """Let the calling optimizer take part in the steps of the model that is building it, if any."""
    model = _builder()
    if model is not None and not hasattr(model.train_step, "attends"):
        model.train_step = types.MethodType(_attending(model.train_step), model)
        if getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)


_now = threading.local()


def in_step() -> bool:
    """Return whether an attended step is running, in this thread."""
    return getattr(_now, "in_step", False)


@contextlib.contextmanager
def attending(model: keras.Model) -> Iterator[dict[str, Any]]:
    """Let the participants act before a step, and fill a dictionary for the logs after it."""
    logs: dict[str, Any] = {}
    everyone = list(_participants(model.optimizer))
    for each in everyone:
        each.before_forward(model.trainable_variables)
    _now.in_step = True
    try:
        yield logs
    finally:
        _now.in_step = False
    for each in everyone:
        logs.update(each.figures())


def _participants(optimizer: Any) -> Iterator[Any]:
    """Yield those of an optimizer and the optimizers within it that take part."""
    if hasattr(optimizer, "before_forward"):
        yield optimizer
    for name in ("optimizer", "inner_optimizer"):
        if (inner := getattr(optimizer, name, None)) is not None:
            yield from _participants(inner)


def _builder() -> keras.Model | None:
    """Return the model that is building its optimizer, which calls the caller of `attend`."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.Model):
            return owner
        if not isinstance(owner, keras.optimizers.Optimizer | None):  # Keras' wrappers have none
            return None
        frame = frame.f_back
    return None


def _attending(original: Any) -> Any:
    """Return a training step around that of a model."""

    def train_step(model: keras.Model, *arguments: Any) -> Any:
        if keras.backend.backend() == "jax":
            return _on_jax(model, original, *arguments)
        with attending(model) as figures:
            logs = original(*arguments)
        return {**logs, **figures}

    train_step.attends = True  # type: ignore[attr-defined]
    return train_step


def _on_jax(model: keras.Model, original: Any, state: Any, data: Any) -> tuple[Any, Any]:
    """Run the step of a model whose variables are given and returned."""
    weights, own = model.trainable_variables, model.optimizer.variables
    trainable, fixed, optimizer, metrics = state
    mapping = [*zip(weights, trainable, strict=True), *zip(own, optimizer, strict=True)]
    with keras.StatelessScope(mapping) as scope, attending(model) as figures:
        trainable = [scope.get_current_value(variable) for variable in weights]
        optimizer = [scope.get_current_value(variable) for variable in own]
        logs, state = original((trainable, fixed, optimizer, metrics), data)
        for variable, value in zip(own, state[2], strict=True):
            scope.add_update((variable, value))
    return {**logs, **figures}, state
