"""The frame of every layer that changes images at random while training."""

from typing import Any

import keras

# Not public, yet the only base whose layers run in `tf.data` on every backend and take labels,
# boxes and masks beside the images, as Keras' own `Random…` layers do.
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)


class ImageAugmentation(BaseImagePreprocessingLayer):
    """A random change of images that leaves labels, boxes and masks as they are.

    A subclass draws what is random in `draw` and applies it in `transform_images`, where all
    operations come from `self.backend`.
    """

    _USE_BASE_FACTOR = False

    def __init__(
        self, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def draw(self, shape: tuple[Any, ...], seed: Any) -> Any:
        """Return what is random for a batch of images of `shape`."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `draw`.")

    def get_random_transformation(self, data: Any, training: bool = True, seed: Any = None) -> Any:
        """Draw for `data`, a tensor of images or a dict with the key `"images"`."""
        if not training:
            return None
        images = data["images"] if isinstance(data, dict) else data
        shape = tuple(self.backend.shape(images))
        if not self._is_batched(images):
            shape = (1, *shape)
        return self.draw(shape, seed or self._get_seed_generator(self.backend._backend))

    def transform_labels(self, labels: Any, transformation: Any, training: bool = True) -> Any:
        """Return the labels as they are."""
        return labels

    def transform_bounding_boxes(
        self, bounding_boxes: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Return the boxes as they are."""
        return bounding_boxes

    def transform_segmentation_masks(
        self, segmentation_masks: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Return the masks as they are."""
        return segmentation_masks

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "seed": self.seed, "data_format": self.data_format}
