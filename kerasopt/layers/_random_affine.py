"""Rotation, translation, scale, shear and flips of images, in one pass."""

import math
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras.utils.bounding_boxes import clip_to_image_size, convert_format

from kerasopt._validation import check_choice, check_number, check_range
from kerasopt.layers import _random
from kerasopt.layers._image_augmentation import ImageAugmentation
from kerasopt.layers._resampling import FILL_MODES, INTERPOLATIONS, move_boxes, resample

FLIPS = (None, "horizontal", "vertical", "horizontal_and_vertical")

Range = float | tuple[float, float]
Ranges = Range | tuple[tuple[float, float], tuple[float, float]]


@keras.saving.register_keras_serializable("kerasopt")
class RandomAffine(ImageAugmentation):
    """Rotates, moves, scales, shears and flips images at random while training, in one pass.

    What an image shows stays the same under these changes, and a network learns this from examples.
    A chain of `keras.layers.RandomFlip`, `RandomTranslation`, `RandomShear`, `RandomZoom` and
    `RandomRotation` draws the image anew in each layer, and each blurs it; this layer draws one
    matrix for each image, takes every pixel once, and compiles the pass with XLA:

        y(p) = x(F (S Z R (p - c) - t) + c)         p: row and column; c: the centre of the image

        R = [cos φ, sin φ; -sin φ, cos φ],  φ = 2π rotation;  Z = 1 + diag(scale)
        S = [1, s_h; s_w, 1],  s = shear;  t = translation ∘ (height, width);  F = diag(±1, ±1)

    With one argument given it is the Keras layer of that name, in the arguments' units, range and
    sign, but for shear, which leaves the centre where it is instead of a corner, and flips, which
    are drawn for each axis. `fill_mode="wrap"` continues the image across its edge, as
    `"grid-wrap"` of SciPy does.

    In inference (`training=False`) the layer returns its input. It runs in a model, also with
    `jit_compile=True`, and in `tf.data.Dataset.map`, on single images and on batches. It is
    compiled once for each size of batch and image; where sizes are unknown as a graph is made it is
    not compiled, and slower.

    Args:
        rotation: Angle as a fraction of a full turn, positive for counter-clockwise: a pair
            (low, high) with -1 ≤ low ≤ high ≤ 1, from which each image draws its own, or one number
            r in [0, 1] for (-r, r). Defaults to 0.
        translation: Shift as a fraction of the height and width, positive for down and right: a
            number or a pair as above, from which both are drawn, or a pair of pairs, the height's
            before the width's. Defaults to 0.
        scale: By how much more than the image is seen, in (-1, 1], positive for zooming out: 0.25
            shows objects at 1 / 1.25 of their size. A number in [0, 1) or a pair keeps the aspect
            ratio; a pair of pairs is drawn for the height and for the width. Defaults to 0.
        shear: By how many rows a row rises per column, and by how many columns a column leans per
            row, in (-1, 1): in the forms of `translation`. Defaults to 0.
        flip: `"horizontal"`, `"vertical"`, `"horizontal_and_vertical"` or None: the axes along
            which half of the images are flipped. Defaults to None.
        fill_mode: What is seen beyond the edges: `"reflect"` (d c b a | a b c d | d c b a),
            `"constant"` (`fill_value`), `"nearest"` (a a a a | a b c d | d d d d) or `"wrap"`
            (a b c d | a b c d | a b c d). Defaults to `"reflect"`.
        interpolation: `"bilinear"` or `"nearest"`; masks are always `"nearest"`. Defaults to
            `"bilinear"`.
        fill_value: Any number, of use with `fill_mode="constant"`. Defaults to 0.
        probability: Share of the images that are changed, in [0, 1]. The others stay as they are,
            bit for bit. Defaults to 1.
        seed: Integer for reproducible draws, or None. Defaults to None.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' setting.
        **kwargs: `bounding_box_format`, such as `"xyxy"`, which boxes ask for, and what every Keras
            layer takes: `name`, `dtype`.

    Call arguments:
        images: Tensor of rank 3 (height, width, channels) or 4 (batch first), or a dict with the
            key `"images"` beside `"labels"`, which stay as they are, `"segmentation_masks"`, which
            move without being blended, and `"bounding_boxes"`: a box becomes the smallest that
            encloses its four moved corners, cut at the edges of the image; the label of one that is
            gone becomes -1. The edges of a box lie between pixels, at whole numbers; Keras'
            `RandomRotation` and `RandomZoom` take them for centres, half a pixel away.
        training: Whether to change the images.

    Raises:
        TypeError: An argument is not a number, or not a pair of numbers.
        ValueError: A range is reversed or out of bounds, a choice is unknown, the images have
            neither rank 3 nor 4, the masks another one, or there are boxes without a
            `bounding_box_format`.

    Reference:
        Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks Applied to
        Visual Document Analysis, 2003. X. Wang, Optimization for Training Deep Models, lecture,
        2015.

    Example:
        >>> import numpy as np, kerasopt
        >>> image = np.arange(9, dtype="float32").reshape(3, 3, 1)
        >>> turned = kerasopt.layers.RandomAffine(rotation=(0.25, 0.25))(image, training=True)
        >>> np.asarray(turned)[..., 0].round(3).tolist()
        [[2.0, 5.0, 8.0], [1.0, 4.0, 7.0], [0.0, 3.0, 6.0]]
    """

    def __init__(
        self,
        rotation: Range = 0.0,
        translation: Ranges = 0.0,
        scale: Ranges = 0.0,
        shear: Ranges = 0.0,
        flip: str | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        probability: float = 1.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.rotation = _pair("rotation", rotation, "[-1, 1]")
        self.translation = _pairs("translation", translation, "[-1, 1]")
        as_given = _pairs if _has_pairs(scale) else _pair
        self.scale = as_given("scale", scale, "(-1, 1]")
        self.shear = _pairs("shear", shear, "(-1, 1)")
        self.flip = check_choice("flip", flip, FLIPS)
        self.fill_mode = check_choice("fill_mode", fill_mode, FILL_MODES)
        self.interpolation = check_choice("interpolation", interpolation, INTERPOLATIONS)
        self.fill_value = check_number("fill_value", fill_value, "(-inf, inf)")
        self.probability = check_number("probability", probability, "[0, 1]")

    def draw(self, shape: tuple[Any, ...], seed: Any) -> dict[str, Any]:
        """Draw a matrix for each image, and note the size that it is for."""
        low, high = np.array(self._ranges(), "float32").T
        size = shape[2:] if self.data_format == "channels_first" else shape[1:3]
        numbers = low, high, _has_pairs(self.scale), np.float32(self.probability), *size
        matrices = _random.in_one_pass(
            _matrices, "float32", self.backend, seed.next(), (shape[0], 2, 3), *numbers
        )
        return {"matrices": matrices, "size": size}

    def _ranges(self) -> list[tuple[float, float]]:
        """Return from where `_matrices` has its numbers, in their order."""
        scale = self.scale if _has_pairs(self.scale) else (self.scale, self.scale)
        axes = ("vertical", "horizontal")
        signs = [(-1, 1) if axis in (self.flip or "") else (1, 1) for axis in axes]
        return [self.rotation, *self.translation, *scale, *self.shear, *signs, (0, 1)]

    def transform_images(self, images: Any, transformation: Any, training: bool = True) -> Any:
        """Draw the images anew."""
        if not training:
            return self.backend.cast(images, self.compute_dtype)
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        images = self._resample(images, transformation, self.interpolation, dtype)
        return self.backend.cast(images, self.compute_dtype)

    def transform_segmentation_masks(
        self, segmentation_masks: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Move the masks as the images, without blending classes."""
        if not training:
            return segmentation_masks
        masks = self.backend.convert_to_tensor(segmentation_masks)
        if len(masks.shape) != 4:
            raise ValueError(
                "`segmentation_masks` must have as many axes as the images, that of the channels "
                f"among them. Received: a batch of the shape {tuple(masks.shape)}"
            )
        dtype = keras.backend.standardize_dtype(masks.dtype)
        return self._resample(masks, transformation, "nearest", dtype)

    def _resample(self, images: Any, transformation: Any, interpolation: str, dtype: str) -> Any:
        first = self.data_format == "channels_first"
        transpose = self.backend.numpy.transpose
        images = transpose(images, (0, 2, 3, 1)) if first else images
        images = resample(
            self.backend.name,
            images,
            transformation["matrices"],
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
            interpolation=interpolation,
            dtype=dtype,
        )
        return transpose(images, (0, 3, 1, 2)) if first else images

    def transform_bounding_boxes(
        self, bounding_boxes: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Enclose the moved corners, and cut at the edges of the image."""
        if not training:
            return bounding_boxes
        height, width = transformation["size"]
        size = {"height": height, "width": width}
        boxes = convert_format(bounding_boxes, self.bounding_box_format, "xyxy", **size)
        matrices = transformation["matrices"]
        boxes["boxes"] = move_boxes(self.backend, boxes["boxes"], matrices, (height, width))
        boxes = clip_to_image_size(boxes, **size, bounding_box_format="xyxy")
        return convert_format(boxes, "xyxy", self.bounding_box_format, **size)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "rotation": self.rotation,
            "translation": self.translation,
            "scale": self.scale,
            "shear": self.shear,
            "flip": self.flip,
            "fill_mode": self.fill_mode,
            "interpolation": self.interpolation,
            "fill_value": self.fill_value,
            "probability": self.probability,
        }


def _matrices(
    backend: Any,
    seed: Any,
    shape: Any,
    low: Any,
    high: Any,
    apart: Any,
    probability: Any,
    height: Any,
    width: Any,
) -> Any:
    """Return (F S Z R | -F t) for each image, and (1 | 0) for those that stay as they are."""
    numpy = backend.numpy
    height, width = (backend.cast(each, "float32") for each in (height, width))
    uniform = _random.hashed(backend, seed, (shape[0], low.shape[0]))
    rotation, down, right, tall, wide, rise, lean, upright, ahead, chance = numpy.split(
        low + uniform * (high - low), 10, axis=1
    )
    wide = numpy.where(apart, wide, tall)
    cos, sin = numpy.cos(2 * math.pi * rotation), numpy.sin(2 * math.pi * rotation)
    a, b, c, d = (1 + tall) * cos, (1 + tall) * sin, -(1 + wide) * sin, (1 + wide) * cos
    rows = [
        numpy.where(sign < 0, -1.0, 1.0) * numpy.concatenate(row, axis=-1)
        for sign, row in (
            (upright, (a + rise * c, b + rise * d, -down * height)),
            (ahead, (c + lean * a, d + lean * b, -right * width)),
        )
    ]
    unchanged = (chance >= probability)[:, None]
    return numpy.where(unchanged, np.eye(2, 3, dtype="float32"), numpy.stack(rows, axis=1))


def _pair(name: str, value: Any, interval: str) -> tuple[float, float]:
    """Return the range that a number or a pair stands for."""
    if isinstance(value, Real):
        end = {"[": "]", "(": ")"}[interval[0]]  # of the negative side
        value = check_number(name, value, f"[0, 1{end}")
        value = (-value, value)
    return check_range(name, value, interval)


def _pairs(name: str, value: Any, interval: str) -> tuple[tuple[float, float], ...]:
    """Return the ranges of the height and of the width."""
    each = value if _has_pairs(value) else (value, value)
    if len(each) != 2:
        raise ValueError(
            f"`{name}` must be a pair of pairs, for the height and the width, a pair (low, high) "
            f"or a number. Received: {name}={value!r}"
        )
    return tuple(_pair(name, pair, interval) for pair in each)


def _has_pairs(value: Any) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(v, tuple | list) for v in value)
