"""The numbers by which workers tell their messages apart.

TensorFlow draws them in Python when a step is called, which fails where the step is in a loop, as
with Keras' `steps_per_execution`. Here the graph counts them itself. This takes private names.
"""

import functools
from typing import Any

import tensorflow as tf

FIRST = 2**24  # far from those that TensorFlow gives to the initial values of variables


def count_in_graph(strategy: Any) -> None:
    """Let the messages of a `MultiWorkerMirroredStrategy` be counted by its graphs."""
    extended = strategy.extended
    for operations in (extended._cross_device_ops, extended._host_cross_device_ops):
        for launcher in operations._launchers:
            with tf.device("CPU:0"):
                count = tf.Variable(FIRST, dtype=tf.int32, trainable=False)
            launcher._next_instance_key = functools.partial(_next, count)


def _next(count: tf.Variable) -> tf.Tensor:
    # All workers run the same steps, and TensorFlow keeps the order of the counts within each.
    with tf.device("CPU:0"):
        return tf.identity(count.assign_add(1))
