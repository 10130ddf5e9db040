"""Where TensorFlow runs an update: once for each copy of the weights, in any strategy.

Keras calls optimizers within every replica, under TensorFlow's own strategies, or once, outside of
the replicas, under those of kerasopt and where there is no strategy.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasopt._tensorflow_columns import devices_of as devices_of


def summed(gradients: Sequence[Any]) -> list[Any]:
    """Return the sums of all replicas' gradients, dense; what is None stays None."""
    sums = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    if context := _replica():
        there = iter(context.all_reduce("SUM", [g for g in sums if g is not None]))
        sums = [g if g is None else next(there) for g in sums]
    return sums


def outside_replicas(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function once for all replicas, with arguments that are the same in all of them."""
    if context := _replica():
        context.merge_call(lambda strategy, *args: function(*args), args=arguments)
    else:
        function(*arguments)


def on_each_copy(function: Callable[..., None], weights: Sequence[Any], *rest: Any) -> None:
    """Call `function(weights, *rest)`, outside of replicas, on each device that has the weights.

    Variables in the arguments are replaced by their copies of that device.
    """
    weights, rest = tf.nest.map_structure(_native, (list(weights), rest))
    strategy = getattr(weights[0], "distribute_strategy", tf.distribute.get_strategy())
    strategy.extended.update(
        weights[0], lambda first, *args: function(*args), args=(weights, *rest), group=False
    )


def beside(weight: Any) -> contextlib.AbstractContextManager[Any]:
    """Create the variables of the body on the devices of a weight."""
    value = _native(weight)
    # A variable on a parameter server does not say of which strategy it is.
    current = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    strategy = getattr(value, "distribute_strategy", current)
    return strategy.extended.colocate_vars_with(value) if strategy else contextlib.nullcontext()


def _native(value: Any) -> Any:
    return value.value if isinstance(value, keras.Variable) else value


def assign_when(
    condition: Any, variables: Sequence[Any], values: Callable[[], Sequence[Any]]
) -> None:
    """Assign to variables, all on one device, if a condition holds; else compute nothing."""

    def assign() -> bool:
        for variable, value in zip(variables, [tf.identity(v) for v in values()], strict=True):
            variable.assign(value)
        return True

    tf.cond(condition, assign, lambda: False)


def stop_when(condition: Any, message: str) -> None:
    """End the training in an error if a condition holds; XLA leaves this out."""
    tf.debugging.Assert(tf.logical_not(condition), [message])


def in_one_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let XLA run an element-wise function in one pass over memory, once for each shape."""
    return tf.function(function, jit_compile=True, autograph=False)


def in_turn(function: Callable[[Any], Any], elements: Any) -> Any:
    """Return the stacked results of a function of each element, one after the other."""
    return tf.map_fn(function, elements, parallel_iterations=1)


def apply_when(
    condition: Any,
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Any],
    weights: Sequence[Any],
) -> None:
    """Let an optimizer take its step with sums of gradients if a condition holds."""
    if not (context := _replica()):
        tf.cond(condition, lambda: _apply(optimizer, gradients, weights), lambda: False)
        return
    # There is no synchronisation within a condition: it has to stand outside of the replicas.
    # The optimizer adds up what it gets in the replicas once more.
    count = tf.distribute.get_strategy().num_replicas_in_sync
    shares = [g if g is None else g / tf.cast(count, g.dtype) for g in gradients]

    def merged(strategy: Any, condition: Any, shares: Any, weights: Any) -> None:
        def apply() -> bool:
            args = (optimizer, shares, weights)
            strategy.extended.call_for_each_replica(_apply, args=args)
            return True

        tf.cond(strategy.experimental_local_results(condition)[0], apply, lambda: False)

    context.merge_call(merged, args=(condition, shares, weights))


def _apply(optimizer: Any, gradients: Sequence[Any], weights: Sequence[Any]) -> bool:
    optimizer.apply(gradients, weights)
    return True


def _replica() -> Any:
    """Return the context of the replica that runs; None where there are none or outside."""
    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


def gradient_of(model: keras.Model, x: Any, y: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """Return the gradient of the loss of a batch as a function of the values of the weights."""

    @tf.function
    def gradient() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False))
        return tape.gradient(loss, weights, unconnected_gradients="zero")

    def at(values: Sequence[Any]) -> list[Any]:
        start = [weight.numpy() for weight in weights]
        try:
            for weight, value in zip(weights, values, strict=True):
                weight.assign(value)
            return [g.numpy() for g in gradient()]
        finally:
            for weight, value in zip(weights, start, strict=True):
                weight.assign(value)

    weights = model.trainable_weights
    return at
