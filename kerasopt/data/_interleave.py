"""Samples in an order in which classes take turns."""

from typing import Any

import keras
import numpy as np
from keras import tree

from kerasopt._validation import check_count
from kerasopt.callbacks._batches import arrays_of, row_count
from kerasopt.data._class_order import class_order
from kerasopt.data._row_batches import RowBatches, shard


def interleave_classes(
    data: Any,
    labels: Any = None,
    batch_size: int = 32,
    seed: int | None = None,
    num_classes: int | None = None,
    num_shards: int = 1,
    shard_index: int = 0,
) -> keras.utils.PyDataset:
    """Return batches for `fit` in which classes take turns, each sample once an epoch.

    A network learns most from the sample that differs most from those before it, and shuffling
    alone gives batches in which some classes are missing. Here each batch has of each class its
    share of the data, rounded down or up: where classes are equally frequent, their numbers in a
    batch differ by one at most. Samples that follow each other are of different classes, also from
    one batch to the next, as far as there are enough of others: a class that makes up more than
    half of the data has to meet itself. Both the turns and the samples of each class are in a new
    order in each epoch.

    What is returned is a `keras.utils.PyDataset`, which `fit` takes on every backend; in a loop of
    one's own, call its `on_epoch_begin()` before each epoch, and take `dataset[index]`. The order
    depends on the seed and the number of the epoch alone, so that training which goes on by
    `callbacks.Resume` sees what it would have seen; elsewhere `get_state()` and `set_state(state)`
    keep the place. `rows(index)` tells which samples are in a batch.

    Args:
        data: A tuple (x, y) or (x, y, sample_weight) of arrays, or structures of them; or x alone,
            with `labels` as targets; or a `tf.data.Dataset` of such samples that is not in batches,
            which is read into memory, once.
        labels: The class of each sample, an integer ≥ 0. Defaults to the targets y.
        batch_size: Number of samples in a batch, of which the last one may be smaller: ≥ 1 and at
            most the number of samples. Defaults to 32.
        seed: Integer ≥ 0 for a repeatable order, or None: from NumPy's random numbers, which
            `keras.utils.set_random_seed` seeds. Defaults to None.
        num_classes: Number of classes, to have the labels checked, or None: those that occur.
            Defaults to None.
        num_shards: Into how many shares the samples are cut, for as many workers, ≥ 1: all classes
            are in each, and their sizes differ by one sample at most. Defaults to 1, which is right
            under `kerasopt.strategies` too.
        shard_index: Which of these it is, counted from 0. Defaults to 0.

    Raises:
        TypeError: Labels are not integers, or another argument has the wrong type.
        ValueError: There are no samples, or not as many as labels; labels are one-hot, negative, or
            not less than `num_classes`; a class has no samples, where `num_classes` is given;
            `batch_size` is larger than the number of samples, or a number is out of range; a
            dataset never ends.

    Reference:
        LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.2; X. Wang, Optimization
        for Training Deep Models, lecture, 2015.

    Example:
        >>> import numpy as np, kerasopt.data
        >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> dataset = kerasopt.data.interleave_classes((labels, labels), batch_size=4, seed=0)
        >>> [sorted(y.tolist()) for x, y in dataset]
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    x, y, sample_weight = _samples(data, labels)
    arrays = arrays_of(x, y, sample_weight)
    classes = _check_labels(y if labels is None else labels, row_count(arrays), num_classes)
    rows = shard(np.argsort(classes, kind="stable"), num_shards, shard_index)
    return _InterleavedClasses(arrays, rows, classes[rows], batch_size, seed)


class _InterleavedClasses(RowBatches):
    """Rows of arrays whose classes take turns."""

    def __init__(
        self, arrays: Any, rows: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
    ) -> None:
        super().__init__(arrays, len(rows), batch_size, seed)
        self._rows, self._labels = rows, np.unique(labels, return_inverse=True)[1]
        self._begin(0)

    def rows(self, index: int) -> np.ndarray:
        """Return which rows of the data are in a batch of this epoch."""
        return self._order[self._span(index)]

    def on_epoch_begin(self) -> None:
        """Put the rows into the order of the next epoch."""
        self._begin(self._epoch + 1)

    def get_state(self) -> dict[str, int]:
        """Return the number of the epoch, and the seed."""
        return {"epoch": self._epoch, "seed": self.seed}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from what `get_state` returned."""
        self.seed = state["seed"]
        self._begin(state["epoch"])

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        random = np.random.default_rng([self.seed, epoch])
        self._order = self._rows[class_order(self._labels, self.batch_size, random)]


def _samples(data: Any, labels: Any) -> tuple[Any, Any, Any]:
    if hasattr(data, "as_numpy_iterator"):
        data = _read(data)
    if isinstance(data, tuple):
        return keras.utils.unpack_x_y_sample_weight(data)
    return data, None if labels is None else np.asarray(labels), None


def _read(dataset: Any) -> Any:
    """Return the elements of a `tf.data.Dataset` as arrays."""
    if int(dataset.cardinality()) == -1:
        raise ValueError(
            "`data` must end. Received: a dataset that repeats for ever; leave out `repeat()`."
        )
    parts = list(dataset.batch(1024).as_numpy_iterator())
    if not parts:
        raise ValueError("`data` must have samples. Received: an empty dataset")
    return tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)


def _check_labels(labels: Any, count: int, num_classes: int | None) -> np.ndarray:
    if labels is None:
        raise ValueError(
            "`labels` must be given where `data` has no targets. Received: labels=None"
        )
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            "`labels` must be one integer for each sample. Received: labels of shape "
            f"{labels.shape}. For one-hot labels pass `labels.argmax(axis=-1)`; of a dataset in "
            "batches pass `dataset.unbatch()`."
        )
    if len(labels) != count or not count:
        raise ValueError(
            "`labels` must be as many as the samples, and at least one. Received: "
            f"{len(labels)} labels, {count} samples"
        )
    if labels.dtype.kind not in "biu":
        raise TypeError(
            f"`labels` must be integers. Received: labels of dtype {labels.dtype}; if they are "
            "whole numbers, pass `labels.astype(int)`."
        )
    _check_classes(labels, num_classes)
    return labels.astype(np.int64)


def _check_classes(labels: np.ndarray, num_classes: int | None) -> None:
    if num_classes is None:
        inside, rule = labels >= 0, "≥ 0"
    else:
        check_count("num_classes", num_classes)
        inside, rule = (labels >= 0) & (labels < num_classes), f"in [0, {num_classes})"
    if not inside.all():
        raise ValueError(
            f"`labels` must be integers {rule}. Received: {np.unique(labels[~inside])[:5]} in "
            f"{(~inside).sum()} samples, the first of which is {np.argmin(inside)}"
        )
    if missing := sorted({*range(num_classes or 0)} - {*labels.tolist()}):
        raise ValueError(
            f"`labels` must have samples of each of the {num_classes} classes. Received: none of "
            f"{missing}. Leave out `num_classes` to interleave those that occur."
        )
