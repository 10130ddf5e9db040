"""All weights as one vector."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

ROUNDING = {"float32": 2.0**-23, "float64": 2.0**-52}  # of a number near 1


def widest(tensors: Sequence[Any]) -> str:
    """Return float64 if a tensor is of it, else float32."""
    return "float64" if any(tensor.dtype == "float64" for tensor in tensors) else "float32"


def ravel(tensors: Sequence[Any]) -> Any:
    """Return the elements of tensors, end to end."""
    return ops.concatenate([ops.reshape(tensor, (-1,)) for tensor in tensors])


def unravel(vector: Any, like: Sequence[Any]) -> list[Any]:
    """Return a vector as tensors of the shapes and types of others."""
    ends = [0]
    for tensor in like:
        ends.append(ends[-1] + math.prod(tensor.shape))
    return [
        ops.cast(ops.reshape(vector[start:end], tensor.shape), tensor.dtype)
        for start, end, tensor in zip(ends[:-1], ends[1:], like, strict=True)
    ]


def norm(tensors: Sequence[Any]) -> Any:
    """Return the length of the vector of all elements, in float32 at least."""
    wide = widest(tensors)
    return ops.sqrt(sum(ops.sum(ops.square(ops.cast(t, wide))) for t in tensors))
