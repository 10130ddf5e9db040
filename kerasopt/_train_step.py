"""Optimizers that take part in the training step of their model, on any backend.

Keras shows an optimizer the gradient, but neither what comes before the forward pass nor the logs,
nor the loss as a function of the weights.

An optimizer that has `before_forward` and `figures` calls `attend` when it is built: the model that
builds it, which is found among the callers, then calls both in each of its training steps. On
TensorFlow, without a strategy, Keras builds the optimizer while it traces the first step. Then the
first call of the training function is not attended, all others are.

An optimizer that `needs_objective` is shown the objective of each step, after it had its
`check_model`, by a model that is prepared.
"""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops, tree

from kerasopt._callers import callers
from kerasopt._objective import Objective, of_batch, rows_of


def attend() -> None:
    """Let the calling optimizer take part in the steps of the model that is building it, if any."""
    model = _builder()
    if model is not None:
        _wrap(model)


def prepare_builder(shows_objective: bool) -> keras.Model | None:
    """Return the model that is building the calling optimizer; let it show its objective."""
    model = _builder()
    if model is not None and shows_objective:
        prepare(model)
    return model


def prepare(model: keras.Model) -> keras.Model:
    """Let a model show the optimizer its loss function; return the model.

    Optimizers that ask for more than the gradient, such as `NewtonCG` or `SAM`, need it. The model
    stays what it is: it is saved and loaded as before, and has to be prepared again after it was
    loaded. `kerasopt.Model` and `kerasopt.Sequential` are prepared from the start.

    Args:
        model: Any Keras model, compiled or not.

    Raises:
        TypeError: If it is not a Keras model.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> kerasopt.prepare(model).compile(kerasopt.optimizers.NewtonCG(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    _wrap(model)
    model.train_step.__func__.prepared = True
    return model


def _wrap(model: keras.Model) -> None:
    if not hasattr(model.train_step, "attends"):
        model.train_step = types.MethodType(_attending(model.train_step), model)
        if getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)


_now = threading.local()


def in_step() -> bool:
    """Return whether an attended step is running, in this thread."""
    return getattr(_now, "in_step", False)


def note_loss(loss: Any, rows: Any = None) -> None:
    """Keep the loss of a step for `loss_of_step`; the rows of its batch are those of the caller."""
    _now.loss = loss, _rows() if rows is None else rows


def loss_of_step(name: str) -> tuple[Any, Any]:
    """Return the loss of this step and the number of rows of its batch; once."""
    seen = getattr(_now, "loss", None)
    forget_loss()
    if seen is None:
        raise ValueError(
            f"`{name}` needs the loss, not only its gradient. In a training loop of your own call "
            "`loss = optimizer.scale_loss(loss)` in each step before you take the gradient, and do "
            "not wrap the optimizer in `LossScaleOptimizer`."
        )
    return seen


def forget_loss() -> None:
    """Drop the loss of a step whose optimizer has not asked for it."""
    _now.loss = None


def _rows() -> Any:
    """Return the number of rows in the batch of the step among the callers; 1 if there is none."""
    for names in callers():
        if isinstance(names.get("self"), keras.Model) and ("x" in names or "data" in names):
            return rows_of(names.get("x", names.get("data")))
    return 1


@contextlib.contextmanager
def attending(model: keras.Model, objective: Callable[[], Objective]) -> Iterator[dict[str, Any]]:
    """Let the participants act before a step, and fill a dictionary for the logs after it."""
    logs: dict[str, Any] = {}
    everyone = list(chain(model.optimizer))
    participants = [each for each in everyone if hasattr(each, "before_forward") and each.built]
    demanding = [each for each in everyone if getattr(each, "needs_objective", False)]
    for each in participants:
        each.before_forward(model.trainable_variables)
    shown: Any = contextlib.nullcontext()
    if demanding and hasattr(model.train_step, "prepared"):
        _check_step(model)
        for each in demanding:
            each.check_model(model)
        shown = objective()
    _now.in_step = True
    try:
        with shown:
            yield logs
    finally:
        _now.in_step = False
    for each in participants:
        logs.update(each.figures())


def _check_step(model: keras.Model) -> None:
    """Refuse a model whose step may take another loss than the one that is shown."""
    if type(model).train_step is not keras.Model.train_step:
        raise TypeError(
            "The model must keep Keras' `train_step` with an optimizer that asks for the loss "
            "function, which is that of `compute_loss`. Override `compute_loss` instead. "
            f"Received: {type(model).__name__}, which overrides `train_step`"
        )


def chain(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer and those within it."""
    yield optimizer
    for name in ("optimizer", "inner_optimizer"):
        if (inner := getattr(optimizer, name, None)) is not None:
            yield from chain(inner)


def asks_for_the_loss(optimizer: Any) -> bool:
    """Return whether an optimizer, or one within it, asks for the loss function."""
    return any(getattr(each, "needs_objective", False) for each in chain(optimizer))


def acts_on_gradients_alone(optimizer: Any) -> bool:
    """Return whether neither an optimizer nor one within it takes part in the step of a model."""
    parts = ("before_forward", "needs_objective")
    return not any(getattr(each, name, False) for each in chain(optimizer) for name in parts)


def _builder() -> keras.Model | None:
    """Return the model that is building its optimizer, which calls the caller of `attend`."""
    for names in callers():
        owner = names.get("self")
        if isinstance(owner, keras.Model):
            return owner
        if not isinstance(owner, keras.optimizers.Optimizer | None):  # Keras' wrappers have none
            return None
    return None


def _attending(original: Any) -> Any:
    """Return a training step around that of a model."""

    def train_step(model: keras.Model, *arguments: Any) -> Any:
        if keras.backend.backend() == "jax":
            return _on_jax(model, original, *arguments)
        with attending(model, lambda: _alone(model, *arguments)) as figures:
            logs = original(*arguments)
        return {**logs, **figures}

    train_step.attends = True  # type: ignore[attr-defined]
    return train_step


def _on_jax(model: keras.Model, original: Any, state: Any, data: Any) -> tuple[Any, Any]:
    """Run the step of a model whose variables are given and returned."""
    weights, own = model.trainable_variables, model.optimizer.variables
    trainable, fixed, optimizer, metrics = state
    mapping = [*zip(weights, trainable, strict=True), *zip(own, optimizer, strict=True)]
    others = [
        *zip(model.non_trainable_variables, fixed, strict=True),
        *zip(model.metrics_variables, metrics, strict=True),
    ]
    with (
        keras.StatelessScope(mapping) as scope,
        attending(model, lambda: of_batch(model, data, weights, others)) as figures,
    ):
        trainable = [scope.get_current_value(variable) for variable in weights]
        optimizer = [scope.get_current_value(variable) for variable in own]
        logs, state = original((trainable, fixed, optimizer, metrics), data)
        for variable, value in zip(own, state[2], strict=True):
            scope.add_update((variable, value))
    return {**logs, **figures}, state


def _alone(model: keras.Model, data: Any) -> Objective:
    """Return the loss of a batch that no other replica has a part of."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "The objective of a step must be that of the whole batch, of which TensorFlow's own "
            "strategies show a replica its part: use those of `kerasopt.strategies`. "
            f"Received: {type(strategy).__name__}, {strategy.num_replicas_in_sync} replicas"
        )
    if not model.built:
        inputs = keras.utils.unpack_x_y_sample_weight(data)[0]
        model(tree.map_structure(lambda t: keras.KerasTensor(t.shape, t.dtype), inputs))
    others = [(v, ops.copy(v)) for v in model.non_trainable_variables]
    return of_batch(model, data, model.trainable_variables, others)
