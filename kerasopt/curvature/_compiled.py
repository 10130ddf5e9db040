"""Functions of the weights of a model, compiled, on any backend."""

from collections.abc import Callable
from typing import Any

import keras
from keras import tree


def compiled(model: keras.Model, function: Callable[..., Any], uneven: bool) -> Callable[..., Any]:
    """Return `function(values, batch, *rest)` as a compiled function of a batch and the rest.

    The values are those that the variables of the model have whenever it is called.

    Args:
        model: The model.
        function: What to compile.
        uneven: Whether batches differ in their number of rows.
    """

    def now() -> list[Any]:
        return [variable.value for variable in model.variables]

    if model.run_eagerly:
        return lambda *rest: function(now(), *rest)
    if keras.backend.backend() == "jax":
        import jax

        on_jax = jax.jit(function)
        return lambda *rest: on_jax(now(), *rest)
    return _on_tensorflow(lambda *rest: function(now(), *rest), uneven)


def tried(function: Callable[[], Any]) -> None:
    """Run a function for what it makes beside its result."""
    if keras.backend.backend() == "jax":
        import jax

        jax.eval_shape(function)  # without compiling each operation
    else:
        function()


def _on_tensorflow(function: Callable[..., Any], uneven: bool) -> Callable[..., Any]:
    """Compile a function once, for blocks of any number of vectors."""
    import tensorflow as tf

    # XLA is slower than the graph, on a CPU, for most of what layers are made of.
    run = tf.function(function, autograph=False)

    def spec(tensor: Any, any_rows: bool) -> Any:
        rows = [None] if any_rows else tensor.shape[:1]
        return tf.TensorSpec([*rows, *tensor.shape[1:]], tensor.dtype)

    def call(batch: Any, *rest: Any) -> Any:
        if run.experimental_get_tracing_count() == 0:
            like = tree.map_structure(lambda t: spec(t, uneven), batch, none_is_leaf=False)
            run.get_concrete_function(like, *(spec(each, len(each.shape) > 1) for each in rest))
        return run(batch, *rest)

    return lambda *arguments: _outside_of_strategies(call, arguments)


def _outside_of_strategies(run: Callable[..., Any], rest: Any) -> Any:
    """Call a function in a thread of its own if need be: in a scope Keras divides losses."""
    import tensorflow as tf

    if not tf.distribute.has_strategy():
        return run(*rest)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, *rest).result()
