"""One pass over any data that `fit` takes."""

from collections.abc import Iterator
from typing import Any

import keras

from kerasopt.callbacks._batches import arrays_of, is_array_like, row_count, take_rows


def data_pass(x: Any, y: Any, sample_weight: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Yield (x, y, sample_weight): rows of arrays in their order, or what a dataset yields."""
    if is_array_like(x):
        arrays = arrays_of(x, y, sample_weight)
        for start in range(0, row_count(arrays), batch_size):
            yield take_rows(arrays, slice(start, start + batch_size))
        return
    batches = (x[place] for place in range(len(x))) if hasattr(x, "__getitem__") else iter(x)
    for batch in batches:
        yield keras.utils.unpack_x_y_sample_weight(batch)
