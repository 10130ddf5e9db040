"""What keeps the operations of a step on the devices where their data is."""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def following(home: str) -> Iterator[None]:
    """Let operations that are made in the body without a device go where their data is.

    TensorFlow gives a device to what is written within `tf.device`, but neither to its gradient nor
    to what optimizers do with that. Data from several devices are followed to the largest, away
    from `home` if there are two; without any, an operation goes to `home`.
    """
    # A constant gets no device: TensorFlow puts it where it is used.
    with tf.device(None), tf.compat.v1.device(functools.partial(_device, home)):
        yield


def _device(home: str, operation: tf.Operation) -> str:
    if operation.device or operation.type == "Const":
        return operation.device
    devices = [(_where(t), _size(t)) for t in operation.inputs]
    placed = [(size, device != home, device) for device, size in devices if device]
    return max(placed)[-1] if placed else home


def _size(tensor: tf.Tensor) -> float:
    """Return the number of elements; one that is not known is taken to be large."""
    count = tensor.shape.num_elements()
    return math.inf if count is None or tensor.dtype == tf.resource else count


def _where(tensor: Any) -> str:
    """Return the device of a tensor; one that a function has captured is where it is outside."""
    if tensor.device or getattr(tensor, "graph", None) is None:
        return tensor.device
    for outer, inner in getattr(tensor.graph, "captures", ()):
        if inner is tensor:
            return _where(outer)
    # TensorFlow reads variables where they are, and does not say where.
    return _where(tensor.op.inputs[0]) if tensor.op.type == "ReadVariableOp" else ""


class Summed(tf.distribute.ReplicaContext):
    """The context in which an optimizer acts on sums of gradients: there is nothing to add up.

    Without it TensorFlow's sum over one replica joins all gradients in one operation, and that has
    one device.
    """

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """Return the sums."""
        return value
