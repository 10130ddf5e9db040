"""An affine change of batches of images."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasopt
from benchmarks._race import Row, compare, milliseconds, race

SMALL, LARGE = (256, 32, 32, 3), (64, 224, 224, 3)
KERAS = "Keras' `RandomTranslation`, `RandomZoom` and `RandomRotation`"


def caller(
    layer: Callable[..., Any], shape: tuple[int, ...] = SMALL, **options: Any
) -> Callable[[], Any]:
    """Return a function that calls the layer in graph mode."""
    images = tf.random.uniform(shape)
    function = tf.function(lambda: layer(images, **options))
    return lambda: function()


def affine() -> list[keras.layers.Layer]:
    """Return our layer."""
    return [kerasopt.layers.RandomAffine(rotation=0.05, translation=0.1, scale=0.1)]


def chain() -> list[keras.layers.Layer]:
    """Return Keras' layers for the same."""
    layers = keras.layers
    return [layers.RandomTranslation(0.1, 0.1), layers.RandomZoom(0.1), layers.RandomRotation(0.05)]


def noisy() -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Return both with noise after them."""
    ours, theirs = kerasopt.layers.GaussianNoise(0.1), keras.layers.GaussianNoise(0.1)
    return keras.Sequential([*affine(), ours]), keras.Sequential([*chain(), theirs])


def keras_aug(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a function that calls the layer of keras-aug."""
    vision = importlib.import_module("keras_aug.layers.vision")
    ranges = {"degree": 18, "translate": (0.1, 0.1), "scale": (0.9, 1.1)}
    return caller(vision.RandomAffine(**ranges, padding_mode="reflect"), shape, training=True)


def kornia(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a function that calls the layer of kornia, on two threads."""
    torch, module = importlib.import_module("torch"), importlib.import_module("kornia.augmentation")
    torch.set_num_threads(2)
    batch, height, width, channels = shape
    images = torch.rand(batch, channels, height, width)
    ranges = {"degrees": 18.0, "translate": (0.1, 0.1), "scale": (0.9, 1.1)}
    layer = module.RandomAffine(**ranges, padding_mode="reflection", p=1.0)
    return lambda: layer(images)


def albumentations(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a function that calls albumentations for each image, on two threads."""
    module, cv2 = (importlib.import_module(name) for name in ("albumentations", "cv2"))
    cv2.setNumThreads(1)
    ranges = {"rotate": (-18, 18), "translate_percent": (-0.1, 0.1), "scale": (0.9, 1.1)}
    affine = module.Affine(**ranges, border_mode=cv2.BORDER_REFLECT, p=1.0)
    images, pool = np.random.default_rng(0).random(shape, "float32"), ThreadPool(2)
    return lambda: np.stack(pool.map(lambda image: affine(image=image)["image"], images))


def opencv(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a function that calls OpenCV for each image, on two threads, all matrices given."""
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    images, pool = np.random.default_rng(0).random(shape, "float32"), ThreadPool(2)
    matrix = cv2.getRotationMatrix2D((shape[2] / 2, shape[1] / 2), 9, 1.05)
    size, options = (shape[2], shape[1]), {"borderMode": cv2.BORDER_REFLECT}
    return lambda: np.stack(
        pool.map(lambda image: cv2.warpAffine(image, matrix, size, **options), images)
    )


PEERS = {"keras-aug": keras_aug, "kornia": kornia, "albumentations": albumentations, "cv2": opencv}


def trainer(layers: list[keras.layers.Layer]) -> Callable[[], Any]:
    """Return a function that trains a small network behind the layers."""
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(16, 3, strides=2, activation="relu")
    network = [convolution, keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input(SMALL[1:]), *layers, *network])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    x, y = random.random((2600, *SMALL[1:]), "float32"), random.integers(0, 10, 2600)
    return lambda: model.fit(x, y, batch_size=SMALL[0], epochs=2, verbose=0)


def added(layers: list[keras.layers.Layer]) -> Callable[[], float]:
    """Return a function that measures how much longer `fit` takes with the layers."""
    plain, longer = trainer([]), trainer(layers)
    plain()
    longer()
    return lambda: milliseconds(longer) - milliseconds(plain)


def rows() -> Iterator[Row]:
    """Compare one pass with Keras' chain, and with what is installed of other packages."""
    for shape in (SMALL, LARGE):
        task = f"`RandomAffine`, {'×'.join(map(str, shape))}, graph"
        ours = caller(keras.Sequential(affine()), shape, training=True)
        theirs = caller(keras.Sequential(chain()), shape, training=True)
        yield race(task, KERAS, ours, theirs, 15)
        for name, peer in PEERS.items():
            if importlib.util.find_spec(name.replace("-", "_")):
                yield race(task, name, ours, peer(shape), 15)
        task = f"`RandomAffine` and `GaussianNoise`, {'×'.join(map(str, shape))}, graph"
        ours, theirs = (caller(layer, shape, training=True) for layer in noisy())
        yield race(task, "Keras' chain and `GaussianNoise`", ours, theirs, 15)
    task = "`RandomAffine`, added to 2 epochs of `fit`, 2600×32×32×3"
    yield compare(task, KERAS, added(affine()), added(chain()), 15)
