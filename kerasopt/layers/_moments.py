"""Means and (co)variances of data that are seen once, in blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class Moments:
    """What a pass over data leaves, in float64; those of two parts merge into those of both.

    `samples`: how many were seen. `count`: how many values of each feature. `mean`: of each
    feature, in the shape of a sample. `scatter`: the sum of their squared deviations from it, in
    that shape too, or the matrix of the products of each two.
    """

    samples: int
    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, block: np.ndarray, products: bool) -> "Moments":
        """Return the moments of a block of samples."""
        rows, shape = block.reshape(len(block), -1).astype("float64"), block.shape[1:]
        mean = rows.mean(axis=0)
        rows -= mean
        scatter = rows.T @ rows if products else np.einsum("ij,ij->j", rows, rows).reshape(shape)
        return cls(len(rows), len(rows), mean.reshape(shape), scatter)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both parts together.

            δ = mean₂ - mean₁,  share = n₂ / (n₁ + n₂)
            mean = mean₁ + share δ
            scatter = scatter₁ + scatter₂ + n₁ share δ δᵀ

        Reference: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing
        sample variances, 1979.
        """
        count = self.count + other.count
        share, delta = other.count / count, other.mean - self.mean
        weighted = self.count * share * delta
        scatter = (
            weighted * delta if self.scatter.shape == delta.shape else np.outer(weighted, delta)
        )
        scatter += self.scatter
        scatter += other.scatter
        return Moments(self.samples + other.samples, count, self.mean + share * delta, scatter)

    def pool(self, axes: tuple[int, ...]) -> "Moments":
        """Return the moments where the values along these axes of a sample are of one feature."""
        mean = self.mean.mean(axis=axes, keepdims=True)
        scatter = self.scatter + self.count * (self.mean - mean) ** 2
        count = self.count * (self.mean.size // mean.size)
        return Moments(self.samples, count, mean, scatter.sum(axis=axes, keepdims=True))


def blocks(batches: Iterable[np.ndarray], products: bool) -> Iterator[np.ndarray]:
    """Split large batches, and join small ones, to blocks of a size that is fast."""
    held: list[np.ndarray] = []
    for batch in batches:
        size = 4096 if products else 1 + 2**18 // batch[:1].size
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            if held and not _fits(rows, held, size):
                yield np.concatenate(held)
                held = []
            if len(rows) == size:
                yield rows
            else:
                held.append(rows.copy())  # whoever yields batches may write the next one over it
    if held:
        yield np.concatenate(held)


def _fits(rows: np.ndarray, held: list[np.ndarray], size: int) -> bool:
    return rows.shape[1:] == held[0].shape[1:] and len(rows) + sum(map(len, held)) <= size


def batches_of(data: Any) -> Iterator[np.ndarray]:
    """Yield the inputs of each batch of what `adapt` takes; those without samples are left out."""
    if _is_endless(data):
        raise ValueError(
            "`data` must end. Received: a dataset without end; pass a part of it, as "
            "`dataset.take(batches)` or `itertools.islice(dataset, batches)`"
        )
    if not isinstance(data, Iterable):
        raise TypeError(
            "`data` must be an array, a tensor, a dataset or an iterable of batches. Received: "
            f"data={data!r}"
        )
    for element in [data] if is_array(data) else data:
        batch = np.asarray(element[0] if isinstance(element, tuple | list) else element)
        if batch.dtype.kind not in "biufV":  # bfloat16 is of kind V
            raise TypeError(
                "`data` must be numbers, in batches x, (x, y) or (x, y, sample_weight). Received: "
                f"a batch of type {type(element).__name__}; choose the inputs of a dataset by `map`"
            )
        if batch.ndim == 0 or batch.size:
            yield batch


def is_array(data: Any) -> bool:
    """Return whether this is one array or tensor, not a sequence of batches."""
    return hasattr(data, "__array__")


def _is_endless(data: Any) -> bool:
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return hasattr(data, "cardinality") and int(data.cardinality()) == -1  # a `tf.data.Dataset`
