"""The work of one call of a worker: fetch the weights, take gradients, push them."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasopt._objective import rows_of, takes_training
from kerasopt.strategies._grid import Summed

LATE = 3  # the number of pushes, and the sum and the largest of their staleness
_count = itertools.count()
SEED = "seed_generator_state"  # Keras' name of the state of every random generator


class Downpour:
    """The steps of the workers for one `fit`, and what is kept on the first server for them.

    A call is the least number of steps that begins with a fetch and ends with a push. It is what
    the coordinator gives to a worker, and once more to another if that one is lost. It returns
    nothing, as a worker could be lost with that: all it has to say is in its pushes. `_done` counts
    the pushes of each call of an epoch, so that none is applied twice.

    Args:
        strategy: A `ParameterServer`.
        model: A model that was built and compiled under it, with its optimizer and metrics.
        steps: Steps of an epoch, of all workers together.
    """

    def __init__(self, strategy: Any, model: keras.Model, steps: int) -> None:
        self._strategy, self._model = strategy, model
        self._fetch_every, self._push_every = strategy.fetch_every, strategy.push_every
        size = math.lcm(self._fetch_every, self._push_every)
        self._sizes = [min(size, steps - begin) for begin in range(0, steps, size)]
        self._weights = model.trainable_variables
        self._others = [v for v in model.non_trainable_variables if v.name != SEED]
        self._seeds = [v for v in model.non_trainable_variables if v.name == SEED]
        with tf.device("/job:ps/replica:0/task:0/device:CPU:0"):
            self._version = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._done = tf.Variable(tf.zeros(len(self._sizes), tf.int32), trainable=False)
            size = sum(math.prod(v.shape) for v in model.metrics_variables)
            self._tally = tf.Variable(tf.zeros(size + LATE, tf.float64), trainable=False)
            self._lock = tf.CriticalSection(shared_name=f"kerasopt_push_{next(_count)}")
        self.call = tf.function(self._call, autograph=False)

    def calls(self, epoch: int) -> Iterator[tuple[int, tuple[tf.Tensor, int]]]:
        """Begin an epoch: yield the steps of each call, and what `call` takes after the data."""
        self._done.assign(tf.zeros_like(self._done))
        self._tally.assign(tf.zeros_like(self._tally))
        for place, size in enumerate(self._sizes):
            yield size, (tf.constant(epoch * len(self._sizes) + place), size)

    def logs(self) -> dict[str, float]:
        """Return the metrics of this epoch so far."""
        with keras.StatelessScope(self._counts()):
            return tree.map_structure(float, self._model.get_metrics_result())

    def end_epoch(self) -> dict[str, float]:
        """Give the metrics of the model what the workers have counted; return the staleness."""
        for variable, value in self._counts():
            variable.assign(value)
        pushes, late, latest = map(float, self._tally.numpy()[-LATE:])
        return {"staleness": late / pushes, "max_staleness": latest}

    def _counts(self) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Return the variables of the metrics, and what all workers have counted."""
        variables = self._model.metrics_variables
        sizes = [math.prod(v.shape) for v in variables]
        parts = np.split(self._tally.numpy()[:-LATE], np.cumsum(sizes[:-1]))
        values = [np.reshape(part, v.shape) for part, v in zip(parts, variables, strict=True)]
        return [(v, tf.cast(value, v.dtype)) for v, value in zip(variables, values, strict=True)]

    def _call(self, iterator: Any, number: tf.Tensor, steps: int) -> None:
        """Run some steps."""
        seeds = [_own_stream(seed, number) for seed in self._seeds]
        summed = [*self._weights, *self._others, *self._model.metrics_variables]
        index = 0
        for step in range(steps):
            if step % self._fetch_every == 0:
                version, values, others = self._fetch()
            if step % self._push_every == 0:
                accrued = [tf.zeros(v.shape, v.dtype) for v in summed]
            before = others
            gradients, others, seeds, counts = self._step(next(iterator), values, others, seeds)
            changes = [now - then for now, then in zip(others, before, strict=True)]
            parts = [*gradients, *changes, *counts]
            accrued = [a + part for a, part in zip(accrued, parts, strict=True)]
            if (step + 1) % self._push_every == 0 or step + 1 == steps:
                self._push(accrued, version, number, index)
                version, index = version + 1, index + 1  # its own push makes nothing older
            if step + 1 < steps and (step + 1) % self._fetch_every:
                rate = tf.convert_to_tensor(self._model.optimizer.learning_rate)
                moved = zip(values, gradients, strict=True)
                values = [v - tf.cast(rate, v.dtype) * g for v, g in moved]

    def _fetch(self) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Return the number of pushes so far, and the variables as they are then or later."""
        version = tf.identity(self._version)
        with tf.control_dependencies([version]):
            values = [tf.identity(v.value) for v in self._weights]
            return version, values, [tf.identity(v.value) for v in self._others]

    def _step(self, data: Any, values: Any, others: Any, seeds: Any) -> tuple[list[Any], ...]:
        """Return the gradient of a batch at `values`, and what becomes of the other variables."""
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        groups = (self._others, self._seeds, model.metrics_variables)
        variables = [*self._weights, *itertools.chain(*groups)]
        counts = [tf.zeros(v.shape, v.dtype) for v in model.metrics_variables]
        start = zip(variables, [*values, *others, *seeds, *counts], strict=True)
        with (
            keras.StatelessScope([*start], collect_losses=True) as scope,
            tf.GradientTape() as tape,
        ):
            tape.watch(values)
            y_pred = model(x, **({"training": True} if takes_training(model.call) else {}))
            takes = {"training": True} if takes_training(model.compute_loss) else {}
            batch = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            loss = model.compute_loss(**batch, **takes)
            tracker = next(metric for metric in model.metrics if metric.name == "loss")
            tracker.update_state(loss, sample_weight=rows_of(x))
            model.compute_metrics(**batch)
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        after = [[scope.get_current_value(v) for v in group] for group in groups]
        return [tf.convert_to_tensor(g) for g in gradients], *after

    def _push(
        self, accrued: list[tf.Tensor], version: tf.Tensor, number: tf.Tensor, index: int
    ) -> None:
        """Apply a push, unless a worker that was lost has done so.

        No other push comes between, which would lose some of what both assign.
        """
        place = number % tf.size(self._done)

        def apply() -> bool:
            with Summed(self._strategy, 0):
                self._apply(accrued)
            self._tally.assign(self._tallied(accrued, self._version - version))
            self._done.assign(tf.tensor_scatter_nd_add(self._done, [[place]], [1]))
            self._version.assign_add(1)
            return True

        @tf.function(autograph=False)
        def once() -> tf.Tensor:
            return tf.cond(tf.equal(tf.gather(self._done, place), index), apply, lambda: False)

        def complete() -> tf.Tensor:  # all that `once` does is done before the lock is released
            with tf.control_dependencies([once()]):
                return tf.identity(version)

        self._lock.execute(complete, exclusive_resource_access=False)

    def _apply(self, accrued: list[tf.Tensor]) -> None:
        """Let the optimizer act, and add what has changed of the other variables."""
        gradients, changes = accrued[: len(self._weights)], accrued[len(self._weights) :]
        self._model.optimizer.apply_gradients(zip(gradients, self._weights, strict=True))
        for variable, change in zip(self._others, changes, strict=False):  # metrics come after
            variable.value.assign_add(change)

    def _tallied(self, accrued: list[tf.Tensor], late: tf.Tensor) -> tf.Tensor:
        """Return what the workers have counted, after one more push; and how late pushes were."""
        counts = accrued[len(self._weights) + len(self._others) :]
        late = tf.cast(tf.maximum(late, 0), tf.float64)
        counted, (pushes, total, latest) = self._tally[:-LATE], tf.unstack(self._tally[-LATE:])
        counted += tf.concat([tf.reshape(tf.cast(c, tf.float64), [-1]) for c in counts], 0)
        return tf.concat([counted, [pushes + 1, total + late, tf.maximum(latest, late)]], 0)


def _own_stream(seed: keras.Variable, number: tf.Tensor) -> tf.Tensor:
    """Return the state of a generator for one call: no two calls draw the same numbers."""
    return seed.value + tf.stack([tf.cast(number, seed.dtype), tf.zeros((), seed.dtype)])


def example_batch(element_spec: Any) -> Any:
    """Return a batch of one row of zeros; sizes that are left open are large enough for most."""

    def zeros(spec: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([1, *(size or 64 for size in spec.shape[1:])], spec.dtype)

    return tree.map_structure(zeros, element_spec)
