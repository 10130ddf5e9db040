"""What `kerasopt.layers.RandomAffine` draws, against Keras' layers, SciPy and TensorFlow."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from kerasopt.layers import RandomAffine

IMAGES = np.random.default_rng(0).uniform(size=(3, 24, 17, 2)).astype("float32")
MANY = np.repeat(IMAGES[:1], 400, axis=0)
SCIPY_MODES = {
    "reflect": "reflect",
    "constant": "grid-constant",
    "nearest": "nearest",
    "wrap": "grid-wrap",
}


def fixed(value: float) -> tuple[float, float]:
    """Return a range of one value."""
    return value, value


def changed(layer: keras.layers.Layer, images: Any = IMAGES) -> np.ndarray:
    """Return what the layer makes of the images in training."""
    return ops.convert_to_numpy(layer(images, training=True))


def matrices(layer: RandomAffine) -> np.ndarray:
    """Return the matrices that the layer draws for many images."""
    drawn = layer.get_random_transformation(MANY)
    return ops.convert_to_numpy(drawn["matrices"])


KERAS_LAYERS = {
    "rotation": ({"rotation": fixed(0.1)}, "RandomRotation", (fixed(0.1),)),
    "rotation back": ({"rotation": fixed(-0.37)}, "RandomRotation", (fixed(-0.37),)),
    "translation": ({"translation": fixed(0.13)}, "RandomTranslation", (fixed(0.13),) * 2),
    "translation of each axis": (
        {"translation": (fixed(-0.2), fixed(0.3))},
        "RandomTranslation",
        (fixed(-0.2), fixed(0.3)),
    ),
    "zoom out": ({"scale": fixed(0.3)}, "RandomZoom", (fixed(0.3),)),
    "zoom in": ({"scale": fixed(-0.3)}, "RandomZoom", (fixed(-0.3),)),
    "zoom of each axis": (
        {"scale": (fixed(0.3), fixed(-0.2))},
        "RandomZoom",
        (fixed(0.3), fixed(-0.2)),
    ),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", ["reflect", "constant", "nearest"])
@pytest.mark.parametrize("arguments", KERAS_LAYERS.values(), ids=KERAS_LAYERS)
def test_equals_the_layers_of_keras(arguments: Any, fill_mode: str, interpolation: str) -> None:
    ours, name, factors = arguments
    options = {"fill_mode": fill_mode, "interpolation": interpolation, "fill_value": 0.4}
    theirs = getattr(keras.layers, name)(*factors, **options)
    np.testing.assert_allclose(
        changed(RandomAffine(**ours, **options)), changed(theirs), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", SCIPY_MODES)
def test_equals_scipy(fill_mode: str, interpolation: str) -> None:
    layer = RandomAffine(
        rotation=fixed(0.17),
        translation=(fixed(0.11), fixed(-0.23)),
        scale=(fixed(0.6), fixed(0.9)),
        shear=(fixed(0.3), fixed(-0.4)),
        fill_mode=fill_mode,
        interpolation=interpolation,
        fill_value=0.4,
    )
    angle = 2 * np.pi * 0.17
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.array([[1, 0.3], [-0.4, 1]]) @ np.diag([1.6, 1.9]) @ turn
    centre = np.array([23, 16]) / 2
    offset = centre - matrix @ centre - np.array([0.11 * 24, -0.23 * 17])
    options = {"order": int(interpolation == "bilinear"), "mode": SCIPY_MODES[fill_mode]}
    channels = [
        ndimage.affine_transform(channel, matrix, offset, cval=0.4, **options)
        for channel in np.moveaxis(IMAGES[0], -1, 0).astype("float64")
    ]
    np.testing.assert_allclose(changed(layer)[0], np.stack(channels, -1), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("flip", "axes"),
    [
        ("horizontal", [(), (1,)]),
        ("vertical", [(), (0,)]),
        ("horizontal_and_vertical", [(), (0,), (1,), (0, 1)]),
    ],
)
def test_flips_each_axis_half_of_the_time(flip: str, axes: list[tuple[int, ...]]) -> None:
    out = changed(RandomAffine(flip=flip), MANY)
    for some in axes:
        share = (out == np.flip(IMAGES[0], some)).all(axis=(1, 2, 3)).mean()
        assert share == pytest.approx(1 / len(axes), abs=0.08)


def test_a_flipped_image_moves_where_it_is_told_to() -> None:
    layer = RandomAffine(translation=(fixed(0.25), fixed(0)), flip="vertical", fill_mode="constant")
    out = changed(layer, MANY)
    upright, flipped = IMAGES[0, :18], IMAGES[0, ::-1][:18]
    assert not out[:, :6].any()
    found = [[np.allclose(each[6:], part) for part in (upright, flipped)] for each in out]
    assert (np.sum(found, axis=1) == 1).all()
    assert np.sum(found, axis=0).min() > 150


def test_draws_fill_their_ranges() -> None:
    angle = matrices(RandomAffine(rotation=0.1))
    turns = np.arctan2(angle[:, 0, 1], angle[:, 0, 0]) / (2 * np.pi)
    np.testing.assert_allclose([turns.min(), turns.max(), turns.mean()], [-0.1, 0.1, 0], atol=0.01)
    shift = -matrices(RandomAffine(translation=((0, 0.2), (-0.4, 0))))[:, :, 2] / [24, 17]
    np.testing.assert_allclose(shift.min(axis=0), [0, -0.4], atol=0.01)
    np.testing.assert_allclose(shift.max(axis=0), [0.2, 0], atol=0.01)


def test_scale_keeps_the_aspect_ratio_unless_given_for_each_axis() -> None:
    one, each = (matrices(RandomAffine(scale=s)) for s in (0.5, ((-0.5, 0.5), (-0.5, 0.5))))
    np.testing.assert_array_equal(one[:, 0, 0], one[:, 1, 1])
    assert one[:, 0, 0].min() < 0.52
    assert one[:, 0, 0].max() > 1.48
    assert abs(np.corrcoef(each[:, 0, 0], each[:, 1, 1])[0, 1]) < 0.15


def test_probability_is_the_share_of_changed_images() -> None:
    out = changed(RandomAffine(0.2, 0.1, 0.1, 0.1, probability=0.25), MANY)
    assert (out != MANY).any(axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.08)
    np.testing.assert_array_equal(changed(RandomAffine(0.2, probability=0.0)), IMAGES)


def test_integers_and_channels_first_give_the_same() -> None:
    images = (IMAGES * 255).astype("uint8")
    floats, integers, first = (
        changed(RandomAffine(0.1, 0.1, seed=1, data_format=data_format), each)
        for each, data_format in (
            (images.astype("float32"), "channels_last"),
            (images, "channels_last"),
            (np.moveaxis(images, -1, 1), "channels_first"),
        )
    )
    np.testing.assert_array_equal(integers, floats)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), floats)


@pytest.mark.tensorflow
@pytest.mark.parametrize("fill_mode", SCIPY_MODES)
def test_unknown_sizes_give_the_same(fill_mode: str) -> None:
    import tensorflow as tf

    known, unknown = (RandomAffine(0.1, 0.4, fill_mode=fill_mode, seed=1) for _ in range(2))
    spec = tf.TensorSpec((None, None, None, None))
    function = tf.function(lambda images: unknown(images, training=True), input_signature=[spec])
    np.testing.assert_allclose(function(IMAGES), changed(known), rtol=0, atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("batch", "draws"), [(8, 1), pytest.param(64, 8, marks=pytest.mark.slow)], ids=["", "many"]
)
def test_no_pixel_differs_from_tensorflow(
    batch: int, draws: int, channels: int, jit_compile: bool
) -> None:
    import tensorflow as tf

    layer = RandomAffine(0.5, 0.1, 0.3, 0.2, flip="horizontal", seed=1)

    @tf.function(jit_compile=jit_compile)
    def run(images: Any) -> Any:
        drawn = layer.get_random_transformation(images)
        return layer.transform_images(images, drawn), drawn["matrices"]

    worst = 0.0
    for _ in range(draws):
        images = tf.random.uniform((batch, 224, 224, channels))
        ours, drawn = run(images)
        (d, c, y), (b, a, x) = np.moveaxis(np.float64(drawn), 0, -1)
        centre, zero = 223 / 2, np.zeros(batch)
        offsets = x + centre * (1 - a - b), y + centre * (1 - c - d)
        theirs = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=np.stack([a, b, offsets[0], c, d, offsets[1], zero, zero], 1).astype("f4"),
            output_shape=(224, 224),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
        worst = max(worst, float(tf.reduce_max(tf.abs(ours - theirs))))
    assert worst < 1e-3


@pytest.mark.tensorflow  # the layers of Keras take long to compile on JAX
def test_one_pass_loses_less_than_a_chain() -> None:
    noise = np.random.default_rng(0).normal(size=(64, 64))
    image = ndimage.gaussian_filter(noise, 1).astype("float32")[None, ..., None]
    angle, zoom, shift = 0.03, 1.1, np.array([0.04, -0.03])
    cos, sin = np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)
    back = -np.array([[cos, -sin], [sin, cos]]) @ shift / zoom
    forth = RandomAffine(fixed(angle), tuple(map(fixed, shift)), fixed(zoom - 1))
    undo = RandomAffine(fixed(-angle), tuple(map(fixed, back)), fixed(1 / zoom - 1))
    layers = keras.layers
    chain = [
        layers.RandomTranslation(*map(fixed, shift)),
        layers.RandomZoom(fixed(zoom - 1)),
        layers.RandomRotation(fixed(angle)),
        layers.RandomRotation(fixed(-angle)),
        layers.RandomZoom(fixed(1 / zoom - 1)),
        layers.RandomTranslation(*map(fixed, -shift)),
    ]

    def quality(some: list[keras.layers.Layer]) -> float:
        out = image
        for layer in some:
            out = changed(layer, out)
        error = (out - image)[:, 16:-16, 16:-16]
        return 10 * np.log10(np.ptp(image) ** 2 / np.mean(error**2))

    assert quality([forth, undo]) > quality(chain) + 3


BOXES = np.array([[[3, 2, 11, 9], [6, 12, 14, 20]]] * 3, "float32")


def moved(layer: keras.layers.Layer, boxes: np.ndarray = BOXES) -> dict[str, np.ndarray]:
    """Return the boxes after the layer."""
    labels = np.zeros(boxes.shape[:-1], "float32")
    data = {"images": IMAGES, "bounding_boxes": {"boxes": boxes.copy(), "labels": labels}}
    out = layer(data, training=True)["bounding_boxes"]
    return {key: ops.convert_to_numpy(value) for key, value in out.items()}


SMALL = {
    "rotation": ({"rotation": fixed(0.04)}, "RandomRotation", (fixed(0.04),)),
    "translation": ({"translation": fixed(0.06)}, "RandomTranslation", (fixed(0.06),) * 2),
    "zoom": ({"scale": (fixed(0.1), fixed(0.2))}, "RandomZoom", (fixed(0.1), fixed(0.2))),
}


@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_boxes_are_those_of_keras_between_the_pixels(arguments: Any) -> None:
    ours, name, factors = arguments
    theirs = getattr(keras.layers, name)(*factors, bounding_box_format="xyxy")
    # Keras' corners are centres of pixels where it rotates and zooms.
    expected = moved(theirs, BOXES - 0.5)["boxes"] + 0.5
    out = moved(RandomAffine(**ours, bounding_box_format="xyxy"))
    np.testing.assert_allclose(out["boxes"], expected, rtol=0, atol=1e-4)
    assert not out["labels"].any()


def test_boxes_enclose_what_they_enclosed() -> None:
    images = np.zeros((50, 64, 48, 1), "float32")
    images[:, 25:35, 18:32] = 1
    boxes = {"boxes": np.array([[[18, 25, 32, 35]]] * 50, "float32"), "labels": np.zeros((50, 1))}
    options = {"fill_mode": "constant", "bounding_box_format": "xyxy"}
    layer = RandomAffine(0.5, 0.1, 0.3, 0.2, "horizontal_and_vertical", **options)
    out = layer({"images": images, "bounding_boxes": boxes}, training=True)
    seen = []
    for image in ops.convert_to_numpy(out["images"]):
        rows, columns = np.nonzero(image[..., 0] > 0.5)
        seen.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    error = ops.convert_to_numpy(out["bounding_boxes"]["boxes"])[:, 0] - seen
    assert np.abs(error).max() < 1.7  # a sharp corner covers less than half of its pixel
    assert abs(error.mean()) < 0.1


@pytest.mark.parametrize(
    ("box_format", "boxes", "expected"),
    [
        ("xyxy", [3, 2, 11, 9], [6, 2, 14, 9]),
        ("yxyx", [2, 3, 9, 11], [2, 6, 9, 14]),
        ("xywh", [3, 2, 8, 7], [6, 2, 8, 7]),
        ("center_xywh", [7, 5.5, 8, 7], [10, 5.5, 8, 7]),
        ("rel_xyxy", [3 / 17, 2 / 24, 11 / 17, 9 / 24], [6 / 17, 2 / 24, 14 / 17, 9 / 24]),
    ],
)
def test_formats_of_boxes_under_a_flip(box_format: str, boxes: list, expected: list) -> None:
    layer = RandomAffine(flip="horizontal", bounding_box_format=box_format, seed=0)
    given = np.array([[boxes]] * 3, "float32")
    out = moved(layer, given)["boxes"][:, 0]
    is_flipped = [np.allclose(box, expected, atol=1e-5) for box in out]
    is_same = [np.allclose(box, boxes, atol=1e-5) for box in out]
    assert np.add(is_flipped, is_same).tolist() == [1, 1, 1]
    assert any(is_flipped)


def test_boxes_are_cut_at_the_edges_and_those_outside_lose_their_label() -> None:
    layer = RandomAffine(translation=(fixed(0), fixed(0.5)), bounding_box_format="xyxy")
    out = moved(layer, np.array([[[3, 2, 11, 9], [9, 12, 14, 20]]] * 3, "float32"))
    np.testing.assert_allclose(out["boxes"][0], [[11.5, 2, 17, 9], [17, 12, 17, 20]])
    assert out["labels"].tolist() == [[0, -1]] * 3


def test_boxes_need_a_format() -> None:
    with pytest.raises(ValueError, match="didn't specify a bounding box format"):
        moved(RandomAffine(0.1))


@pytest.mark.parametrize("batched", [True, False])
def test_all_move_together_in_tf_data(batched: bool) -> None:
    tf = pytest.importorskip("tensorflow")  # on every backend
    layer = RandomAffine(0.1, 0.1, 0.1, interpolation="nearest", bounding_box_format="xyxy")
    masks = (IMAGES[..., :1] * 5).astype("int32")
    data = {
        "images": masks.astype("float32"),
        "segmentation_masks": masks,
        "labels": np.arange(3),
        "bounding_boxes": {"boxes": BOXES, "labels": np.zeros((3, 2))},
    }
    dataset = tf.data.Dataset.from_tensor_slices(data)
    dataset = dataset.batch(2) if batched else dataset
    for out in dataset.map(lambda each: layer(each, training=True)).as_numpy_iterator():
        np.testing.assert_array_equal(out["segmentation_masks"], out["images"])
        assert out["bounding_boxes"]["boxes"].shape[-2:] == (2, 4)
        assert not np.isin(out["segmentation_masks"], masks, invert=True).any()


def test_masks_keep_their_type_and_classes() -> None:
    masks = (IMAGES[..., :1] * 5).astype("int32") * 100
    out = RandomAffine(0.1, 0.1)({"images": IMAGES, "segmentation_masks": masks}, training=True)
    assert keras.backend.standardize_dtype(out["segmentation_masks"].dtype) == "int32"
    moved_masks = ops.convert_to_numpy(out["segmentation_masks"])
    assert set(np.unique(moved_masks)) <= {0, 100, 200, 300, 400}
    assert (moved_masks != masks).any()


@pytest.mark.parametrize("images", [IMAGES, IMAGES[0]])
def test_masks_need_channels(images: np.ndarray) -> None:
    data = {"images": images, "segmentation_masks": images[..., 0]}
    with pytest.raises(ValueError, match="`segmentation_masks` must have as many axes as the im"):
        RandomAffine(0.1)(data, training=True)
