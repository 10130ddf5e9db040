"""What puts weights, operations and tensors on the device of a column.

A strategy that has columns has `column_device(column, replica)`; all others run them in place.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasopt._masks import with_mask

_now = threading.local()


@contextlib.contextmanager
def building(column: int) -> Iterator[None]:
    """Let variables that are created in the body belong to a column."""
    before, _now.column = column_in_building(), column
    try:
        yield
    finally:
        _now.column = before


def column_in_building() -> int | None:
    """Return the column whose variables are being created, if any."""
    return getattr(_now, "column", None)


def misplaced(variables: Sequence[Any]) -> bool:
    """Return whether some variables are elsewhere than on the column in building."""
    strategy, column = tf.distribute.get_strategy(), column_in_building()
    if not hasattr(strategy, "column_device"):
        return False
    home = strategy.column_device(column, 0)
    return any(devices_of(variable)[0] != home for variable in variables)


def devices_of(variable: keras.Variable) -> tuple[str, ...]:
    """Return the devices of the copies of a variable, in the order of the replicas."""
    strategy = getattr(variable.value, "distribute_strategy", tf.distribute.get_strategy())
    return tuple(each.device for each in strategy.experimental_local_results(variable.value))


def device_of(column: int) -> str | None:
    """Return the device of a column in the replica that runs; None outside, or without columns."""
    device = getattr(tf.distribute.get_strategy(), "column_device", None)
    context = tf.distribute.get_replica_context()
    if device is None or context is None:
        return None
    return device(column, int(tf.get_static_value(context.replica_id_in_sync_group)))


def running(column: int) -> contextlib.AbstractContextManager[None]:
    """Run the operations of the body on the device of a column."""
    device = device_of(column)
    return contextlib.nullcontext() if device is None else tf.device(device)


def bring(tensor: Any, device: str | None) -> Any:
    """Return a tensor on a device; its gradient comes back to where the tensor was.

    Both cross once: a gradient that is made elsewhere is put down before anything is made of it.
    """
    if device is None or not tf.is_tensor(tensor):
        return tensor
    source = tensor.device or device

    @tf.custom_gradient
    def move(t: tf.Tensor) -> Any:
        def back(upstream: tf.Tensor) -> tf.Tensor:
            with tf.device(source):
                return tf.identity(upstream)

        return tf.identity(t), back

    with tf.device(device):
        moved = move(tensor) if tensor.dtype.is_floating else tf.identity(tensor)
        return with_mask(moved, tensor, tf.identity)
