"""Floating-point operations of the layers of Keras, and what they keep and exchange.

A rule counts the forward pass for one call. A multiplication and an addition are two operations.
What is small beside the products is counted roughly: elementwise layers as one operation for each
output, pooling as one for each number in its window, gates and looking up as none.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import layers

from kerasopt.strategies._trace import Call, tensors

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
KNOWN_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
POOLING = (
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
)
GLOBAL_POOLING = (
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    layers.GlobalAveragePooling3D,
)
ELEMENTWISE = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax),
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization, layers.Normalization, layers.Rescaling),
    *(layers.Dropout, layers.GaussianDropout, layers.AlphaDropout, layers.GaussianNoise),
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum),
)
VIEWS = (layers.InputLayer, layers.Flatten, layers.Reshape, layers.Identity, layers.Masking)
COPIES = (
    *(layers.Concatenate, layers.Permute, layers.RepeatVector, layers.Embedding),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    layers.ActivityRegularization,
)


def elements(structure: Any) -> int:
    """Return how many numbers there are in the tensors of a structure."""
    return sum(math.prod(t.shape) for t in tensors(structure))


def _of_each(call: Call) -> float:
    return elements(call.outputs)


def _of_each_input(call: Call) -> float:
    return elements(call.inputs[0])


def _dense(call: Call) -> float:
    layer, outputs = call.layer, elements(call.outputs)
    return outputs * (2 * layer.kernel.shape[0] + layer.use_bias)


def _einsum(call: Call) -> float:
    """Each output is a sum over the indices of the kernel that it has not."""
    operands, result = call.layer.equation.split("->")
    kernel = dict(zip(operands.split(",")[1], call.layer.kernel.shape, strict=True))
    summed = math.prod(size for index, size in kernel.items() if index not in result)
    return elements(call.outputs) * (2 * summed + (call.layer.bias_axes is not None))


def _convolution(call: Call) -> float:
    """Each output is a sum over all axes of the kernel but the last."""
    summed = math.prod(call.layer.kernel.shape[:-1])
    return elements(call.outputs) * (2 * summed + call.layer.use_bias)


def _depthwise(call: Call) -> float:
    summed = math.prod(call.layer.kernel_size)
    return elements(call.outputs) * (2 * summed + call.layer.use_bias)


def between(call: Call) -> int:
    """Return how many numbers the depthwise part of a separable convolution gives."""
    layer, outputs = call.layer, elements(call.outputs)
    return outputs // layer.filters * layer.pointwise_kernel.shape[-2]


def _separable(call: Call) -> float:
    layer, outputs = call.layer, elements(call.outputs)
    pointwise = outputs * (2 * layer.pointwise_kernel.shape[-2] + layer.use_bias)
    return 2 * math.prod(layer.kernel_size) * between(call) + pointwise


def _transposed(call: Call) -> float:
    """Each input is added to a whole kernel of every filter."""
    layer = call.layer
    spread = elements(call.inputs[0]) * math.prod(layer.kernel_size) * layer.filters
    return 2 * spread + elements(call.outputs) * layer.use_bias


def _recurrent(call: Call) -> float | None:
    """At each time each number of the kernels is used once."""
    if not cells(call):
        return None
    kernels = [kernel for cell in cells(call) for kernel in (cell.kernel, cell.recurrent_kernel)]
    biases = [cell.bias for cell in cells(call) if cell.use_bias]
    return call.inputs[0].shape[1] * (2 * elements(kernels) + elements(biases))


def cells(call: Call) -> list[Any]:
    """Return the cells of a recurrent layer, none if there are others than those of Keras."""
    cell = call.layer.cell
    stacked = list(cell.cells) if isinstance(cell, layers.StackedRNNCells) else [cell]
    return stacked if all(isinstance(each, KNOWN_CELLS) for each in stacked) else []


def _attention(call: Call) -> float:
    """Scores and weighted sums; the projections are layers of their own."""
    if isinstance(call.layer, layers.GroupQueryAttention):
        return 4 * call.layer.head_dim * scores(call)
    return 2 * (call.layer.key_dim + (call.layer.value_dim or call.layer.key_dim)) * scores(call)


def scores(call: Call) -> int:
    """Return the number of heads, times queries, times values."""
    grouped = isinstance(call.layer, layers.GroupQueryAttention)
    heads = call.layer.num_query_heads if grouped else call.layer.num_heads
    query, value = call.arguments["query"], call.arguments["value"]
    return heads * math.prod(query.shape[1:-1]) * math.prod(value.shape[1:-1])


def _pooling(call: Call) -> float:
    return elements(call.outputs) * math.prod(call.layer.pool_size)


def _nothing(call: Call) -> float:
    return 0


RULES: dict[type, Callable[[Call], float | None]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(DEPTHWISE, _depthwise),
    **dict.fromkeys(SEPARABLE, _separable),
    **dict.fromkeys(TRANSPOSED, _transposed),
    layers.RNN: _recurrent,
    **dict.fromkeys(ATTENTION, _attention),
    **dict.fromkeys(POOLING, _pooling),
    **dict.fromkeys(GLOBAL_POOLING, _of_each_input),
    **dict.fromkeys(ELEMENTWISE, _of_each),
    **dict.fromkeys([*VIEWS, *COPIES], _nothing),
}


def rule(layer: Any) -> Callable[[Call], float | None] | None:
    """Return what counts a layer: the rule of its class, or of the next that it extends."""
    return next((RULES[each] for each in type(layer).__mro__ if each in RULES), None)
