"""Dropout of whole feature maps."""

from typing import Any

import keras

from kerasopt._validation import check_number
from kerasopt.layers._dropout import drop


@keras.saving.register_keras_serializable("kerasopt")
class SpatialDropout2D(keras.layers.SpatialDropout2D):
    """Sets whole feature maps of images to zero while training, by a fast generator.

    Neighbouring pixels of a feature map are alike, so that dropping some of them takes nothing
    away; this layer drops all or none. Use it after convolutions, in place of
    `keras.layers.SpatialDropout2D`, as `kerasopt.layers.Dropout` in place of Keras'.

        y = x m / (1 - rate),   m = 0 with probability rate, else 1, one for each image and channel

    In inference the layer returns its input. Arguments and configuration are those of Keras' layer;
    the random numbers are others.

    Args:
        rate: Share of the feature maps that are set to zero, in [0, 1].
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' setting.
        seed: Integer for reproducible masks, or None. Defaults to None.
        **kwargs: What Keras' layer takes: `name`, `dtype`.

    Call arguments:
        inputs: Tensor of rank 4.
        training: Whether to drop.

    Raises:
        TypeError: `rate` is not a number.
        ValueError: `rate` is not in [0, 1], or the inputs have another rank.

    Reference:
        Tompson et al., Efficient Object Localization Using Convolutional Networks, 2014.

    Example:
        >>> import numpy as np, kerasopt
        >>> layer = kerasopt.layers.SpatialDropout2D(0.5, seed=0)
        >>> maps = np.asarray(layer(np.ones((8, 4, 4, 16), "float32"), training=True))
        >>> bool((maps == maps[:, :1, :1]).all())
        True
    """

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(check_number("rate", rate, "[0, 1]"), data_format, seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop, if `training`."""
        if not training or self.rate == 0:
            return inputs
        last = self.data_format == "channels_last"
        return drop(self, inputs, (None, 1, 1, None) if last else (None, None, 1, 1))
