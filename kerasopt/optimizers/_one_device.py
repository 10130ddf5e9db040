"""Where an update runs on the backends without replicas: the twin of `_tensorflow_devices`."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops


def summed(gradients: Sequence[Any]) -> list[Any]:
    """Return the gradients."""
    return list(gradients)


def devices_of(weight: Any) -> tuple[()]:
    """Return nothing: the backend says where weights are."""
    return ()


def beside(weight: Any) -> contextlib.AbstractContextManager[None]:
    """Do nothing."""
    return contextlib.nullcontext()


def outside_replicas(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function."""
    function(*arguments)


on_each_copy = outside_replicas


def assign_when(
    condition: Any, variables: Sequence[Any], values: Callable[[], Sequence[Any]]
) -> None:
    """Assign to variables if a condition holds."""
    condition = ops.convert_to_tensor(condition)
    new = [ops.convert_to_tensor(value) for value in values()]
    for variable, value in zip(variables, new, strict=True):
        variable.assign(ops.where(condition, value, variable.value))


def in_one_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function: XLA compiles the whole step."""
    return function


def in_turn(function: Callable[[Any], Any], elements: Any) -> Any:
    """Return the stacked results of a function of each element, one after the other."""
    return ops.map(function, elements)


def stop_when(condition: Any, message: str) -> None:
    """Do nothing: compiled code has no errors. Who calls this looks again when training ends."""


def apply_when(
    condition: Any,
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Any],
    weights: Sequence[Any],
) -> None:
    """Let an optimizer take its step if a condition holds."""
    variables = [*optimizer.variables, *weights]
    before = [variable.value for variable in variables]
    optimizer.apply(gradients, weights)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(ops.where(condition, variable.value, value))


def gradient_of(model: keras.Model, x: Any, y: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """Return the gradient of the loss of a batch as a function of the values of the weights."""
    import jax

    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(values: Sequence[Any]) -> Any:
        y_pred, _ = model.stateless_call(values, fixed, x, training=False)
        return model.compute_loss(x=x, y=y, y_pred=y_pred)

    gradient = jax.jit(jax.grad(loss))
    return lambda values: [ops.convert_to_numpy(g) for g in gradient(list(values))]
