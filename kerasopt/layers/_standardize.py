"""Inputs of mean 0 and variance 1."""

from typing import Any

import keras
import numpy as np

from kerasopt._validation import check_flag
from kerasopt.layers._adapting import Adapting
from kerasopt.layers._moments import Moments


@keras.saving.register_keras_serializable("kerasopt")
class Standardize(Adapting, keras.layers.Normalization):
    """Shifts each feature to mean 0 and scales it to variance 1, as learned from data.

    A network mainly learns from the features of the largest range, and slowly from those whose mean
    is far from 0. This layer makes units and offsets not matter:

        y = (x - mean) / √variance        or, with `invert`, y = x √variance + mean

    It is `keras.layers.Normalization`, with its arguments and weights, and right where that one is
    not: `adapt` sums in float64, so that a large mean does not drown the variance; a feature that
    does not vary in `data` is shifted only, where division by its rounding error would blow it up;
    weights that `model.set_weights` gives it are used; and in mixed precision it computes in
    float32 and returns that, for the next layer to cast.

    Args:
        axis: Integer, tuple of integers or None: the axes along which each index is a feature of
            its own, as -1 for the channels of images and (1, 2, 3) for each value of an image. Not
            that of the samples, 0. None: all values are one feature. Defaults to -1.
        mean: Means to use without `adapt`, together with `variance`, or None. Defaults to None.
        variance: Variances to use without `adapt`, or None. Defaults to None.
        invert: Whether to map standardised data back. Defaults to False.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Attributes:
        samples: How many samples `adapt` has seen.
        statistics: What it has seen, for `merge` in another layer.

    Raises:
        ValueError: `mean` comes without `variance`; `axis` is that of the samples; `adapt` got data
            without samples, of another shape or not finite; the layer is called before `adapt`.

    Reference:
        LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.3; X. Wang, Optimization
        for Training Deep Models, lecture, 2015.

    Example:
        >>> import kerasopt, numpy as np
        >>> data = np.array([[1.0, 7.0], [3.0, 7.0]], "float32")
        >>> layer = kerasopt.layers.Standardize()
        >>> layer.adapt(data)
        >>> np.asarray(layer(data)).tolist(), layer.samples
        ([[-1.0, 0.0], [1.0, 0.0]], 2)
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        check_flag("invert", invert)
        super().__init__(axis=axis, mean=mean, variance=variance, invert=invert, **kwargs)
        self._adapted = mean is not None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for inputs of this shape."""
        self._kept(len(input_shape))
        super().build(input_shape)

    @property
    def features(self) -> tuple[int | None, ...]:
        """The shape of a sample, with None where values are of one feature."""
        shape = self.get_build_config()["input_shape"]
        kept = self._kept(len(shape))
        return tuple(size if axis in kept else None for axis, size in enumerate(shape))[1:]

    def _kept(self, rank: int) -> set[int]:
        kept = {axis % rank for axis in self.axis}
        if 0 in kept:
            raise ValueError(
                "`axis` must not be 0, that of the samples. Received: "
                f"axis={self.axis} for data of rank {rank}; None makes one feature of all values"
            )
        return kept

    def moments_of(self, block: np.ndarray) -> Moments:
        """Return the moments of a block of samples."""
        pooled = set(range(1, block.ndim)) - self._kept(block.ndim)
        return super().moments_of(block).pool(tuple(axis - 1 for axis in pooled))

    def settle(self, moments: Moments) -> None:
        """Give the weights their values."""
        if self.input_mean is not None:
            raise ValueError(
                "`mean` and `variance` must be None for `adapt` and `merge`, which learn them. "
                f"Received: mean={self.input_mean}"
            )
        variance = moments.scatter / moments.count
        constant = variance <= (self.resolution * moments.mean) ** 2
        variance = np.where(constant, 1, variance)
        for weight, value in ((self.adapt_mean, moments.mean), (self.adapt_variance, variance)):
            weight.assign(value.reshape(weight.shape))
        self.finalize_state()

    def call(self, inputs: Any) -> Any:
        """Standardise the inputs, or map them back."""
        self.check_adapted()
        numpy, mean, variance = self.backend.numpy, self.mean, self.variance
        if self.input_mean is None:  # the weights may have been set since `mean` was made of them
            weights = (self.adapt_mean, self.adapt_variance)
            mean, variance = (
                numpy.reshape(self.convert_weight(w), self.mean.shape) for w in weights
            )
        inputs = self.backend.cast(inputs, self.compute_dtype)
        stddev = numpy.maximum(numpy.sqrt(variance), keras.config.epsilon())
        return inputs * stddev + mean if self.invert else (inputs - mean) / stddev
