"""What makes the replicas of a strategy equal to one device."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kerasopt.strategies._buckets import pack
from kerasopt.strategies._shard import SUM, Shard, added_losses, first_tensor, map_tensors, padded
from kerasopt.strategies._whole_batch import whole_batch_layers

STEPS = ("train_step", "test_step")


class ExactReplicas(tf.distribute.Strategy):
    """A strategy, by inheritance, under which `fit`, `evaluate` and `predict` equal one device.

    Keras runs its steps by `Strategy.run`. Where it asks for `train_step` or `test_step`, every
    replica runs the forward pass of its own rows; targets and outputs are gathered, so that the
    loss is the loss of the global batch, whatever its reduction; the gradients are summed, and the
    optimizer sees the sum once, outside of the replicas.
    """

    def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """Run `fn` in all replicas; the steps of a Keras model exactly."""
        model, name = getattr(fn, "__self__", None), getattr(fn, "__name__", "")
        if isinstance(model, keras.Model) and name in STEPS:
            _check_step(model, name, self.num_replicas_in_sync)
            (data,) = args
            with whole_batch_layers(model):
                self._step(model, name == "train_step", data)
            return model.get_metrics_result()
        if model is None and name == "one_step_on_data":  # the closure of `Model.predict`
            return self._run(functools.partial(predict, fn), *args)
        return super().run(fn, args=args, kwargs=kwargs, options=options)

    def _run(self, function: Callable[..., Any], data: Any) -> Any:
        """Run `function` of each replica's share; a batch that is whole is cut into shares."""
        whole = not any(isinstance(t, tf.distribute.DistributedValues) for t in tree.flatten(data))
        count = self.num_replicas_in_sync

        def of_share(data: Any) -> Any:
            return function(share(data, count) if whole else data)

        return super().run(tf.autograph.experimental.do_not_convert(of_share), args=(data,))

    def _step(self, model: keras.Model, training: bool, data: Any) -> None:
        """Run a step in all replicas; let the optimizer act once on the summed gradients."""
        weights = model.trainable_weights if training else []
        unpack: Callable[[list[Any]], list[Any]] = list

        def packed_gradients(rows: Any) -> list[Any]:
            nonlocal unpack
            packed, unpack = pack(step(model, weights, rows, training), weights)
            return packed

        parts = self._run(packed_gradients, data)
        gradients = unpack([self.reduce(SUM, part, axis=None) for part in parts])
        if weights:
            model.optimizer.apply_gradients(zip(gradients, weights, strict=True))

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        """Reduce `value`; of a batch, which Keras reduces to see its form, take one share."""
        if isinstance(value, tuple | list | dict):
            return tree.map_structure(lambda v: self.experimental_local_results(v)[0], value)
        return super().reduce(reduce_op, value, axis)

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas; 1 while the loss of the global batch is computed."""
        return 1 if getattr(_seen, "as_one", False) else super().num_replicas_in_sync


_seen = threading.local()


@contextlib.contextmanager
def _as_one() -> Iterator[None]:
    """Show Keras one replica, so that it does not divide losses by their number."""
    _seen.as_one = True
    try:
        yield
    finally:
        _seen.as_one = False


def _check_step(model: keras.Model, name: str, count: int) -> None:
    """Refuse what cannot be made exact."""
    kind = type(model).__name__
    if getattr(type(model), name) is not getattr(keras.Model, name):
        raise TypeError(
            f"The model must keep Keras' `{name}`, in whose place the strategy runs one that is "
            f"exact over all replicas. Received: {kind}, which overrides `{name}`. Override "
            "`compute_loss` or `compute_metrics` instead, or use `tf.distribute.MirroredStrategy`, "
            "which is not exact."
        )
    if model.jit_compile and count > 1:
        raise ValueError(
            "`jit_compile` must be False or 'auto' with several replicas: XLA compiles for one "
            f"device. Received: {kind} compiled with jit_compile=True, {count} replicas"
        )
    if tf.distribute.in_cross_replica_context():
        raise RuntimeError(
            "`fit` and `evaluate` must be called outside of `with strategy.scope():`; only build "
            f"and compile the model within. Received: a call of `{name}` of {kind} within."
        )
    outside = [
        v.path for v in model.weights if not isinstance(v.value, tf.distribute.DistributedValues)
    ]
    if outside:
        raise ValueError(
            "All weights must be built within `with strategy.scope():`. "
            f"Received: {kind} with weights built outside: {outside}"
        )


def step(model: keras.Model, weights: list[Any], data: Any, training: bool) -> list[Any]:
    """Run one replica's part of a training or test step; return its part of the gradients."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    shard = Shard(x, model)
    with tf.GradientTape(watch_accessed_variables=training) as tape:
        with shard.at_work():
            takes = {"training": training} if takes_training(model.call) else {}
            outputs = shard.real(model(padded(x), **takes))
        with shard.synchronising():
            batch = shard.gather((x, y, outputs, sample_weight))
        loss = global_loss(model, shard, batch, training)
        scaled = model.optimizer.scale_loss(loss) if training else loss
    total = shard.sum(loss)
    if shard.index == 0:  # the sum over the replicas then is what it counts
        tracker = next(metric for metric in model.metrics if metric.name == "loss")
        tracker.update_state(total, sample_weight=shard.total)
        x, y, outputs, sample_weight = batch
        model.compute_metrics(x, y, outputs, sample_weight=sample_weight)
    return tape.gradient(scaled, weights)


def global_loss(model: keras.Model, shard: Shard, batch: Any, training: bool) -> tf.Tensor:
    """Return this replica's part of the loss of the global batch."""
    x, y, outputs, sample_weight = batch
    arguments = {"x": x, "y": y, "y_pred": outputs, "sample_weight": sample_weight}
    if takes_training(model.compute_loss):
        arguments["training"] = training
    with _as_one():
        loss = model.compute_loss(**arguments)
    # What layers added is in it for the rows of whichever replica came last: take the own.
    others, own = (
        tf.add_n(
            [tf.reduce_sum(tf.cast(t, loss.dtype)) for t in losses] or [tf.zeros((), loss.dtype)]
        )
        for losses in (added_losses(model), shard.added)
    )
    fraction = tf.cast(shard.rows / shard.total, loss.dtype)
    return (loss - others) / shard.context.num_replicas_in_sync + own * fraction


def takes_training(function: Callable[..., Any]) -> bool:
    """Return whether a method of a model has the argument `training`, which users may leave out."""
    return "training" in inspect.signature(function).parameters


def predict(function: Callable[..., Any], data: Any) -> Any:
    """Predict the rows of one replica, which may be none."""
    rows = tf.shape(first_tensor(data))[0]
    return map_tensors(lambda t: t[:rows], function(padded(data)))


def share(data: Any, count: int) -> Any:
    """Return the rows of this replica, of `count`, from a whole batch."""
    index = tf.distribute.get_replica_context().replica_id_in_sync_group

    def cut(t: tf.Tensor) -> tf.Tensor:
        size = -(-tf.shape(t)[0] // count)
        return t[index * size : (index + 1) * size]

    return map_tensors(cut, data)
