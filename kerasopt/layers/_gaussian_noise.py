"""Gaussian noise of one strength."""

from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.layers import _random


@keras.saving.register_keras_serializable("kerasopt")
class GaussianNoise(keras.layers.GaussianNoise):
    """Adds Gaussian noise to the inputs while training, by a fast generator.

    Noise on inputs or features keeps a network from leaning on single values. Use it in place of
    `keras.layers.GaussianNoise`, as `kerasopt.layers.Dropout` in place of Keras'; for images of a
    limited range, `kerasopt.layers.RandomGaussianNoise` can clip and draws the strength.

        y = x + σ ε,   ε ~ N(0, 1)

    In inference the layer returns its input. Arguments and configuration are those of Keras' layer;
    the random numbers are others.

    Args:
        stddev: Strength σ of the noise, in [0, 1].
        seed: Integer for reproducible noise, or None. Defaults to None.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        inputs: Tensor of any rank.
        training: Whether to add noise.

    Raises:
        TypeError: `stddev` is not a number.
        ValueError: `stddev` is not in [0, 1].

    Reference:
        Bishop, Training with Noise is Equivalent to Tikhonov Regularization, Neural Computation 7,
        1995.

    Example:
        >>> import numpy as np, kerasopt
        >>> layer = kerasopt.layers.GaussianNoise(0.2, seed=0)
        >>> round(float(np.std(layer(np.ones((1000, 100), "float32"), training=True))), 1)
        0.2
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(check_number("stddev", stddev, "[0, 1]"), seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Add noise, if `training`."""
        if not training or self.stddev == 0:
            return inputs
        seed = self.seed_generator.next()
        return _random.normal(seed, ops.shape(inputs), inputs, self.stddev, self.compute_dtype)
