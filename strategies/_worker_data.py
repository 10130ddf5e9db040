"""The dataset of each worker that trains on its own, from the function that a user gives."""

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasopt._validation import check_count
from kerasopt.strategies._batches import check_batches


class WorkerData:
    """What a function gives each of several workers; raises if it is no such function.

    Args:
        dataset_fn: A function of nothing, whose batches the workers deal out among themselves, or
            of a `tf.distribute.InputContext`, which says what a worker is to read.
        workers: Their number.
    """

    def __init__(self, dataset_fn: Callable[..., tf.data.Dataset], workers: int) -> None:
        if not callable(dataset_fn):
            raise TypeError(
                "`dataset_fn` must be a function that returns a `tf.data.Dataset`: every worker "
                "makes its own, such as by `lambda: tf.data.Dataset.from_tensor_slices((x, y))"
                f".shuffle(1000).batch(32)`. Received: dataset_fn={dataset_fn!r}"
            )
        self._function, self._workers = dataset_fn, workers
        self._takes_context = bool(inspect.signature(dataset_fn).parameters)
        parts = [self._call(i) for i in range(workers if self._takes_context else 1)]
        self.element_spec = parts[0].element_spec
        counts = [int(part.cardinality()) for part in parts]
        self._batches = sum(counts) if min(counts) > 0 else None

    def steps(self, steps_per_epoch: int | None) -> int:
        """Return the steps of all workers in an epoch: those that are given, or all batches."""
        if steps_per_epoch is not None:
            return check_count("steps_per_epoch", steps_per_epoch)
        if self._batches is None:
            raise ValueError(
                "`steps_per_epoch` must be given where the number of batches is not known or has "
                "no end. Received: steps_per_epoch=None"
            )
        return self._batches

    def of_this_worker(self) -> tf.data.Dataset:
        """Return the endless dataset of the worker in which this runs."""
        worker = tf.distribute.coordinator.experimental_get_current_worker_index()
        data = self._call(worker).repeat()
        if self._takes_context:
            return data
        return data.shard(self._workers, tf.cast(worker, tf.int64))

    def _call(self, worker: Any) -> tf.data.Dataset:
        context = tf.distribute.InputContext(self._workers, worker, num_replicas_in_sync=1)
        data = self._function(*[context] * self._takes_context)
        if not isinstance(data, tf.data.Dataset):
            raise TypeError(
                "`dataset_fn` must be a function that returns a `tf.data.Dataset`. "
                f"Received: a function that returns {data!r}"
            )
        check_batches(data)
        return data
