"""Dropout by a normal factor."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.layers import _random


@keras.saving.register_keras_serializable("kerasopt")
class GaussianDropout(keras.layers.GaussianDropout):
    """Multiplies the inputs by normal numbers around 1 while training, by a fast generator.

    The factors have the mean and the variance of those of `Dropout`, but no input is lost
    altogether. Use it in place of `keras.layers.GaussianDropout`, as `kerasopt.layers.Dropout` in
    place of Keras'.

        y = x (1 + σ ε),   σ² = rate / (1 - rate),   ε ~ N(0, 1)

    In inference the layer returns its input. Arguments and configuration are those of Keras' layer;
    the random numbers are others.

    Args:
        rate: The rate of the `Dropout` of the same variance, in [0, 1).
        seed: Integer for reproducible factors, or None. Defaults to None.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        inputs: Tensor of any rank.
        training: Whether to multiply.

    Raises:
        TypeError: `rate` is not a number.
        ValueError: `rate` is not in [0, 1).

    Reference:
        Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Example:
        >>> import numpy as np, kerasopt
        >>> layer = kerasopt.layers.GaussianDropout(0.2, seed=0)
        >>> round(float(np.std(layer(np.ones((1000, 100), "float32"), training=True))), 1)
        0.5
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(check_number("rate", rate, "[0, 1)"), seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Multiply, if `training`."""
        if not training or self.rate == 0:
            return inputs
        stddev = (self.rate / (1 - self.rate)) ** 0.5
        seed = self.seed_generator.next()
        return inputs * _random.normal(seed, ops.shape(inputs), 1.0, stddev, self.compute_dtype)
