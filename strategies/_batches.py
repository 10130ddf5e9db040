"""Datasets as Keras' epochs read them under a strategy: whole batches, cut within the step."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras
import tensorflow as tf


class WholeBatches(tf.distribute.DistributedDataset):
    """A dataset of whole batches, of which every replica takes its rows.

    Before each `fit` and `evaluate` Keras opens the data to see what a batch looks like, reads one
    and drops the rest. That moves shuffled data on to its next order, and where the data is cached
    TensorFlow can take the drop for the end, so that all epochs are cut short. So Keras is shown
    the description of a batch instead, unless it leaves sizes open.

    `prepare` is called with the model at these occasions.
    """

    def __init__(self, dataset: tf.data.Dataset, prepare: Callable[[keras.Model], None]) -> None:
        self._dataset, self._prepare = dataset, prepare

    @property
    def element_spec(self) -> Any:
        """What a batch looks like."""
        return self._dataset.element_spec

    def cardinality(self) -> tf.Tensor:
        """Return the number of batches, or a negative number where that is not known."""
        return self._dataset.cardinality()

    def __iter__(self) -> Iterator[Any]:
        """Open the data, or its description."""
        if (model := _model_to_build()) is not None:
            self._prepare(model)
            if _is_described(self.element_spec):
                return iter([keras.tree.map_structure(_or_none, self.element_spec)])
        return iter(self._dataset)


def check_batches(dataset: tf.data.Dataset) -> None:
    """Refuse a dataset whose batches cannot be cut into rows."""
    for spec in keras.tree.flatten(dataset.element_spec):
        dense = isinstance(spec, tf.TensorSpec) and (spec.shape.rank is None or spec.shape.rank > 0)
        if not dense and not isinstance(spec, tf.OptionalSpec | tf.NoneTensorSpec):
            raise ValueError(
                "The dataset must give batches: dense tensors whose first dimension is that of the "
                f"samples. Call `batch` on it. Received: element_spec={dataset.element_spec!r}"
            )


def _model_to_build() -> keras.Model | None:
    """Return the model for whose building Keras opens the data, if that is what it does."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(3):  # Keras' epoch iterator lies between
        frame = frame and frame.f_back
    build = keras.Model._maybe_symbolic_build.__code__
    return frame.f_locals["self"] if frame is not None and frame.f_code is build else None


def _is_described(element_spec: Any) -> bool:
    """Return whether a model can be built from the description."""
    specs = [_or_none(spec) for spec in keras.tree.flatten(element_spec)]
    return all(s is None or (s.shape.rank and s.shape[1:].is_fully_defined()) for s in specs)


def _or_none(spec: Any) -> Any:
    return spec if isinstance(spec, tf.TensorSpec) else None
