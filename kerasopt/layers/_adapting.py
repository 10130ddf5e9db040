"""What layers share that learn their weights from data, in one pass before training."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

import keras
import numpy as np

from kerasopt._validation import check_flag
from kerasopt.layers._moments import Moments, batches_of, blocks, is_array


class Adapting(keras.layers.Layer):
    """A layer that is adapted to data; mixed into a layer of Keras, before it.

    A subclass tells in `features` the shape of a sample, with None for sizes that may differ, in
    `products` whether it wants the covariances, and in `settle` what its weights become.
    """

    products = False
    count: Any = None  # a weight of the number of samples
    _adapted = False
    _moments: Moments | None = None

    @property
    def compute_dtype(self) -> str:
        """The type of the weights, also in mixed precision: what follows casts what it gets."""
        return self.variable_dtype

    @property
    def features(self) -> tuple[int | None, ...]:
        """The shape of a sample, as the layer is built for it."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `features`.")

    @property
    def resolution(self) -> float:
        """What deviations are rounding errors below, as a share of the values."""
        return 1e-13 if self.variable_dtype == "float64" else 1.2e-7

    def settle(self, moments: Moments) -> None:
        """Give the weights their values."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `settle`.")

    def moments_of(self, block: np.ndarray) -> Moments:
        """Return the moments of a block of samples."""
        return Moments.of(block, self.products)

    @property
    def samples(self) -> int:
        """How many samples the weights were learned from; 0 where there were none."""
        return 0 if self.count is None else int(keras.ops.convert_to_numpy(self.count))

    @property
    def statistics(self) -> dict[str, Any]:
        """What `adapt` or `merge` has seen, as numbers and arrays; not saved with the layer."""
        if not self._moments:
            raise ValueError(
                "`statistics` are there after `adapt` or `merge`, and not saved with the layer. "
                "Received: a layer that has seen no data"
            )
        return dataclasses.asdict(self._moments)

    def adapt(self, data: Any, verbose: bool = False) -> None:
        """Learn the weights from data, in one pass and in float64.

        `samples` says afterwards how many there were. What was learned before is forgotten.

        Args:
            data: Array, tensor, `tf.data.Dataset`, `keras.utils.PyDataset` or iterable of batches.
                All but arrays must be batched, and must end. Of batches (x, y) or (x, y,
                sample_weight) x alone is used, and all samples count alike.
            verbose: Whether to show a progress bar of samples. Defaults to False.

        Raises:
            TypeError: `data` are none of these, or not numbers.
            ValueError: There are no samples, too few, or no end of them; their shape is wrong; or
                values are not finite.
        """
        check_flag("verbose", verbose)
        total = len(data) if is_array(data) and np.ndim(data) else None
        progress = keras.utils.Progbar(total, verbose=verbose, unit_name="sample")
        moments: Moments | None = None
        for block in blocks(map(self._checked, batches_of(data)), self.products):
            with np.errstate(invalid="ignore"):  # infinities have no mean
                part = self.moments_of(block)
            if not np.isfinite(part.mean).all():
                raise ValueError(_not_finite(block, moments.samples if moments else 0))
            moments = moments.merge(part) if moments else part
            progress.update(moments.samples)
        if not moments:
            raise ValueError("`data` must hold at least one sample. Received: none")
        if total is None:
            progress.update(moments.samples, finalize=True)
        self._take(moments)

    def merge(self, parts: Iterable[Mapping[str, Any]]) -> None:
        """Learn the weights from the `statistics` of layers, each adapted to a part of the data.

        The weights become those of `adapt` to all data, but for rounding in float64. So workers can
        share the pass, and data that came later can be added.

        Args:
            parts: The `statistics` of each part, at least one.

        Raises:
            ValueError: There are no parts, or they are not of such a layer and of such samples.
        """
        moments = list(map(self._part, parts))
        if not moments:
            raise ValueError(
                "`parts` must hold the `statistics` of one layer or more. Received: none"
            )
        self._take(reduce(Moments.merge, moments))

    def load_own_variables(self, store: Any) -> None:
        """Load the weights, which count as learned if they were."""
        super().load_own_variables(store)
        self._adapted = self._adapted or self.samples > 0

    def set_weights(self, weights: Any) -> None:
        """Set the weights, which count as learned if they were."""
        super().set_weights(weights)
        self._adapted = self._adapted or self.samples > 0

    def check_adapted(self) -> None:
        """Refuse to compute with weights that were never learned."""
        if not self._adapted:
            raise ValueError(
                f"`{type(self).__name__}` must be adapted before it is called. Received: a layer "
                "that has seen no data; call its `adapt(data)`, or load or set its weights (the "
                "`set_weights` of a model passes it by)"
            )

    def _part(self, statistics: Mapping[str, Any]) -> Moments:
        names = [field.name for field in dataclasses.fields(Moments)]
        if set(statistics) == set(names):
            samples, count, mean, scatter = (np.asarray(statistics[name]) for name in names)
            self._check_shape(mean.shape)
            if scatter.shape == ((mean.size, mean.size) if self.products else mean.shape):
                return Moments(int(samples), int(count), mean, scatter)
        raise ValueError(
            f"`parts` must be the `statistics` of `{type(self).__name__}` layers. Received: "
            f"{statistics}"
        )

    def _take(self, moments: Moments) -> None:
        self.settle(moments)
        self.count.assign(min(moments.samples, 2**31 - 1))  # what int32 holds
        self._moments, self._adapted = moments, True

    def _checked(self, batch: np.ndarray) -> np.ndarray:
        if batch.ndim == 0:
            raise ValueError(f"`data` must have an axis of samples. Received: {batch}")
        self._check_shape(batch.shape[1:])
        return batch

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """See that samples have the shape that the layer is built for, or build it for that."""
        if not self.built:
            self.build_from_config({"input_shape": (None, *shape)})
        pairs = zip(self.features, shape, strict=False)
        if len(shape) != len(self.features) or any(size not in (None, its) for size, its in pairs):
            raise ValueError(
                f"`data` must hold samples of shape {self.features}. Received: samples of shape "
                f"{shape}"
            )


def _not_finite(block: np.ndarray, before: int) -> str:
    where = np.argwhere(~np.isfinite(block))
    first = (before + int(where[0][0]), *map(int, where[0][1:]))
    return (
        f"`data` must be finite. Received: {len(where)} values that are not, among the first "
        f"{before + len(block)} samples, the first of them at index {first}"
    )
