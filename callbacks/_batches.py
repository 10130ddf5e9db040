"""Batches of any data that `fit` takes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree


def is_array_like(x: Any) -> bool:
    """Return whether data are arrays, or a structure of them, and not batches of their own."""
    return all(hasattr(leaf, "shape") for leaf in tree.flatten(x))


def endless_batches(
    x: Any, y: Any, sample_weight: Any, batch_size: int, seed: int
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (x, y, sample_weight): rows of arrays in random order, or what a dataset yields."""
    if not is_array_like(x):
        while True:
            batch = None
            for batch in x:
                yield keras.utils.unpack_x_y_sample_weight(batch)
            if batch is None:
                raise ValueError(f"`x` must have batches. Received: x={x!r}, which has no more")
    arrays = arrays_of(x, y, sample_weight)
    random, rows = np.random.default_rng(seed), row_count(arrays)
    while True:
        order = random.permutation(rows)
        for start in range(0, max(rows - batch_size, 0) + 1, batch_size):
            yield take_rows(arrays, order[start : start + batch_size])


def arrays_of(x: Any, y: Any, sample_weight: Any) -> Any:
    """Return the data as NumPy arrays; None stays."""
    return tree.map_structure(np.asarray, (x, y, sample_weight), none_is_leaf=False)


def row_count(arrays: Any) -> int:
    """Return the number of rows, which all arrays share."""
    counts = {len(array) for array in tree.flatten(arrays) if array is not None}
    if len(counts) != 1:
        raise ValueError(
            "`x`, `y` and `sample_weight` must have the same number of rows. Received: "
            f"{sorted(counts)}"
        )
    return counts.pop()


def take_rows(arrays: Any, rows: Any) -> Any:
    """Return some rows of all arrays."""
    return tree.map_structure(lambda array: array[rows], arrays, none_is_leaf=False)
