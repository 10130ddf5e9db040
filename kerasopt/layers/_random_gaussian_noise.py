"""Gaussian noise of random strength."""

from typing import Any

import keras

from kerasopt._validation import check_flag, check_number, check_range
from kerasopt.layers import _random
from kerasopt.layers._image_augmentation import ImageAugmentation


@keras.saving.register_keras_serializable("kerasopt")
class RandomGaussianNoise(ImageAugmentation):
    """Adds Gaussian noise to images while training, each image at a strength of its own.

    Noise makes new training samples out of few, and keeps a network from leaning on single pixels.
    `keras.layers.GaussianNoise` has one fixed strength and lets values leave their range; this
    layer draws the strength for each image and can clip the result.

        σ ~ U(stddev)                           one for each image
        y = clip(x + σ ε, clip),  ε ~ N(0, 1)   with the given probability, else y = x

    In inference (`training=False`) the layer returns its input. It runs in a model and in
    `tf.data.Dataset.map`, on single images and on batches.

    Args:
        stddev: Strength of the noise, in units of the pixel values: a pair (low, high) with
            0 ≤ low ≤ high, from which each image draws its own, or one number s ≥ 0 for (0, s).
            `(s, s)` is a fixed strength. Defaults to (0, 0.1).
        clip: A pair (low, high) to which the noisy values are clipped, such as (0, 1) or (0, 255),
            or None for no limit. Images that get no noise are not clipped. Defaults to None.
        per_channel: Whether each channel gets noise of its own (coloured noise). If False, all
            channels of a pixel move together (a change of brightness). Defaults to False.
        probability: Share of the images that get noise, in [0, 1]. Defaults to 1.
        seed: Integer for reproducible noise, or None. Defaults to None.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' setting.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        images: Tensor of rank 3 (height, width, channels) or 4 (batch first), or a dict with the
            key `"images"` beside `"labels"`, `"bounding_boxes"` and `"segmentation_masks"`, which
            stay as they are.
        training: Whether to add noise.

    Raises:
        TypeError: An argument is not a number, or not a pair of numbers.
        ValueError: A range is reversed or out of bounds, or the images have neither rank 3 nor 4.

    Reference:
        Bishop, Training with Noise is Equivalent to Tikhonov Regularization, Neural Computation 7,
        1995.

    Example:
        >>> import numpy as np, kerasopt
        >>> images = np.full((2, 4, 4, 3), 0.5, "float32")
        >>> layer = kerasopt.layers.RandomGaussianNoise((0.1, 0.2), clip=(0, 1), seed=0)
        >>> noisy = np.asarray(layer(images, training=True))
        >>> noisy.shape, bool((noisy == images).all())
        ((2, 4, 4, 3), False)
    """

    def __init__(
        self,
        stddev: float | tuple[float, float] = (0, 0.1),
        clip: tuple[float, float] | None = None,
        per_channel: bool = False,
        probability: float = 1.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        pair = stddev if isinstance(stddev, tuple | list) else (0, stddev)
        self.stddev = check_range("stddev", pair, "[0, inf)")
        self.clip = None if clip is None else check_range("clip", clip)
        self.per_channel = check_flag("per_channel", per_channel)
        self.probability = check_number("probability", probability, "[0, 1]")

    def draw(self, shape: tuple[Any, ...], seed: Any) -> dict[str, Any]:
        """Draw who gets noise, and the noise."""
        u = _random.uniform(seed.next(), (2, shape[0], 1, 1, 1), self.backend)
        chosen, (low, high) = u[0] < self.probability, self.stddev
        stddev = self.backend.numpy.where(chosen, low + (high - low) * u[1], 0)
        noise = _random.normal(
            seed.next(), self._noise_shape(shape), 0.0, stddev, self.compute_dtype, self.backend
        )
        return {"chosen": chosen, "noise": noise}

    def _noise_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.per_channel:
            return shape
        if self.data_format == "channels_last":
            return (*shape[:3], 1)
        return (shape[0], 1, *shape[2:])

    def transform_images(self, images: Any, transformation: Any, training: bool = True) -> Any:
        """Add the drawn noise."""
        images = self.backend.cast(images, self.compute_dtype)
        if not training:
            return images
        noisy = images + transformation["noise"]
        if self.clip is None:
            return noisy
        numpy = self.backend.numpy
        return numpy.where(transformation["chosen"], numpy.clip(noisy, *self.clip), images)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "stddev": self.stddev,
            "clip": self.clip,
            "per_channel": self.per_channel,
            "probability": self.probability,
        }
