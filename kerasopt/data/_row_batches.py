"""Batches of the rows of arrays, in an order of one's own."""

from typing import Any

import keras
import numpy as np

from kerasopt._validation import check_count
from kerasopt.callbacks._batches import take_rows


class RowBatches(keras.utils.PyDataset):
    """As many batches as it takes for `count` rows; a subclass says which by `rows`."""

    def __init__(self, arrays: Any, count: int, batch_size: int, seed: int | None) -> None:
        super().__init__()
        self.batch_size = check_count("batch_size", batch_size)
        if batch_size > count:
            raise ValueError(
                f"`batch_size` must be at most the number of samples, {count}. "
                f"Received: batch_size={batch_size}"
            )
        # Without a seed, one of NumPy's: `keras.utils.set_random_seed` makes it repeatable.
        drawn = int(np.random.randint(2**31)) if seed is None else seed
        self.seed = check_count("seed", drawn, least=0)
        self._arrays, self._count = arrays, count

    def __len__(self) -> int:
        return -(-self._count // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        return keras.utils.pack_x_y_sample_weight(*take_rows(self._arrays, self.rows(index)))

    def rows(self, index: int) -> np.ndarray:
        """Return which rows of the data are in a batch of this epoch."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `rows`.")

    def _span(self, index: int) -> slice:
        """Return the places of a batch in the order of this epoch."""
        if not 0 <= index < len(self):
            raise IndexError(
                f"`index` must be one of the {len(self)} batches. Received: index={index}"
            )
        return slice(index * self.batch_size, (index + 1) * self.batch_size)


def shard(rows: np.ndarray, num_shards: int, shard_index: int) -> np.ndarray:
    """Return every so-manyth row, the share of one worker."""
    check_count("num_shards", num_shards)
    if check_count("shard_index", shard_index, least=0) >= num_shards:
        raise ValueError(
            f"`shard_index` must be less than `num_shards`. Received: shard_index={shard_index}, "
            f"num_shards={num_shards}"
        )
    return rows[shard_index::num_shards]
