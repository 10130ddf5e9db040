"""Functions of the weights of a model, compiled, on any backend."""

from collections.abc import Callable
from typing import Any

import keras


def stateless(model: keras.Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function(values, *rest)` as a compiled function of the rest.

    The values are those that the variables of the model have whenever it is called.
    """

    def now() -> list[Any]:
        return [variable.value for variable in model.variables]

    if model.run_eagerly:
        return lambda *rest: function(now(), *rest)
    if keras.backend.backend() == "jax":
        import jax

        on_jax = jax.jit(function)
        return lambda *rest: on_jax(now(), *rest)
    import tensorflow as tf

    # XLA is slower than the graph, on a CPU, for most of what layers are made of.
    run = tf.function(lambda *rest: function(now(), *rest), autograph=False, reduce_retracing=True)
    return lambda *rest: _outside_of_strategies(run, rest)


def _outside_of_strategies(run: Callable[..., Any], rest: Any) -> Any:
    """Call a function in a thread of its own if need be: in a scope Keras divides losses."""
    import tensorflow as tf

    if not tf.distribute.has_strategy():
        return run(*rest)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, *rest).result()
