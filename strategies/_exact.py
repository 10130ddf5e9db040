"""What makes the replicas of a strategy equal to one device."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from kerasopt._objective import Objective, takes_training
from kerasopt._train_step import attending, forget_loss, note_loss
from kerasopt.strategies._batches import WholeBatches, check_batches
from kerasopt.strategies._buckets import LIMIT, pack
from kerasopt.strategies._shard import (
    SUM,
    Shard,
    added_losses,
    gather,
    map_tensors,
    own_device,
    replica_index,
    timed,
)
from kerasopt.strategies._whole_batch import whole_batch_layers

STEPS = ("train_step", "test_step")
EXACT = "loss, metrics, batch normalisation, random layers: of the whole batch"  # for summaries


class ExactReplicas(tf.distribute.Strategy):
    """A strategy, by inheritance, under which `fit`, `evaluate` and `predict` equal one device.

    Keras runs its steps by `Strategy.run`. Where it asks for `train_step` or `test_step`, every
    replica reads the global batch and runs the forward pass of its share; the outputs are
    gathered, so that the loss is the loss of the global batch, whatever its reduction; the
    gradients are summed, and the optimizer sees the sum once, outside of the replicas.
    """

    clock: tf.Variable | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return True

    def path(self, path: str | Path) -> Path:
        """Return the path to write to in place of `path`: itself, in the chief."""
        return Path(path)

    def start_clock(self) -> bool:
        """Count the seconds that the steps traced from now on wait; return whether it was off.

        `clock` then holds the seconds that this worker has waited for others, or talked to them.
        """
        if was_off := self.clock is None:
            self.clock = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        return was_off

    def worker_values(self, value: Any) -> np.ndarray:
        """Return the values of all workers, in their order, as an array."""
        return np.asarray(value)[None]

    def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """Run `fn` in all replicas; the steps of a Keras model exactly."""
        model, name = getattr(fn, "__self__", None), getattr(fn, "__name__", "")
        if isinstance(model, keras.Model) and name in STEPS:
            _check_step(model, name, self.num_replicas_in_sync)
            with whole_batch_layers(model):
                if name == "test_step":
                    return self._step(model, False, *args)
                with attending(model, lambda: SharedObjective(self, model, *args)) as figures:
                    logs = self._step(model, True, *args)
                return {**logs, **figures}
        if model is None and name == "one_step_on_data":  # the closure of `Model.predict`
            return self._run(functools.partial(predict, fn), *args)
        return super().run(fn, args=args, kwargs=kwargs, options=options)

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> WholeBatches:
        """Return `dataset` for `fit`, `evaluate` and `predict`, which cut its batches."""
        check_batches(dataset)
        return WholeBatches(dataset, self.prepare)

    def place(self, variable: keras.Variable) -> Any:
        """Return what gradients must have in common to be sent together; here they all may."""

    def prepare(self, model: keras.Model) -> None:
        """Prepare a model that is about to be trained or tested."""

    def acting(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the optimizer acts."""
        return contextlib.nullcontext()

    def _run(self, function: Callable[..., Any], data: Any) -> Any:
        """Run `function` of the global batch in every replica."""
        parts = any(isinstance(t, tf.distribute.DistributedValues) for t in tree.flatten(data))

        def of_batch(data: Any) -> Any:
            return function(map_tensors(gather, data) if parts else data)

        return super().run(tf.autograph.experimental.do_not_convert(of_batch), args=(data,))

    def _step(self, model: keras.Model, training: bool, data: Any) -> dict[str, Any]:
        """Run a step in all replicas, let the optimizer act once on the sums; return the logs."""
        weights = model.trainable_weights if training else []
        counted = model.metrics_variables
        shapes = [*(v.shape for v in [*weights, *counted]), (), ()]
        places = [self.place(v) for v in weights] + [None] * (len(counted) + 2)
        limit = LIMIT if self.num_replicas_in_sync > 1 else 0  # alone, nothing is sent
        unpack: Callable[[list[Any]], list[Any]] = list

        def packed_results(batch: Any) -> list[Any]:
            nonlocal unpack
            gradients, seen = step(model, weights, batch, training)
            counts = [tf.convert_to_tensor(v.value) for v in counted]
            packed, unpack = pack([*gradients, *counts, *seen], shapes, limit, places)
            return packed

        parts = self._run(packed_results, data)
        add_up = functools.partial(self.reduce, SUM, axis=None)
        sums = unpack([timed(self, add_up, part) for part in parts])
        gradients, counts = sums[: len(weights)], sums[len(weights) : -2]
        if weights:
            note_loss(*sums[-2:])
            with self.acting():
                model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            forget_loss()
        with keras.StatelessScope(zip(counted, counts, strict=True)):
            return model.get_metrics_result()

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas; 1 while the loss of the global batch is computed."""
        return 1 if getattr(_seen, "as_one", False) else super().num_replicas_in_sync


def check_backend(name: str) -> None:
    """Refuse the other backends of Keras."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"`{name}` needs Keras' TensorFlow backend; on JAX use "
            "`keras.distribution.DataParallel`. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )


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


def step(
    model: keras.Model, weights: list[Any], data: Any, training: bool
) -> tuple[list[Any], list[Any]]:
    """Run one replica's part of a training or test step.

    Returns its part of the gradients, and its parts of the loss and of the number of rows.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    shard = Shard(x, model)
    with tf.GradientTape(watch_accessed_variables=training) as tape:
        outputs = forward(model, shard, x, training)
        with shard.synchronising():
            outputs = shard.gather_for_all(outputs)
        batch = {"x": x, "y": y, "y_pred": outputs, "sample_weight": sample_weight}
        loss, total = global_loss(model, shard, batch, training)
        scaled = model.optimizer.scale_loss(loss) if training else loss
    if shard.index == 0:  # the sum over the replicas then is what it counts
        tracker = next(metric for metric in model.metrics if metric.name == "loss")
        tracker.update_state(total, sample_weight=shard.total)
        model.compute_metrics(**batch)
    rows = tf.cast(shard.total, loss.dtype) / shard.count
    return tape.gradient(scaled, weights), [loss, rows]


def forward(model: keras.Model, shard: Shard, x: Any, training: bool) -> Any:
    """Return the outputs for the rows of a replica."""
    with tf.device("CPU:0"):  # where the batch is: only the share goes to the replica
        own = shard.own(x)
    with shard.at_work(), tf.device(own_device()):
        takes = {"training": training} if takes_training(model.call) else {}
        return shard.real(model(own, **takes))


def global_loss(
    model: keras.Model, shard: Shard, batch: dict[str, Any], training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return this replica's part of the loss of the global batch, and that loss."""
    takes = {"training": training} if takes_training(model.compute_loss) else {}
    with _as_one():
        loss = model.compute_loss(**batch, **takes)
    # What layers added is in it for the rows of whichever replica came last: take the own.
    others = added_losses(model)
    if not others and not shard.added:
        return loss / shard.count, loss
    fraction = tf.cast(shard.rows / shard.total, loss.dtype)
    own = (loss - _sum(others, loss.dtype)) / shard.count + _sum(shard.added, loss.dtype) * fraction
    return own, shard.sum(own)


class SharedObjective(Objective):
    """The loss of the global batch, of which every replica computes its part.

    The parts add up to it. Its derivatives of any order follow from those of the parts, as all that
    replicas exchange within a part is differentiated as well.
    """

    def __init__(self, strategy: ExactReplicas, model: keras.Model, data: Any) -> None:
        self._strategy, self._model, self._data = strategy, model, data
        others = [(v, ops.copy(v)) for v in model.non_trainable_variables]
        super().__init__(self.loss, model.trainable_variables, fixed=others)

    def loss(self, values: Sequence[Any] | None = None) -> Any:
        """Return J, at `values` or where the step starts."""
        return self._summed(lambda part: [part.loss(values)])[0]

    def loss_and_gradient(self, values: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """Return J and ∇J."""
        loss, *gradient = self._summed(lambda part: tree.flatten(part.loss_and_gradient(values)))
        return loss, gradient

    def hvp(self, v: Sequence[Any]) -> list[Any]:
        """Return H v, with H = ∇²J."""
        return self._summed(lambda part: part.hvp(v))

    def gnvp(self, v: Sequence[Any]) -> list[Any]:
        """Return G v."""
        return self._summed(lambda part: part.gnvp(v))

    def _diagonal_parts(self, draw: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
        sums = self._summed(lambda part: tree.flatten(part._diagonal_parts(draw)))
        # The loss of a replica is 1/R of all, its root 1/√R, and R of these are added up.
        scale = self._strategy.num_replicas_in_sync**-0.5
        half = len(sums) // 2
        return [r * scale for r in sums[:half]], sums[half:]

    def _summed(self, function: Callable[[Objective], list[Any]]) -> list[Any]:
        """Return the sums over all replicas of what a function of their parts returns."""
        unpack: Callable[[list[Any]], list[Any]] = list

        def packed_results(batch: Any) -> list[Any]:
            nonlocal unpack
            results = function(self._part(batch))
            packed, unpack = pack(results, [result.shape for result in results])
            return packed

        parts = self._strategy._run(packed_results, self._data)
        return unpack([self._strategy.reduce(SUM, part, axis=None) for part in parts])

    def _part(self, data: Any) -> Objective:
        """Return what the replica that runs adds to the objective."""
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        shard = Shard(x, model)

        def outputs() -> Any:
            nonlocal shard
            shard = Shard(x, model)
            own = forward(model, shard, x, True)
            with shard.synchronising():
                return shard.gather(own)

        def loss(y_pred: Any) -> Any:
            batch = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            return global_loss(model, shard, batch, True)[0]

        def added() -> list[Any]:
            regularised = model.losses[len(added_losses(model)) :]
            fraction = tf.cast(shard.rows / shard.total, keras.config.floatx())
            return [*(t / shard.count for t in regularised), *(t * fraction for t in shard.added)]

        part = Objective(loss, self.variables, outputs, added, self._fixed)
        part._start = self._start
        return part


def _sum(losses: list[Any], dtype: tf.DType) -> tf.Tensor:
    return tf.add_n([tf.zeros((), dtype), *(tf.reduce_sum(tf.cast(t, dtype)) for t in losses)])


def predict(function: Callable[..., Any], data: Any) -> Any:
    """Predict the rows of one replica, which may be none."""
    strategy = tf.distribute.get_strategy()
    local = len(strategy.extended.worker_devices)
    # Keras joins the first replicas of all workers, then the second ones, and so on.
    worker, place = divmod(replica_index(), local)
    shard = Shard(data, None, place * (strategy.num_replicas_in_sync // local) + worker)
    with tf.device("CPU:0"):
        own = shard.own(data)
    return shard.real(function(own))
