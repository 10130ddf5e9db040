"""Images drawn anew from an affine map of their pixels, in one pass, and boxes moved alike."""

import functools
from collections.abc import Callable
from typing import Any

# Not public, yet what gives a layer the operations of TensorFlow in `tf.data` on every backend.
from keras.src.utils.backend_utils import DynamicBackend

FILL_MODES = ("reflect", "constant", "nearest", "wrap")
INTERPOLATIONS = ("bilinear", "nearest")


def resample(backend: str, images: Any, matrices: Any, **options: Any) -> Any:
    """Return y[p] = x[M (p - c) + c + t] for a batch of images with the channels last.

    `matrices` are (M | t), of shape (batch, 2, 3), with the rows before the columns; c is the
    centre of the images. `options` are those of `_resample`. Where the sizes are known, one
    compiled function does it all, which is compiled once for each size. Where they are not, as with
    photographs that are all different, that would never end.
    """
    run = _resample if None in images.shape[1:] else _compiled(backend)
    return run(images, matrices, backend=backend, **options)


@functools.cache
def _compiled(backend: str) -> Callable[..., Any]:
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(_resample, autograph=False, jit_compile=True)
    import jax

    options = ("backend", "fill_mode", "fill_value", "interpolation", "dtype")
    return jax.jit(_resample, static_argnames=options)


def _resample(
    images: Any,
    matrices: Any,
    *,
    backend: str,
    fill_mode: str,
    fill_value: float,
    interpolation: str,
    dtype: str,
) -> Any:
    """Blend pixels in `dtype`."""
    module = DynamicBackend(backend)
    numpy, cast = module.numpy, module.cast
    batch, height, width, channels = module.shape(images)
    flat = numpy.reshape(images, (-1, channels))
    first = (numpy.arange(batch, dtype="int32") * (height * width))[:, None, None]

    def pixels(y: Any, x: Any) -> Any:
        row, column = (_fold(module, i, n, fill_mode) for i, n in ((y, height), (x, width)))
        index = first + cast(row, "int32") * width + cast(column, "int32")
        values = cast(numpy.take(flat, index, axis=0), dtype)
        if fill_mode != "constant":
            return values
        inside = numpy.logical_and(row == y, column == x)[..., None]
        return numpy.where(inside, values, cast(fill_value, dtype))

    def between(low: Any, high: Any, weight: Any) -> Any:
        return low * (1 - weight) + high * weight

    y, x = _coordinates(module, matrices, height, width)
    if interpolation == "nearest":
        return pixels(numpy.floor(y + 0.5), numpy.floor(x + 0.5))
    top, left = numpy.floor(y), numpy.floor(x)
    down, right = (cast(part, dtype)[..., None] for part in (y - top, x - left))
    return between(
        between(pixels(top, left), pixels(top, left + 1), right),
        between(pixels(top + 1, left), pixels(top + 1, left + 1), right),
        down,
    )


def _coordinates(module: Any, matrices: Any, height: Any, width: Any) -> tuple[Any, Any]:
    """Return from where each pixel comes.

    The compiler computes a coordinate twice, once for its integer part and once for the rest, with
    or without a rounding between product and sum; where an integer lies between the two, the pixel
    is wrong. So the products are made exact, by factors of at most 12 bits.
    """
    numpy = module.numpy
    centres = [(module.cast(size, "float32") - 1) / 2 for size in (height, width)]
    y = numpy.arange(height, dtype="float32")[:, None] - centres[0]
    x = numpy.arange(width, dtype="float32") - centres[1]

    def coordinate(row: Any, centre: Any) -> Any:
        coarse = numpy.round(row * 2.0**10) * 2.0**-10
        fine = numpy.round((row - coarse) * 2.0**22) * 2.0**-22
        (a, b, _), (c, d, _) = (
            [part[:, i, None, None] for i in range(3)] for part in (coarse, fine)
        )
        return b * x + (d * x + (a * y + (c * y + (row[:, 2, None, None] + centre))))

    return coordinate(matrices[:, 0], centres[0]), coordinate(matrices[:, 1], centres[1])


def _fold(module: Any, i: Any, n: Any, fill_mode: str) -> Any:
    """Return which of n pixels continues the image at the integer i, of a floating-point type."""
    numpy, n = module.numpy, module.cast(n, "float32")
    if fill_mode == "reflect":
        i = i - 2 * n * numpy.floor((i + 0.5) / (2 * n))
        return numpy.minimum(i, 2 * n - 1 - i)
    if fill_mode == "wrap":
        return i - n * numpy.floor((i + 0.5) / n)
    return numpy.clip(i, 0, n - 1)


def move_boxes(module: Any, boxes: Any, matrices: Any, size: tuple[Any, Any]) -> Any:
    """Return the boxes (left, top, right, bottom) that enclose the corners where they are now.

    `matrices` lead back to where they were, as in `resample`; `module` is a backend of Keras.
    """
    numpy = module.numpy
    centre_y, centre_x = (module.cast(each, "float32") / 2 for each in size)
    (a, b, down), (c, d, right) = (
        [matrices[:, row, i, None, None] for i in range(3)] for row in range(2)
    )
    y = numpy.take(boxes, [1, 1, 3, 3], axis=-1) - centre_y - down
    x = numpy.take(boxes, [0, 2, 0, 2], axis=-1) - centre_x - right
    determinant = a * d - b * c
    corners = ((a * x - c * y) / determinant + centre_x, (d * y - b * x) / determinant + centre_y)
    ends = [end(each, axis=-1) for end in (numpy.min, numpy.max) for each in corners]
    return numpy.stack(ends, axis=-1)
