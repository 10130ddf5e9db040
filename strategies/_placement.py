"""What a training step ran where, and what it sent, as TensorFlow executed it."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from kerasopt._strategy import assign_metrics, metric_values
from kerasopt._tensorflow_columns import devices_of
from kerasopt.strategies._executed import Executed


@dataclass(frozen=True)
class Operation:
    """An operation that ran: `phase` is "forward", "backward" or "update"."""

    name: str
    type: str
    phase: str


@dataclass(frozen=True)
class Transfer:
    """A tensor that went from one device to another."""

    name: str
    source: str
    target: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass
class Device:
    """What one device has and does."""

    variables: dict[str, int] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    peak_bytes: int = 0
    peak_is_measured: bool = False


@dataclass
class Placement:
    """What is where in a training step, by `HybridParallel.placement`."""

    devices: dict[str, Device]
    transfers: list[Transfer]

    def __str__(self) -> str:
        """Return a table of the devices and one of what they send each other."""
        return "\n".join([*self._devices(), "", *self._transfers()])

    def _devices(self) -> Iterator[str]:
        yield "device   variables        bytes  forward  backward  update   peak bytes"
        for name, device in self.devices.items():
            phases = Counter(each.phase for each in device.operations)
            counts = (phases[phase] for phase in ("forward", "backward", "update"))
            forward, backward, update = counts
            how = "measured" if device.peak_is_measured else "by the graph"
            yield (
                f"{name:8} {len(device.variables):9,} {sum(device.variables.values()):12,} "
                f"{forward:8,} {backward:9,} {update:7,} {device.peak_bytes:12,} {how}"
            )

    def _transfers(self) -> Iterator[str]:
        yield "from     to       transfers        bytes"
        ways = {(each.source, each.target): None for each in self.transfers}
        for source, target in ways:
            sizes = [t.bytes for t in self.transfers if (t.source, t.target) == (source, target)]
            yield f"{source:8} {target:8} {len(sizes):9,} {sum(sizes):12,}"


def short(device: str) -> str:
    """Return the name of a device without what all of one machine have: `"GPU:1"`."""
    spec = tf.DeviceSpec.from_string(device)
    return f"{spec.device_type}:{spec.device_index}"


def measure(strategy: Any, model: keras.Model, batch: Any) -> Placement:
    """Run one training step on a batch, put everything back, and return what it was."""
    data = keras.tree.map_structure(lambda t: None if t is None else tf.convert_to_tensor(t), batch)
    data = (*data, None, None)[:3] if isinstance(data, tuple) else (data, None, None)
    devices = {short(name): Device() for row in strategy.grid for name in row}
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    with _kept([*model.variables, *model.optimizer.variables], model):
        model.train_on_batch(*data)  # builds what is not
        function = tf.function(
            lambda *data: strategy.run(model.train_step, args=(data,)), autograph=False
        )
        graphics = [name for name in devices if name.startswith("GPU")]
        for name in graphics:
            tf.config.experimental.reset_memory_stats(name)
        concrete = function.get_concrete_function(*data)
        executed = Executed(concrete, lambda: function(*data))
        for name in graphics:
            info = tf.config.experimental.get_memory_info(name)
            devices[name].peak_bytes, devices[name].peak_is_measured = info["peak"], True
    everything = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    for variable in {id(each): each for each in everything}.values():
        for place in devices_of(variable):
            there, path = devices[short(place)].variables, variable.path
            size = variable.value.dtype.size * variable.value.shape.num_elements()
            there[path] = there.get(path, 0) + size  # Keras may give a path twice
    return _filled(devices, executed, model.optimizer.name)


def _filled(devices: dict[str, Device], executed: Executed, optimizer: str) -> Placement:
    for operation in executed.operations():
        name = operation.name
        backward = "gradient_tape" in name
        phase = "backward" if backward else "update" if optimizer in name.split("/") else "forward"
        kind = operation.type.removeprefix("_MklNative").removeprefix("_Mkl").removeprefix("_")
        device = devices.setdefault(short(operation.device), Device())
        device.operations.append(Operation(name, kind, phase))
    transfers = [
        Transfer(
            name=sent.tensor.name,
            source=short(sent.source),
            target=short(sent.target),
            dtype=sent.tensor.dtype.name,
            shape=tuple(sent.tensor.shape),
            bytes=sent.bytes,
        )
        for sent in executed.transfers()
    ]
    for name, alive in executed.largest().items():
        if not (device := devices[short(name)]).peak_is_measured:
            device.peak_bytes = sum(device.variables.values()) + alive
    return Placement(devices, transfers)


@contextlib.contextmanager
def _kept(variables: Sequence[keras.Variable], model: keras.Model) -> Iterator[None]:
    """Put the values of variables and metrics back after the body."""
    values = [variable.numpy() for variable in variables]
    metrics = metric_values(model)
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        model.reset_metrics()
        if len(metrics) == len(model.metrics_variables):  # else they were not there before
            assign_metrics(model, metrics)
