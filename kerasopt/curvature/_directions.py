"""Directions in the space of the weights."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from keras import ops


def random_direction(weights: Sequence[Any], random: np.random.Generator) -> list[np.ndarray]:
    """Return a random direction, normalised by filters; vectors and scalars do not move."""
    return [_like_filters(np.asarray(ops.convert_to_numpy(w), "float64"), random) for w in weights]


def _like_filters(w: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if w.ndim < 2:
        return np.zeros(w.shape)
    direction, axes = random.normal(size=w.shape), tuple(range(w.ndim - 1))
    lengths = [np.sqrt(np.sum(np.square(each), axis=axes)) for each in (w, direction)]
    return direction * (lengths[0] / lengths[1])


def check_directions(directions: Any, weights: Sequence[Any]) -> list[list[np.ndarray]]:
    """Return one or two directions as arrays of the shapes and types of the weights; else raise."""
    if not isinstance(directions, Sequence | np.ndarray) or isinstance(directions, str):
        raise TypeError(
            "`directions` must be 1, 2 or a list of directions. "
            f"Received: directions={directions!r}"
        )
    if len(directions) not in (1, 2):
        raise ValueError(
            "`directions` must be one, for a line, or two, for a plane. "
            f"Received: {len(directions)} directions"
        )
    return [_shaped(each, weights) for each in directions]


def _shaped(direction: Any, weights: Sequence[Any]) -> list[np.ndarray]:
    shapes = [tuple(weight.shape) for weight in weights]
    if isinstance(direction, np.ndarray) and direction.shape == (sum(map(prod, shapes)),):
        ends = np.cumsum([prod(shape) for shape in shapes])[:-1]
        parts = np.split(direction, ends)
        direction = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    arrays = [np.asarray(ops.convert_to_numpy(part)) for part in direction]
    if [array.shape for array in arrays] != shapes:
        raise ValueError(
            f"`directions` must have arrays of the shapes of the trainable weights, {shapes}, or "
            f"vectors of all of them. Received: shapes {[array.shape for array in arrays]}"
        )
    return [array.astype(weight.dtype) for array, weight in zip(arrays, weights, strict=True)]
