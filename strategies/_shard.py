"""What a replica knows of its share of the global batch."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

# Not public, yet the only way to the mask that a layer leaves on its output, which slicing loses.
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

SUM = tf.distribute.ReduceOp.SUM
_at_work = threading.local()


def map_tensors(function: Any, structure: Any) -> Any:
    """Apply `function` to the tensors of a structure; all else stays."""
    return keras.tree.map_structure(lambda t: function(t) if tf.is_tensor(t) else t, structure)


class Shard:
    """The rows of one replica, r, among the N rows of all.

    Replicas are threads that trace, or run, the same step. While a shard is at work, `current()`
    gives it to the layers that need the global batch.

    Attributes:
        rows: Number of rows n_r of this replica, which may be 0.
        sizes: The rows of every replica, in their order.
        total: N.
        added: Losses that layers have added for these rows.
    """

    def __init__(self, data: Any, model: keras.Model) -> None:
        self.context = tf.distribute.get_replica_context()
        self.index = int(tf.get_static_value(self.context.replica_id_in_sync_group))
        devices = self.context.strategy.extended.worker_devices
        self.device = devices[self.index % len(devices)]
        self.model = model
        self.rows = tf.shape(first_tensor(data))[0]
        self.sizes = self.gather(self.rows[None])
        self.total = tf.reduce_sum(self.sizes)
        self.added: list[Any] = []
        self._seen: list[Any] = []

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Let layers find this shard."""
        return _current(self)

    def at_rest(self) -> contextlib.AbstractContextManager[None]:
        """Hide this shard from layers that are given all rows."""
        return _current(None)

    def real(self, structure: Any) -> Any:
        """Cut what `padded` added off results; masks stay on them."""
        return map_tensors(lambda t: with_mask(t[: self.rows], t, self.real), structure)

    def gather(self, structure: Any) -> Any:
        """Return the rows of all replicas, in their order, with their masks."""
        # One at a time: the gradient of a joint gather fails on mixed types.
        return map_tensors(lambda t: with_mask(self._gather(t), t, self.gather), structure)

    def own(self, structure: Any) -> Any:
        """Return this replica's rows, padded, of results for all rows."""
        start = tf.reduce_sum(self.sizes[: self.index])
        return padded(map_tensors(lambda t: t[start : start + self.rows], structure))

    def sum(self, tensors: Any) -> Any:
        """Return the sums over all replicas."""
        return self.context.all_reduce(SUM, tensors)

    @contextlib.contextmanager
    def synchronising(self) -> Iterator[None]:
        """Keep the losses that layers added so far: other replicas run before the body returns.

        All replicas share the layers, and with them the list of losses.
        """
        losses = added_losses(self.model)
        self.added += [t for t in losses if not any(t is seen for seen in self._seen)]
        yield
        self._seen = added_losses(self.model)

    def _gather(self, t: tf.Tensor) -> tf.Tensor:
        with tf.device(self.device):  # a tensor without a device has no destination
            plain = tf.cast(t, tf.int32) if t.dtype == tf.bool else tf.identity(t)
        rows = tf.cast(self.context.all_gather(plain, axis=0), t.dtype)
        rows.set_shape([None, *t.shape[1:]])
        return rows


@contextlib.contextmanager
def _current(shard: "Shard | None") -> Iterator[None]:
    before, _at_work.shard = current(), shard
    try:
        yield
    finally:
        _at_work.shard = before


def current() -> "Shard | None":
    """Return the shard that is at work in this replica, if any."""
    return getattr(_at_work, "shard", None)


def with_mask(result: tf.Tensor, source: tf.Tensor, move: Any) -> tf.Tensor:
    """Put the mask of `source`, moved likewise, on `result`."""
    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(result, move(mask))
    return result


def added_losses(model: keras.Model) -> list[Any]:
    """Return the losses of `add_loss` and of activity regularisers, which follow the rows."""
    regularised = [v for v in model.trainable_weights if v.regularizer is not None]
    losses = model.losses  # those of the weights come last
    return losses[: len(losses) - len(regularised)]


def first_tensor(structure: Any) -> tf.Tensor:
    """Return the first tensor of a structure, whose rows are those of all."""
    return next(t for t in keras.tree.flatten(structure) if t is not None)


def padded(structure: Any) -> Any:
    """Give tensors without rows one row of zeros: a forward pass needs one."""

    def pad(t: tf.Tensor) -> tf.Tensor:
        missing = tf.cast(tf.equal(tf.shape(t)[0], 0), tf.int32)
        zeros = tf.zeros(tf.concat([missing[None], tf.shape(t)[1:]], axis=0), t.dtype)
        # Not `tf.pad`: oneDNN fuses it with a convolution and loses what it adds to the batch.
        out = tf.concat([t, zeros], axis=0)
        out.set_shape([None, *t.shape[1:]])
        return out

    return map_tensors(pad, structure)
