"""Functions of the weights of a model, compiled, on any backend."""

from collections.abc import Callable
from typing import Any

import keras


def stateless(
    model: keras.Model,
    function: Callable[..., Any],
    trace: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """Return `function(values, *rest)` as a compiled function of the rest.

    The values are those that the variables of the model have whenever it is called.

    Args:
        model: The model.
        function: What to compile.
        trace: Function that makes a graph of a function on TensorFlow. Defaults to None, for one
            that is as general as TensorFlow finds.
    """

    def now() -> list[Any]:
        return [variable.value for variable in model.variables]

    if model.run_eagerly:
        return lambda *rest: function(now(), *rest)
    if keras.backend.backend() == "jax":
        import jax

        on_jax = jax.jit(function)
        return lambda *rest: on_jax(now(), *rest)
    run = (trace or _traced)(lambda *rest: function(now(), *rest))
    return lambda *rest: _outside_of_strategies(run, rest)


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)


def _outside_of_strategies(run: Callable[..., Any], rest: Any) -> Any:
    """Call a function in a thread of its own if need be: in a scope Keras divides losses."""
    import tensorflow as tf

    if not tf.distribute.has_strategy():
        return run(*rest)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, *rest).result()
