"""Gradients joined to a few large tensors, so that few are sent."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

LIMIT = 32 * 2**20  # bytes


def pack(
    gradients: list[Any], weights: list[Any], limit: int = LIMIT
) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """Return what to reduce, and the function that makes the list of gradients from the results.

    Dense gradients of one type are joined, in their order, to vectors of at most `limit` bytes; a
    larger one travels alone, and so does a sparse one. None stays None.
    """
    sizes = [math.prod(weight.shape) for weight in weights]
    groups = _group(gradients, sizes, limit)

    def join(group: list[int]) -> Any:
        if len(group) == 1:
            return gradients[group[0]]
        return tf.concat([tf.reshape(gradients[i], [-1]) for i in group], axis=0)

    def unpack(reduced: list[Any]) -> list[Any]:
        out: list[Any] = [None] * len(gradients)
        for group, value in zip(groups, reduced, strict=True):
            if len(group) == 1:
                out[group[0]] = value
                continue
            parts = tf.split(value, [sizes[i] for i in group])
            for i, part in zip(group, parts, strict=True):
                out[i] = tf.reshape(part, weights[i].shape)
        return out

    return [join(group) for group in groups], unpack


def _group(gradients: list[Any], sizes: list[int], limit: int) -> list[list[int]]:
    groups: list[list[int]] = []
    room: dict[tf.DType, tuple[list[int], int]] = {}
    for i, gradient in enumerate(gradients):
        if gradient is None:
            continue
        if isinstance(gradient, tf.IndexedSlices):
            groups.append([i])
            continue
        size = sizes[i] * gradient.dtype.size
        group, left = room.get(gradient.dtype, ([], 0))
        if size > left:
            group, left = [], limit
            groups.append(group)
        group.append(i)
        room[gradient.dtype] = group, left - size
    return groups
