"""Dropout at the same speed in every mode."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_number
from kerasopt.layers import _random


@keras.saving.register_keras_serializable("kerasopt")
class Dropout(keras.layers.Dropout):
    """Sets some inputs to zero while training, by a fast generator in every mode.

    No feature can rely on others then: dropout keeps features from adapting to each other, and acts
    as an average over many networks. Use it in place of `keras.layers.Dropout`, whose random
    numbers take most of its time, and on a CPU under `jit_compile=True` many times as long.

        y = x m / (1 - rate),   m = 0 with probability rate, else 1

    In inference the layer returns its input. Arguments and configuration are those of Keras' layer;
    the random numbers are others. XLA compiles the generator once for each shape of the inputs, so
    sequences should be padded to few lengths.

    Args:
        rate: Share of the inputs that are set to zero, in [0, 1].
        noise_shape: Shape of the mask m, where some axes share it: None or a number for each axis
            of the inputs; the number is 1, or the size of the axis, and None stands for that size.
            `(None, 1, None)` drops the same features at all times of a sequence. Defaults to None:
            a mask of the shape of the inputs.
        seed: Integer for reproducible masks, or None. Defaults to None.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        inputs: Tensor of any rank.
        training: Whether to drop.

    Raises:
        TypeError: `rate` is not a number.
        ValueError: `rate` is not in [0, 1], `noise_shape` is not of positive integers and None, or,
            in a call, does not fit the inputs.

    Reference:
        Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Example:
        >>> import numpy as np, kerasopt
        >>> layer = kerasopt.layers.Dropout(0.5, seed=0)
        >>> np.unique(layer(np.ones((4, 8), "float32"), training=True)).tolist()
        [0.0, 2.0]
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(check_number("rate", rate, "[0, 1]"), noise_shape, seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop, if `training`."""
        if not training or self.rate == 0:
            return inputs
        return drop(self, inputs, self.noise_shape or [None] * len(inputs.shape))


def drop(layer: keras.layers.Dropout, inputs: Any, noise_shape: Sequence[int | None]) -> Any:
    """Return the inputs with some at zero, by the rate and the seeds of a layer."""
    _check_noise_shape(noise_shape, inputs.shape)
    sizes = zip(noise_shape, ops.shape(inputs), strict=True)
    shape = [size if wanted is None else wanted for wanted, size in sizes]
    seed = layer.seed_generator.next()
    return inputs * _random.dropout(seed, shape, layer.rate, layer.compute_dtype)


def _check_noise_shape(noise_shape: Sequence[int | None], shape: Sequence[int | None]) -> None:
    fits = len(noise_shape) == len(shape) and all(
        wanted in (None, 1) or size in (None, wanted)
        for wanted, size in zip(noise_shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            "`noise_shape` must have None, 1 or the size of the axis for each axis of the inputs. "
            f"Received: noise_shape={tuple(noise_shape)}, inputs of shape {tuple(shape)}"
        )
