"""The messages between workers: how they are told apart, and that none is waited for without end.

This takes private names of TensorFlow, which does neither in a way that serves: it numbers messages
in Python when a step is called, which fails where the step is in a loop, as with Keras'
`steps_per_execution`; and its `timeout_seconds` keeps a sleeping thread for each message, thousands
of them in fast steps.
"""

import atexit
import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.context import context

FIRST = 2**24  # far from the numbers that TensorFlow gives to the initial values of variables
SILENT = "no message has come for `timeout` seconds"


class Messages:
    """Counts the messages of a `MultiWorkerMirroredStrategy`, and ends a wait that is too long.

    The graphs themselves count. All workers run the same steps, and TensorFlow keeps the order of
    the counts within each, so that a message has the same number everywhere.
    """

    def __init__(self, strategy: Any, timeout: float) -> None:
        self.timeout = timeout
        self._counts: list[tf.Variable] = []
        self._depth = self._waits = 0
        self._ended = threading.Event()
        extended = strategy.extended
        for operations in (extended._cross_device_ops, extended._host_cross_device_ops):
            for launcher in operations._launchers:
                with tf.device("CPU:0"):
                    self._counts.append(tf.Variable(FIRST, dtype=tf.int32, trainable=False))
                launcher._next_instance_key = functools.partial(_next, self._counts[-1])

    def watch(self) -> None:
        """Begin to end waits in which nothing has come for `timeout` seconds."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        atexit.register(thread.join)
        atexit.register(self._ended.set)  # runs before

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Say that the body waits for messages."""
        self._depth += 1
        self._waits += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Say that the body, within a wait, works by itself: it traces a step."""
        depth, self._depth = self._depth, 0
        try:
            yield
        finally:
            self._depth = depth
            self._waits += 1

    def _watch(self) -> None:
        before: Any = None
        since = time.monotonic()
        while not self._ended.wait(min(1.0, self.timeout / 4)):
            now = self._waits, *(int(count.numpy()) for count in self._counts)
            if now != before or not self._depth:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > self.timeout:
                context().abort_collective_ops(tf.errors.UNAVAILABLE, SILENT)
                return


def _next(count: tf.Variable) -> tf.Tensor:
    with tf.device("CPU:0"):
        return tf.identity(count.assign_add(1))
