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

_count = itertools.count()
SEED = "seed_generator_state"  # Keras' name of the state of every random generator


class Downpour:
    """The steps of the workers for one `fit`, and what is kept on the first server for them.

    A call is the least number of steps that begins with a fetch and ends with a push. It is what
    the coordinator gives to a worker, and once more to another if that one is lost. `_done` counts
    the pushes of each call of an epoch, so that none counts twice.

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
            self._lock = tf.CriticalSection(shared_name=f"kerasopt_push_{next(_count)}")
        self.call = tf.function(self._call, autograph=False)

    def calls(self, epoch: int) -> Iterator[tuple[int, tuple[tf.Tensor, int]]]:
        """Begin an epoch: yield the steps of each call, and what `call` takes after the data."""
        self._done.assign(tf.zeros_like(self._done))
        self._counts = [np.zeros(v.shape, v.dtype) for v in self._model.metrics_variables]
        for place, size in enumerate(self._sizes):
            yield size, (tf.constant(epoch * len(self._sizes) + place), size)

    def logs(self, counts: list[Any]) -> dict[str, float]:
        """Return the metrics of the calls so far, after one more."""
        self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]
        values = map(tf.convert_to_tensor, self._counts)  # here, not on a server
        with keras.StatelessScope([*zip(self._model.metrics_variables, values, strict=True)]):
            results = self._model.get_metrics_result()
        return tree.map_structure(float, results)

    def end_epoch(self) -> None:
        """Give the metrics of the model what the workers have counted."""
        for variable, value in zip(self._model.metrics_variables, self._counts, strict=True):
            variable.assign(value)

    def _call(self, iterator: Any, number: tf.Tensor, steps: int) -> tuple[list[Any], list[Any]]:
        """Run some steps; return the metrics' variables, and the staleness of each push."""
        seeds = [_own_stream(seed, number) for seed in self._seeds]
        counts = [tf.zeros(v.shape, v.dtype) for v in self._model.metrics_variables]
        staleness: list[tf.Tensor] = []
        for step in range(steps):
            if step % self._fetch_every == 0:
                version, values, others = self._fetch()
                own = 0
            if step % self._push_every == 0:
                accrued = [tf.zeros(v.shape, v.dtype) for v in self._weights + self._others]
            before = others
            state = [values, others, seeds, counts]
            gradients, others, seeds, counts = self._step(next(iterator), *state)
            changes = [now - then for now, then in zip(others, before, strict=True)]
            accrued = [a + g for a, g in zip(accrued, gradients + changes, strict=True)]
            if (step + 1) % self._push_every == 0 or step + 1 == steps:
                pushed = self._push(accrued, number, len(staleness))
                staleness.append(tf.maximum(pushed - version - own, 0))
                own += 1
            if step + 1 < steps and (step + 1) % self._fetch_every:
                rate = tf.convert_to_tensor(self._model.optimizer.learning_rate)
                moved = zip(values, gradients, strict=True)
                values = [v - tf.cast(rate, v.dtype) * g for v, g in moved]
        return counts, staleness

    def _fetch(self) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Return the number of pushes so far, and the variables as they are then or later."""
        version = tf.identity(self._version)
        with tf.control_dependencies([version]):
            values = [tf.identity(v.value) for v in self._weights]
            return version, values, [tf.identity(v.value) for v in self._others]

    def _step(
        self, data: Any, values: Any, others: Any, seeds: Any, counts: Any
    ) -> tuple[list[Any], ...]:
        """Return the gradient of a batch at `values`, and what became of the other variables."""
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        groups = (self._others, self._seeds, model.metrics_variables)
        variables = [*self._weights, *itertools.chain(*groups)]
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

    def _push(self, accrued: list[tf.Tensor], number: tf.Tensor, index: int) -> tf.Tensor:
        """Apply a push, unless a worker that was lost has done so; return how many were before.

        No other push comes between, which would lose some of what both assign.
        """
        place = number % tf.size(self._done)

        def apply() -> bool:
            with Summed(self._strategy, 0):
                self._apply(accrued)
            self._done.assign(tf.tensor_scatter_nd_add(self._done, [[place]], [1]))
            self._version.assign_add(1)
            return True

        @tf.function(autograph=False)
        def once() -> tf.Tensor:
            version = tf.identity(self._version)
            with tf.control_dependencies([version]):
                tf.cond(tf.equal(tf.gather(self._done, place), index), apply, lambda: False)
            return version

        def complete() -> tf.Tensor:  # all that `once` does is done before the lock is released
            version = once()
            with tf.control_dependencies([version]):
                return tf.identity(version)

        return self._lock.execute(complete, exclusive_resource_access=False)

    def _apply(self, accrued: list[tf.Tensor]) -> None:
        """Let the optimizer act, and add what has changed of the other variables."""
        gradients, changes = accrued[: len(self._weights)], accrued[len(self._weights) :]
        self._model.optimizer.apply_gradients(zip(gradients, self._weights, strict=True))
        for variable, change in zip(self._others, changes, strict=True):
            variable.value.assign_add(change)


def _own_stream(seed: keras.Variable, number: tf.Tensor) -> tf.Tensor:
    """Return the state of a generator for one call: no two calls draw the same numbers."""
    return seed.value + tf.stack([tf.cast(number, seed.dtype), tf.zeros((), seed.dtype)])


def example_batch(element_spec: Any) -> Any:
    """Return a batch of one row of zeros."""

    def zeros(spec: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([size or 1 for size in spec.shape], spec.dtype)

    return tree.map_structure(zeros, element_spec)
