"""Stock layers, made to see the global batch while a replica runs its share."""

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from kerasopt._drawing import draws
from kerasopt.strategies._shard import current

# Their output is their input times numbers that do not depend on it.
MULTIPLIES = (
    layers.Dropout,
    layers.GaussianDropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
_warned: weakref.WeakSet[keras.Model] = weakref.WeakSet()


@contextlib.contextmanager
def whole_batch_layers(model: keras.Model) -> Iterator[None]:
    """Replace, while the body runs, what the layers of `model` do within their own rows only.

    Batch normalisation takes its moments over all replicas. A layer with a random generator draws
    for the global batch and keeps its rows, so that its numbers are those of one device.
    """
    _warn_of_state(model)
    replaced: list[tuple[keras.Layer, str]] = []
    try:
        for layer in model._flatten_layers():
            name = "_moments" if isinstance(layer, layers.BatchNormalization) else "call"
            if name == "_moments" or draws(layer):
                make = global_moments if name == "_moments" else global_draw
                setattr(layer, name, functools.partial(make, layer, getattr(layer, name)))
                replaced.append((layer, name))
        yield
    finally:
        for layer, name in replaced:
            delattr(layer, name)


def _warn_of_state(model: keras.Model) -> None:
    """Say once of a model which layers keep a state that sees the rows of one replica only."""
    if model in _warned:
        return
    _warned.add(model)
    kept = [layer.name for layer in model._flatten_layers(include_self=False) if _keeps(layer)]
    if kept:
        warnings.warn(
            f"The state that these layers update while training follows the rows of one replica, "
            f"not the whole batch: {kept}. Under several replicas they are not exact.",
            stacklevel=2,
        )


def _keeps(layer: keras.Layer) -> bool:
    """Return whether a layer, its sublayers aside, updates a state of unknown kind."""
    if getattr(layer, "stateful", False):
        return True
    known = type(layer).__module__.startswith(("keras.", "kerasopt."))
    states = {id(v) for v in layer.non_trainable_weights}
    for inner in layer._flatten_layers(include_self=False):
        states -= {id(v) for v in inner.weights}
    return layer.trainable and bool(states) and not known and not isinstance(layer, keras.Model)


def global_moments(
    layer: keras.Layer, stock: Callable[..., Any], inputs: tf.Tensor, mask: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance of the real rows of all replicas, in two passes."""
    shard = current()
    if shard is None:
        return stock(inputs, mask)
    axis = layer.axis % len(inputs.shape)
    others = [i for i in range(len(inputs.shape)) if i != axis]
    real = inputs[: shard.rows]

    def add_up(values: tf.Tensor) -> tf.Tensor:
        if mask is not None:
            values *= tf.cast(mask[: shard.rows, ..., None], values.dtype)
        return tf.reduce_sum(values, others)

    with shard.synchronising():
        total, count = shard.sum([add_up(real), add_up(tf.ones_like(real))])
        if mask is not None:
            count += keras.backend.epsilon()  # as the layer does
        mean = total / count
        shape = [-1 if i == axis else 1 for i in range(len(inputs.shape))]
        squares = shard.sum(add_up(tf.square(real - tf.reshape(mean, shape))))
    return mean, squares / count


def global_draw(
    layer: keras.Layer, stock: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call the layer for all rows of the global batch; return this replica's rows."""
    shard = current()
    if shard is None or not kwargs.get("training", True):
        return stock(inputs, *args, **kwargs)
    if isinstance(layer, MULTIPLIES):
        with shard.at_rest():
            factors = stock(ops.ones((shard.total, *ops.shape(inputs)[1:]), inputs.dtype), **kwargs)
        return inputs * shard.own(factors)
    with shard.synchronising():
        inputs, args, kwargs = shard.gather(shard.real((inputs, args, kwargs)))
    with shard.at_rest():
        return shard.own(stock(inputs, *args, **kwargs))
