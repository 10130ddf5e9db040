"""Data in batches whose size changes between epochs."""

from collections.abc import Callable, Iterator
from functools import total_ordering
from typing import Any

import keras
import numpy as np

from kerasopt.callbacks._batches import arrays_of, is_array_like, row_count, take_rows


class GrowingBatches(keras.utils.PyDataset):
    """All rows of the data once an epoch, in batches of the size that a function returns."""

    def __init__(self, source: "Rows | Elements", size: Callable[[], int]) -> None:
        super().__init__()
        self.source, self._next_size = source, size
        self.on_epoch_begin()

    def __len__(self) -> int:
        return -(-self.source.count // self._size)

    @property
    def num_batches(self) -> Any:
        """The number of batches, which Keras takes once for all epochs."""
        return _Count(self.__len__)

    def on_epoch_begin(self) -> None:
        """Take the size of this epoch, and put the rows in order."""
        self._size = self._next_size()
        self._batches = self.source.batches(self._size)

    def __getitem__(self, index: int) -> Any:
        return next(self._batches)


class Rows:
    """The rows of arrays, in a new order each time."""

    def __init__(self, x: Any, y: Any, sample_weight: Any, seed: int | None) -> None:
        self._arrays = arrays_of(x, y, sample_weight)
        self.count, self._seed, self.epoch = row_count(self._arrays), seed, 0

    def batches(self, size: int) -> Iterator[Any]:
        """Yield all rows in batches."""
        order = np.arange(self.count)
        if self._seed is not None:
            np.random.default_rng([self._seed, self.epoch]).shuffle(order)
        for start in range(0, self.count, size):
            x, y, weight = take_rows(self._arrays, order[start : start + size])
            yield keras.utils.pack_x_y_sample_weight(x, y, weight)


class Elements:
    """The elements of a `tf.data.Dataset`, in its own order."""

    def __init__(self, dataset: Any) -> None:
        self.count, self._dataset, self.epoch = int(dataset.cardinality()), dataset, 0
        if self.count < 0:
            raise ValueError(
                "`x` must have a known number of elements. Received: a dataset of cardinality "
                f"{self.count}; `tf.data.experimental.assert_cardinality` tells it."
            )

    def batches(self, size: int) -> Iterator[Any]:
        """Yield all elements in batches."""
        return self._dataset.batch(size).prefetch(2).as_numpy_iterator()


def source_of(x: Any, y: Any, sample_weight: Any, seed: int | None) -> Rows | Elements:
    """Return the rows of data."""
    if is_array_like(x):
        return Rows(x, y, sample_weight, seed)
    if not hasattr(x, "as_numpy_iterator"):
        raise TypeError(
            f"`x` must be arrays, or a `tf.data.Dataset` that is not in batches. Received: x={x!r}"
        )
    return Elements(x)


@total_ordering
class _Count:
    """A number of batches that is asked for whenever it is used."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def __index__(self) -> int:
        return self._now()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    def __lt__(self, other: Any) -> bool:
        return self._now() < other

    def __hash__(self) -> int:
        return id(self)

    def __sub__(self, other: Any) -> Any:
        return self._now() - other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._now()
