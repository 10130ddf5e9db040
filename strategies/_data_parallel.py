"""Data parallelism on the devices of one machine."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasopt._validation import check_choice
from kerasopt.strategies._buckets import LIMIT
from kerasopt.strategies._exact import EXACT, ExactReplicas, check_backend

REDUCTIONS = {
    "nccl": tf.distribute.NcclAllReduce,
    "hierarchical": tf.distribute.HierarchicalCopyAllReduce,
    "one_device": tf.distribute.ReductionToOneDevice,
}


class DataParallel(ExactReplicas, tf.distribute.MirroredStrategy):
    """Trains one model on several devices, each with its share of every batch, as one device would.

    Every device holds a copy of the weights and computes the gradient of its samples; the sum is
    the gradient of the whole batch, with which the optimizer takes one step for all copies. Use it
    when the model fits one device and the batch is large enough to keep several busy.

        g = Σ_r ∂J(batch)/∂w through the rows of replica r,   w ← w - η g   in every copy

    Build and compile the model under `scope()`, call `fit`, `evaluate` and `predict` outside. With
    `tf.distribute.MirroredStrategy`, which this class extends, the result depends on the number of
    devices: uneven batches are weighed wrongly or crash, clipping acts before the sum, noise is the
    same on all devices, accumulation of gradients fails. Here losses, metrics and weights are those
    of one device on the same batches, to the rounding of sums, because

    - the loss is that of the whole batch: targets and outputs are gathered from all replicas;
    - `BatchNormalization` takes its moments over the whole batch;
    - dropout and random layers draw for the whole batch, and each replica keeps its rows;
    - the optimizer acts once, on the summed gradient: clipping, accumulation, moving averages;
    - a replica may have no rows, and batches of any size are split.

    What has to be known: losses that layers add by `add_loss` must be means over samples; metrics
    are computed on the first device, and only they are logged of what `compute_metrics` returns;
    the outputs and targets for all rows go to every device. `experimental_distribute_dataset`
    serves `fit`, `evaluate` and `predict`; loops of your own need TensorFlow's strategies.

    Args:
        devices: Names such as `["GPU:0", "GPU:1"]`, all of one kind. Defaults to all GPUs, or to
            all (logical) CPUs where there is none.
        reduction: How gradients are summed: `"nccl"` (GPUs), `"hierarchical"` (an even number of
            devices), `"one_device"`, or `"auto"`: what TensorFlow chooses for GPUs, and one device
            for CPUs. Defaults to `"auto"`.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow; later, when `fit` is called
            within `scope()`.
        TypeError: `devices` is not a list of names; later, when the model overrides `train_step`
            or `test_step`.
        ValueError: `devices` is empty, has a device twice or devices of mixed kinds, or names one
            that this machine lacks; `reduction` is unknown or does not go with the devices; later,
            when weights of the model were built outside of `scope()`, the model is compiled by XLA
            for several devices, or a dataset does not give batches.

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

    def __init__(self, devices: Sequence[str] | None = None, reduction: str = "auto") -> None:
        check_backend("DataParallel")
        names = default_devices() if devices is None else check_devices(devices)
        self.reduction = _check_reduction(reduction, names)
        operation = REDUCTIONS.get(self.reduction)
        super().__init__(names, cross_device_ops=operation and operation())

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the replicas, their devices and what is reduced how.

        Args:
            print_fn: Function that takes the text, line by line. Defaults to `print`.
        """
        for index, device in enumerate(self.extended.worker_devices):
            print_fn(f"replica {index} on {device}")
        print_fn(f"gradients: summed by {self.reduction!r} in buckets of {LIMIT >> 20} MiB")
        print_fn(EXACT)


def _check_reduction(reduction: str, names: list[str]) -> str:
    check_choice("reduction", reduction, ["auto", *REDUCTIONS])
    on_cpu = names[0].startswith("/device:CPU")
    if reduction == "auto":
        # TensorFlow's own choice for CPUs, collective operations, aborts where strategies of two
        # sizes live in one process.
        return "one_device" if on_cpu else "auto"
    received = f"Received: reduction={reduction!r}, devices={names!r}"
    if reduction == "nccl" and on_cpu:
        raise ValueError(f"`reduction` 'nccl' needs GPUs; use 'one_device'. {received}")
    if reduction == "hierarchical" and len(names) % 2:
        raise ValueError(
            "`reduction` 'hierarchical' needs an even number of devices: TensorFlow silently loses "
            f"one of an odd number. Use 'one_device' or 'nccl'. {received}"
        )
    return reduction


def default_devices() -> list[str]:
    """Return the names of all GPUs, or of all (logical) CPUs where there is none."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [device.name for device in tf.config.list_logical_devices(kind)]


def check_devices(devices: Any, name: str = "devices") -> list[str]:
    """Return the full names of devices of this machine; raise if they are not."""
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise TypeError(
            f"`{name}` must be a list of device names such as ['GPU:0', 'GPU:1']. "
            f"Received: {name}={devices!r}"
        )
    received = f"Received: {name}={list(devices)!r}"
    names = [_full_name(device, name) for device in devices]
    there = [device.name for device in tf.config.list_logical_devices()]
    if not names:
        raise ValueError(f"`{name}` must name at least one of {there}. {received}")
    if unknown := [each for each in names if each not in there]:
        raise ValueError(
            f"`{name}` must be devices of this machine, which are {there}; {unknown} are not. "
            f"{received}. Logical CPUs are made by `tf.config.set_logical_device_configuration` "
            "before TensorFlow starts."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"`{name}` must name each device once. {received}")
    if len({tf.DeviceSpec.from_string(each).device_type for each in names}) > 1:
        raise ValueError(f"`{name}` must all be of one kind. {received}")
    return names


def _full_name(device: Any, name: str) -> str:
    """Return the name under which TensorFlow lists a device: `"gpu:1"` is `"/device:GPU:1"`."""
    if not isinstance(device, str):
        raise TypeError(f"`{name}` must hold names such as 'GPU:0'. Received: {device!r}")
    try:
        spec = tf.DeviceSpec.from_string(device)
    except ValueError:
        raise ValueError(
            f"`{name}` must hold names such as 'GPU:0'. Received: {device!r}"
        ) from None
    return f"/device:{spec.device_type}:{spec.device_index or 0}"
