"""Data parallelism on the devices of one machine."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class DataParallel(tf.distribute.MirroredStrategy):
    """Trains one model on several devices, each with its share of every batch.

    Every device holds a copy of the weights and computes the gradients of its samples; the
    gradients are summed over the devices and every copy takes the same step. Use it when the model
    fits one device and the batch is large enough to keep several busy.

        g = (1/n) Σ_r Σ_{p in share r} ∇J_p,   w ← w - η g   on every device

    It is `tf.distribute.MirroredStrategy` with its devices checked before anything is built on
    them: build and compile the model under `scope()`, call `fit` outside. Batches should divide by
    the number of devices (`drop_remainder=True`): from an uneven batch TensorFlow's own engine,
    which this class is for now, makes a gradient that weighs samples unequally.

    Args:
        devices: Names such as `["GPU:0", "GPU:1"]`, all of one kind. Defaults to all GPUs, or to
            all (logical) CPUs where there is none.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
        TypeError: `devices` is not a list of names.
        ValueError: `devices` is empty, has a device twice or devices of mixed kinds, or names one
            that this machine lacks.

    Reference:
        Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.

    Example:
        >>> import keras, kerasopt
        >>> strategy = kerasopt.strategies.DataParallel(["CPU:0"])
        >>> with strategy.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        >>> strategy.num_replicas_in_sync
        1
    """

    def __init__(self, devices: Sequence[str] | None = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "`DataParallel` needs Keras' TensorFlow backend. Received: "
                f"KERAS_BACKEND={keras.backend.backend()}. On JAX use "
                "`keras.distribution.DataParallel`."
            )
        names = _default_devices() if devices is None else _check_devices(devices)
        # The default on CPUs, collective operations, aborts when strategies of two sizes live in
        # one process.
        on_cpu = names[0].startswith("/device:CPU")
        reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
        super().__init__(names, cross_device_ops=reduction)


def _default_devices() -> list[str]:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [device.name for device in tf.config.list_logical_devices(kind)]


def _check_devices(devices: Sequence[str]) -> list[str]:
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise TypeError(
            "`devices` must be a list of device names such as ['GPU:0', 'GPU:1']. "
            f"Received: devices={devices!r}"
        )
    received = f"Received: devices={list(devices)!r}"
    names = [_full_name(device) for device in devices]
    there = [device.name for device in tf.config.list_logical_devices()]
    if not names:
        raise ValueError(f"`devices` must name at least one of {there}. {received}")
    if unknown := [name for name in names if name not in there]:
        raise ValueError(
            f"`devices` must be devices of this machine, which are {there}; {unknown} are not. "
            f"{received}. Logical CPUs are made by `tf.config.set_logical_device_configuration` "
            "before TensorFlow starts."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"`devices` must name each device once. {received}")
    if len({tf.DeviceSpec.from_string(name).device_type for name in names}) > 1:
        raise ValueError(f"`devices` must all be of one kind. {received}")
    return names


def _full_name(device: str) -> str:
    """Return the name under which TensorFlow lists a device: `"gpu:1"` is `"/device:GPU:1"`."""
    if not isinstance(device, str):
        raise TypeError(f"`devices` must hold names such as 'GPU:0'. Received: {device!r}")
    try:
        spec = tf.DeviceSpec.from_string(device)
    except ValueError:
        raise ValueError(
            f"`devices` must hold names such as 'GPU:0'. Received: {device!r}"
        ) from None
    return f"/device:{spec.device_type}:{spec.device_index or 0}"
