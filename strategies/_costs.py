"""What training a model costs for each sample, taken from the model itself."""

import math
import re
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
from keras import layers

from kerasopt.layers import Column, CrossConnection
from kerasopt.strategies._flops import (
    ATTENTION,
    CONVOLUTIONS,
    ELEMENTWISE,
    SEPARABLE,
    TRANSPOSED,
    VIEWS,
    between,
    cells,
    elements,
    rule,
    scores,
)
from kerasopt.strategies._trace import Call, one_sample, record, tensors

PRODUCTS = ("Matmul", "Einsum", "Tensordot", "Dot", "Conv", "DotProductAttention")  # of keras.ops
MIXING = (layers.Dense, layers.EinsumDense, layers.RNN, *TRANSPOSED)  # all maps for each of theirs
BACKWARD = 2  # forward passes that a backward one takes: gradients of the inputs, of the weights


class Crossing(NamedTuple):
    """What columns exchange at one place: maps that the layers above need whole.

    Attributes:
        size: Bytes of all maps, for a sample.
        groups: Groups of maps that are not connected; where columns are groups nothing crosses.
        times: Number of exchanges, one after the other: of a recurrent layer one at each time.
    """

    size: float
    groups: int = 1
    times: int = 1

    def among(self, columns: int) -> tuple[float, float]:
        """Return the bytes that a column receives of the others, and in how many messages."""
        if self.groups % columns == 0:
            return 0.0, 0.0
        return self.size * (columns - 1) / columns, float(self.times * (columns - 1))


class Costs(NamedTuple):
    """What training a model costs.

    Attributes:
        work: Floating-point operations for a sample, forward and backward.
        gradients: Bytes of all trainable weights, and so of their gradients.
        state: Bytes of all weights, their gradients, and what the optimizer keeps.
        activations: Bytes of the outputs of all layers, for a sample: the backward pass needs them.
        crossings: What columns exchange in the forward pass.
        half: Whether the model computes in 16 bits.
    """

    work: float
    gradients: float
    state: float
    activations: float
    crossings: tuple[Any, ...]
    half: bool = False


def model_costs(model: keras.Model) -> Costs:
    """Return what training a model costs; warn of layers that are counted as zero."""
    call = record(model, one_sample(model))
    tally = Tally(call.inputs)  # a mini-batch is copied to every column
    tally.add(call)
    tally.cross(tensors(call.outputs))  # the loss needs the outputs whole
    if tally.unknown:
        warnings.warn(
            f"The operations of {sorted(tally.unknown)} are not known: they are counted as zero.",
            stacklevel=3,
        )
    gradients = weight_bytes(model.trainable_weights)
    return Costs(
        work=(1 + BACKWARD) * tally.flops,
        gradients=gradients,
        state=weight_bytes(model.weights) + gradients + slot_bytes(model),
        activations=tally.kept,
        crossings=tuple(tally.crossings),
        half=item_bytes(model.compute_dtype) == 2,
    )


class Tally:
    """Sums over the calls of all layers for one sample, and which tensors all columns have."""

    def __init__(self, whole: Iterable[Any] = ()) -> None:
        self.flops, self.kept = 0.0, 0.0
        self.crossings: list[Crossing] = []
        self.unknown: set[str] = set()
        self.whole = {id(t): t for t in whole}  # the tensors live as long as their ids are used

    def add(self, call: Call, in_column: bool = False) -> None:
        """Add a call and those within it."""
        if isinstance(call.layer, layers.TimeDistributed):
            self._add_each_time(call)
            return
        if isinstance(call.layer, CrossConnection):
            self.cross(call.inputs)
            self.whole.update((id(t), t) for t in tensors(call.outputs))
            return
        if not in_column:
            self._exchange(call)
        count = rule(call.layer)
        flops = count(call) if count else 0.0
        if flops is None or not (count or _is_explained(call)):
            self.unknown.add(f"{call.layer.name} ({type(call.layer).__name__})")
        self.flops += flops or 0.0
        self.kept += _kept(call)
        if not isinstance(call.layer, layers.RNN):  # which are counted with their cells
            for inner in call.calls:
                self.add(inner, in_column or isinstance(call.layer, Column))

    def _add_each_time(self, call: Call) -> None:
        """Count the layer within a `TimeDistributed`, which Keras does not call as others."""
        _, times, *shape = call.inputs[0].shape
        sample = keras.KerasTensor((1, *shape), call.inputs[0].dtype)
        within = record(call.layer.layer, sample)
        each = Tally(within.inputs if id(call.inputs[0]) in self.whole else ())
        each.add(within)
        self.flops += times * each.flops
        self.kept += times * each.kept
        self.unknown |= each.unknown
        self.crossings += [c._replace(size=times * c.size) for c in each.crossings]

    def _exchange(self, call: Call) -> None:
        """Note what columns that share each layer have to exchange for this one."""
        layer = call.layer
        if isinstance(layer, CONVOLUTIONS):
            self.cross(call.inputs, layer.groups)
        elif isinstance(layer, MIXING):
            self.cross(call.inputs[:1])
        elif isinstance(layer, SEPARABLE):  # columns of the depthwise part have no connection
            self.crossings.append(Crossing(item_bytes(call.inputs[0].dtype) * between(call)))
        elif all(id(t) in self.whole for t in call.inputs) and not _splits(layer):
            self.whole.update((id(t), t) for t in tensors(call.outputs))
        if isinstance(layer, layers.RNN):
            times = call.inputs[0].shape[1]
            states = times * sum(cell.units for cell in cells(call))
            size = item_bytes(call.inputs[0].dtype) * states
            self.crossings.append(Crossing(size, times=times))

    def cross(self, given: Iterable[Any], groups: int = 1) -> None:
        """Note tensors that cross, each once however many layers need it."""
        new = [t for t in given if id(t) not in self.whole]
        if groups == 1:
            self.whole.update((id(t), t) for t in new)
        self.crossings += [Crossing(item_bytes(t.dtype) * elements(t), groups) for t in new]


def _splits(layer: Any) -> bool:
    """Return whether columns have parts of what a layer gives, and not each the whole."""
    is_layer = isinstance(layer, keras.Layer)
    return is_layer and bool(layer.weights) and not isinstance(layer, ELEMENTWISE)


def _is_explained(call: Call) -> bool:
    """Return whether what has no rule is known by the calls within it, or has no products."""
    if not isinstance(call.layer, keras.Layer):
        return type(call.layer).__name__ not in PRODUCTS
    within = [each.layer for each in call.calls if isinstance(each.layer, keras.Layer)]
    known = {id(weight) for layer in within for weight in layer.weights}
    return bool(call.calls) and all(id(weight) in known for weight in call.layer.weights)


def _kept(call: Call) -> float:
    """Return the bytes that a layer gives the backward pass, beside what layers within it do."""
    if isinstance(call.layer, layers.RNN):  # gates at each time
        numbers = call.inputs[0].shape[1] * sum(cell.kernel.shape[-1] for cell in cells(call))
    elif isinstance(call.layer, ATTENTION):
        numbers = scores(call)
    elif call.calls or isinstance(call.layer, VIEWS):
        numbers = 0
    else:
        numbers = elements(call.outputs)
    return numbers * max((item_bytes(t.dtype) for t in tensors(call.outputs)), default=0)


def weight_bytes(weights: Iterable[Any]) -> float:
    """Return the bytes of variables."""
    return float(sum(math.prod(w.shape) * item_bytes(w.dtype) for w in weights))


def slot_bytes(model: keras.Model) -> float:
    """Return the bytes that the optimizer of a model keeps, if it is compiled."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0.0
    if optimizer.built:
        return weight_bytes(optimizer.variables)
    # What it keeps of one weight, it keeps of all.
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build([keras.Variable([0.0, 0.0])])
    slots = sum(tuple(variable.shape) == (2,) for variable in copy.variables)
    return slots * weight_bytes(model.trainable_weights)


def item_bytes(dtype: Any) -> int:
    """Return the bytes of a number: float16 has 2, bool 1."""
    bits = re.search(r"\d+", keras.backend.standardize_dtype(dtype))
    return int(bits[0]) // 8 if bits else 1
