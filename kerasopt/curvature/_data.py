"""The batches of any data that `fit` takes and that end."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasopt.callbacks._batches import arrays_of, is_array_like, row_count, take_rows

ROWS = 2048  # of a batch of arrays


def data_pass(x: Any, y: Any, sample_weight: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Yield (x, y, sample_weight): rows of arrays in their order, or what a dataset yields."""
    if is_array_like(x):
        arrays = arrays_of(x, y, sample_weight)
        for start in range(0, row_count(arrays), batch_size):
            yield take_rows(arrays, slice(start, start + batch_size))
    elif y is not None or sample_weight is not None:
        raise ValueError(
            "`y` and `sample_weight` must be None where `x` is a dataset, which has all of them. "
            f"Received: x={x!r}"
        )
    else:
        yield from map(keras.utils.unpack_x_y_sample_weight, _finite(x))


def all_batches(x: Any, y: Any, sample_weight: Any, batch_size: int | None) -> list[Any]:
    """Return (x, y, sample_weight) of each batch of arrays, of a dataset or of a `PyDataset`."""
    if batch_size is not None and not is_array_like(x):
        raise ValueError(
            "`batch_size` must be None where `x` is a dataset, which has its own. "
            f"Received: x={x!r}"
        )
    batches = list(data_pass(x, y, sample_weight, batch_size or ROWS))
    if not batches:
        raise ValueError(f"`x` must have at least one row. Received: x={x!r}")
    return [tree.map_structure(_tensor, batch, none_is_leaf=False) for batch in batches]


def _finite(x: Any) -> Iterator[Any]:
    """Yield the batches of a dataset that has an end."""
    if isinstance(x, keras.utils.PyDataset):
        count = x.num_batches
        get = x.__getitem__
        endless = count is None
    else:
        endless = hasattr(x, "cardinality") and int(x.cardinality()) == -1  # INFINITE
    if endless:
        raise ValueError(
            "`x` must have an end: all its batches are read. Take some of them, as by "
            f"`dataset.take(10)`. Received: x={x!r}"
        )
    return map(get, range(count)) if isinstance(x, keras.utils.PyDataset) else iter(x)


def _tensor(value: Any) -> Any:
    return ops.convert_to_tensor(np.asarray(value))
