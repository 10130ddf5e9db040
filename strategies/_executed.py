"""The graphs that TensorFlow executed for a function, one a device, read as one graph again."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

WITH_BIAS = "BackpropFilterWithBias"
SHARING = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims")  # their input's memory


@dataclass(frozen=True)
class Sent:
    """A tensor that goes from one device to another."""

    tensor: tf.Tensor
    source: str
    target: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return _bytes(self.tensor)


class Executed:
    """What ran when a function was called.

    Each tensor that is sent is here the input of an `Identity` on the device that receives it.
    """

    def __init__(self, function: Any, call: Callable[[], object]) -> None:
        traced = {op.name: op for op in function.graph.get_operations()}
        nodes, library = max(_recorded(call), key=lambda run: sum(n.name in traced for n in run[0]))
        sources = {_key(node): node.input[0] for node in nodes if node.op == "_Send"}
        kept = [_plain(node, sources, traced) for node in nodes if node.op != "_Send"]
        self._received = [node.name for node in nodes if node.op == "_Recv"]
        with tf.Graph().as_default() as self._graph:
            whole = self._graph.as_graph_def()  # empty, of the version that knows scalars
            whole.library.CopyFrom(library)
            whole.node.extend([*kept, *_repaired(kept)])
            tf.import_graph_def(whole, name="")

    def operations(self) -> list[tf.Operation]:
        """Return the operations but those that only stand for arguments, constants and sending."""
        none = ("Placeholder", "Const", "NoOp", "_Retval")
        found = self._graph.get_operations()
        return [each for each in found if each.type not in none and each.name not in self._received]

    def transfers(self) -> list[Sent]:
        """Return what is sent."""
        found = [self._graph.get_operation_by_name(name) for name in sorted(self._received)]
        return [Sent(op.inputs[0], op.inputs[0].device, op.device) for op in found]

    def largest(self) -> dict[str, int]:
        """Return how many bytes each device holds at most, beside variables and the batch.

        Operations are taken to run as soon as they can, all that can at once, and a tensor to go
        when all that take it have run.
        """
        alive: Counter[str] = Counter()
        most: Counter[str] = Counter()
        users: Counter[str] = Counter()
        held: dict[str, tf.Tensor] = {}  # what a tensor shares its memory with
        for operations in self._waves():
            touched: dict[str, tf.Tensor] = {}
            for operation in operations:
                shares = operation.type in SHARING and operation.name not in self._received
                for i, tensor in enumerate(operation.outputs):
                    holder = held[operation.inputs[i].name] if shares else tensor
                    held[tensor.name] = touched[holder.name] = holder
                    users[holder.name] += len(tensor.consumers())
                    alive[tensor.device] += 0 if shares else _held(tensor)
            most |= alive
            for operation in operations:
                for tensor in operation.inputs:
                    holder = held[tensor.name]
                    users[holder.name] -= 1
                    touched[holder.name] = holder
            for name, holder in touched.items():
                alive[holder.device] -= 0 if users[name] else _held(holder)
        return dict(most)

    def _waves(self) -> list[list[tf.Operation]]:
        """Return the operations that can run first, those that can then, and so on."""
        waves: dict[int, list[tf.Operation]] = {}
        wave: dict[str, int] = {}
        for operation in self._graph.get_operations():  # those that others need come first
            needed = [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
            wave[operation.name] = here = 1 + max((wave[each.name] for each in needed), default=-1)
            waves.setdefault(here, []).append(operation)
        return [waves[i] for i in range(len(waves))]


def _recorded(call: Callable[[], object]) -> list[tuple[list[Any], Any]]:
    """Return nodes and library of each function that is run for the first time within a call."""
    with tempfile.TemporaryDirectory() as folder:
        writer = tf.summary.create_file_writer(folder)
        tf.summary.trace_on(graph=True, profiler=False)
        call()
        with writer.as_default():
            tf.summary.trace_export("step", step=0)
        writer.close()
        records = [*tf.data.TFRecordDataset([str(path) for path in Path(folder).iterdir()])]
    summaries = [tf.compat.v1.Event.FromString(each.numpy()).summary for each in records]
    texts = [value.tensor.string_val[0] for each in summaries for value in each.value]
    found = [
        ([node for graph in run.partition_graphs for node in graph.node], graphs[0].library)
        for text in texts
        for run in tf.compat.v1.RunMetadata.FromString(text).function_graphs
        if (graphs := run.partition_graphs)
    ]
    if not found:
        raise RuntimeError(
            f"TensorFlow {tf.__version__} has not recorded the graphs that it ran, which "
            "`placement` reads."
        )
    return found


def _repaired(nodes: list[Any]) -> Iterator[Any]:
    """Yield what gives the gradients of biases their shapes, which TensorFlow takes to be others.

    oneDNN computes them with those of filters, in one operation.
    """
    fused = {node.name: node for node in nodes if node.op.endswith(WITH_BIAS)}
    for node in nodes:
        for i, source in enumerate(node.input):
            if source.endswith(":1") and source[:-2] in fused:
                node.input[i] = f"{source[:-2]}/bias"
    for name, node in fused.items():
        bias = tf.compat.v1.NodeDef(name=f"{name}/bias", op="BiasAddGrad", device=node.device)
        bias.input.append(node.input[2])
        bias.attr["T"].CopyFrom(node.attr["T"])
        yield bias


def _key(node: Any) -> tuple[bytes, bytes, bytes]:
    return tuple(node.attr[key].s for key in ("tensor_name", "send_device", "recv_device"))


def _plain(node: Any, sources: dict[Any, str], traced: dict[str, tf.Operation]) -> Any:
    """Return a node of one graph as it is in the graph of all.

    What has no shape in itself, and what TensorFlow has put in the place of its own operations,
    gets the shape that it had when the function was traced.
    """
    new = tf.compat.v1.NodeDef()
    new.CopyFrom(node)
    shapes = [t.shape for t in traced[node.name].outputs] if node.name in traced else []
    if node.op == "_Recv":
        new = tf.compat.v1.NodeDef(name=node.name, op="Identity", device=node.device)
        new.input.append(sources[_key(node)])
        new.attr["T"].type = node.attr["tensor_type"].type
    elif node.op in ("_Arg", "_DeviceArg", "ReadVariableOp"):
        new = tf.compat.v1.NodeDef(name=node.name, op="Placeholder", device=node.device)
        kind = node.attr["dtype" if node.op == "ReadVariableOp" else "T"].type
        new.attr["dtype"].type = kind
        if shapes:
            new.attr["shape"].shape.CopyFrom(shapes[0].as_proto())
    elif node.op.startswith("_") and shapes:
        shapes += [tf.TensorShape(None)] * node.op.endswith(WITH_BIAS)
        new.attr["_output_shapes"].list.shape.extend(shape.as_proto() for shape in shapes)
    return new


def _held(tensor: tf.Tensor) -> int:
    """Return the bytes that an operation takes for a tensor; a placeholder takes none."""
    return 0 if tensor.op.type == "Placeholder" else _bytes(tensor)


def _bytes(tensor: tf.Tensor) -> int:
    count = tensor.shape.num_elements()
    return (
        0
        if count is None or tensor.dtype in (tf.resource, tf.variant)
        else count * tensor.dtype.size
    )
