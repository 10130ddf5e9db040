"""Functions of the batches of a model, compiled once for all of them."""

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from kerasopt.curvature._stateless import stateless


def compiled(model: keras.Model, function: Callable[..., Any], uneven: bool) -> Callable[..., Any]:
    """Return `function(values, batch, *rest)` as a compiled function of a batch and the rest.

    Args:
        model: The model.
        function: What to compile.
        uneven: Whether batches differ in their number of rows.
    """
    return stateless(model, function, lambda run: _traced_once(run, uneven))


def _traced_once(function: Callable[..., Any], uneven: bool) -> Callable[..., Any]:
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

    return call
