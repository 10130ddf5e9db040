"""A batch of the training data, for callbacks to look at."""

from typing import Any

import keras
import numpy as np

from kerasopt._callers import callers
from kerasopt.callbacks._batches import arrays_of, is_array_like, row_count, take_rows


def rows_of_fit() -> tuple[Any, Any, Any]:
    """Return some of the training data of the calling `fit`."""
    fit = next(
        names
        for names in callers()
        if isinstance(names.get("self"), keras.Model) and "epoch_iterator" in names
    )
    x = fit["x"]
    if is_array_like(x):
        arrays = arrays_of(x, fit["y"], fit["sample_weight"])
        count = row_count(arrays)
        size = min(fit["batch_size"] or 32, count)
        return take_rows(arrays, np.linspace(0, count - 1, size).astype(int))
    if not isinstance(x, keras.utils.PyDataset) and iter(x) is x:
        raise ValueError(
            "`x` must be given where the training data come from a generator, of which no batch "
            f"can be taken beside. Received: x=None, with the training data {x!r}"
        )
    batch = x[0] if isinstance(x, keras.utils.PyDataset) else next(iter(x))
    return keras.utils.unpack_x_y_sample_weight(batch)
