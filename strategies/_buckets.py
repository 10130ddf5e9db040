"""Tensors joined to a few large ones, so that few are sent."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

LIMIT = 32 * 2**20  # bytes


def pack(
    tensors: list[Any],
    shapes: list[Any],
    limit: int = LIMIT,
    places: Sequence[Any] | None = None,
) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """Return what to reduce, and the function that makes the list of tensors from the results.

    Dense tensors of one type and one of the `places` are joined, in their order, to vectors; one
    that has reached `limit` bytes is full, so that n bytes of a kind need at most ⌈n / limit⌉. A
    sparse one travels alone; None stays.
    """
    sizes = [math.prod(shape) for shape in shapes]
    groups = _group(tensors, sizes, limit, places or [None] * len(tensors))

    def join(group: list[int]) -> Any:
        if len(group) == 1:
            return tensors[group[0]]
        return tf.concat([tf.reshape(tensors[i], [-1]) for i in group], axis=0)

    def unpack(reduced: list[Any]) -> list[Any]:
        out: list[Any] = [None] * len(tensors)
        for group, value in zip(groups, reduced, strict=True):
            if len(group) == 1:
                out[group[0]] = value
                continue
            parts = tf.split(value, [sizes[i] for i in group])
            for i, part in zip(group, parts, strict=True):
                out[i] = tf.reshape(part, shapes[i])
        return out

    return [join(group) for group in groups], unpack


def _group(
    tensors: list[Any], sizes: list[int], limit: int, places: Sequence[Any]
) -> list[list[int]]:
    groups: list[list[int]] = []
    newest: dict[Any, tuple[list[int], int]] = {}
    for i, tensor in enumerate(tensors):
        if tensor is None:
            continue
        if isinstance(tensor, tf.IndexedSlices):
            groups.append([i])
            continue
        group, filled = newest.get((tensor.dtype, places[i]), ([], limit))
        if filled >= limit:
            group, filled = [], 0
            groups.append(group)
        group.append(i)
        newest[tensor.dtype, places[i]] = group, filled + sizes[i] * tensor.dtype.size
    return groups
