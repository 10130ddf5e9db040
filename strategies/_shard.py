"""What a replica knows of its share of the global batch."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kerasopt._masks import with_mask

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
        index: The number r of this share; the shares follow each other in the batch.
        total: N.
        rows: Number of rows n_r of this share, which may be 0. Shares differ by one row at most.
        added: Losses that layers have added for these rows.
    """

    def __init__(self, batch: Any, model: keras.Model | None, index: int | None = None) -> None:
        self.context = tf.distribute.get_replica_context()
        self.count = self.context.num_replicas_in_sync
        self.index = replica_index() if index is None else index
        self.model = model
        self.total = tf.shape(first_tensor(batch))[0]
        self._start, stop = (self.total * i // self.count for i in (self.index, self.index + 1))
        self.rows = stop - self._start
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
        return map_tensors(lambda t: with_mask(gather(t), t, self.gather), structure)

    def gather_for_all(self, structure: Any) -> Any:
        """Gather what every replica then uses in the same way.

        The gradient of the rows is known here then, without asking the others: each gives it a
        share 1/R.
        """

        @tf.custom_gradient
        def alike(t: tf.Tensor) -> Any:
            return gather(t), lambda upstream: self._cut(upstream) * self.count

        def gathered(t: tf.Tensor) -> tf.Tensor:
            return with_mask(alike(t) if t.dtype.is_floating else gather(t), t, self.gather)

        return map_tensors(gathered, structure)

    def own(self, structure: Any) -> Any:
        """Return this replica's rows, padded, of what is there for all rows."""
        return padded(map_tensors(self._cut, structure))

    def sum(self, tensors: Any) -> Any:
        """Return the sums over all replicas."""
        add_up = functools.partial(self.context.all_reduce, SUM)
        return timed(self.context.strategy, add_up, tensors)

    @contextlib.contextmanager
    def synchronising(self) -> Iterator[None]:
        """Keep the losses that layers added so far: other replicas run before the body returns.

        All replicas share the layers, and with them the list of losses.
        """
        losses = added_losses(self.model)
        self.added += [t for t in losses if not any(t is seen for seen in self._seen)]
        yield
        self._seen = added_losses(self.model)

    def _cut(self, t: tf.Tensor) -> tf.Tensor:
        return t[self._start : self._start + self.rows]


def replica_index() -> int:
    """Return the number of the replica that is traced or runs."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def own_device() -> str:
    """Return the device of the replica that is traced or runs."""
    devices = tf.distribute.get_strategy().extended.worker_devices
    return devices[replica_index() % len(devices)]


def gather(t: tf.Tensor) -> tf.Tensor:
    """Return the rows of all replicas, in their order."""
    context = tf.distribute.get_replica_context()
    with tf.device(own_device()):  # without one it has no destination
        plain = tf.cast(t, tf.int32) if t.dtype == tf.bool else tf.identity(t)
    exchange = functools.partial(context.all_gather, axis=0)
    rows = tf.cast(timed(context.strategy, exchange, plain), t.dtype)
    rows.set_shape([None, *t.shape[1:]])
    return rows


def timed(strategy: Any, exchange: Callable[[Any], Any], value: Any) -> Any:
    """Return `exchange(value)`; add the seconds it takes to the strategy's clock, if there is one.

    The clock runs on the first replica of each worker.
    """
    if strategy.clock is None or replica_index() % len(strategy.extended.worker_devices):
        return exchange(value)

    def tensors(value: Any) -> list[tf.Tensor]:
        local = [strategy.experimental_local_results(each) for each in tf.nest.flatten(value)]
        return tf.nest.flatten(local, expand_composites=True)

    with tf.control_dependencies(tensors(value)):
        start = tf.timestamp()
    with tf.control_dependencies([start]):
        result = exchange(value)
    with tf.control_dependencies(tensors(result)):
        strategy.clock.assign_add(tf.timestamp() - start)
    return result


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
