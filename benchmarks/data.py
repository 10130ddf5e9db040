"""Batches of 128 out of 60,000 images of 28×28, one epoch of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks._race import Row, compare, milliseconds, race
from kerasopt.data import ErrorWeightedSampler, interleave_classes

ROWS, SIZE, CLASSES = 60_000, 128, 10


def read(batches: Callable[[], Iterable[Any]]) -> Callable[[], None]:
    """Return a function that reads an epoch."""

    def run() -> None:
        for _ in batches():
            pass

    return run


def as_fit_reads(dataset: keras.utils.PyDataset) -> tf.data.Dataset:
    """Return what Keras makes of a `PyDataset` on TensorFlow."""
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), dataset[0]
    )
    batches = tf.data.Dataset.from_generator(lambda: iter(dataset), output_signature=signature)
    return batches.prefetch(tf.data.AUTOTUNE)


def in_turns(images: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
    """Return the classes in turns, as tf.data has it."""
    parts = [
        tf.data.Dataset.from_tensor_slices((images[labels == k], labels[labels == k]))
        .shuffle(ROWS // CLASSES)
        .repeat()
        for k in range(CLASSES)
    ]
    turns = tf.data.Dataset.range(CLASSES).repeat()
    batches = tf.data.Dataset.choose_from_datasets(parts, turns).batch(SIZE)
    return batches.take(ROWS // SIZE).prefetch(2)


def epoch(images: np.ndarray, labels: np.ndarray, weighted: bool) -> Callable[[], float]:
    """Return a function that trains a small network, and returns the milliseconds of an epoch."""
    layers = keras.layers
    model = keras.Sequential([keras.Input(images.shape[1:]), layers.Conv2D(16, 3, 2, "same")])
    for layer in (layers.ReLU(), layers.Conv2D(32, 3, 2, "same"), layers.ReLU(), layers.Flatten()):
        model.add(layer)
    model.add(layers.Dense(CLASSES))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sampler = ErrorWeightedSampler(images, labels, SIZE, seed=0)
    data: dict[str, Any] = {"x": images, "y": labels, "batch_size": SIZE}
    if weighted:
        data = {"x": sampler, "callbacks": [sampler.callback]}

    def run() -> float:
        return milliseconds(lambda: model.fit(**data, epochs=3, verbose=0)) / 3

    run()
    return run


def rows() -> Iterator[Row]:
    """Yield all."""
    random = np.random.default_rng(0)
    images = random.uniform(size=(ROWS, 28, 28, 1)).astype("float32")
    labels, losses = random.permutation(np.arange(ROWS) % CLASSES), random.gamma(0.5, size=ROWS)
    tensors = tf.data.Dataset.from_tensor_slices((images, labels))
    shuffled = read(lambda: tensors.shuffle(ROWS).batch(SIZE).prefetch(2))
    sampler = ErrorWeightedSampler(images, labels, SIZE, seed=0)
    turns = interleave_classes((images, labels), None, SIZE, seed=0)

    def by_epoch() -> ErrorWeightedSampler:
        sampler.update(losses)
        return sampler

    def by_batch() -> Iterator[Any]:
        for index in range(len(sampler)):
            rows = sampler.rows(index)
            yield sampler[index]
            sampler.update(losses[rows], rows)

    def next_turns() -> keras.utils.PyDataset:
        turns.on_epoch_begin()
        return turns

    name, peer = "`ErrorWeightedSampler`", "`shuffle(60000).batch(128)`"
    yield race(f"{name}, losses by epoch", peer, read(by_epoch), shuffled, 9)
    in_fit = read(lambda: as_fit_reads(by_epoch()))
    yield race(f"{name}, losses by epoch, as `fit` reads it", peer, in_fit, shuffled, 9)
    yield race(f"{name}, losses by batch", peer, read(by_batch), shuffled, 9)
    name, peer = "`interleave_classes`", "`choose_from_datasets`"
    classes = read(lambda: in_turns(images, labels))
    yield race(name, peer, read(next_turns), classes, 9)
    in_fit = read(lambda: as_fit_reads(next_turns()))
    yield race(f"{name}, as `fit` reads it", peer, in_fit, classes, 9)
    task = "`ErrorWeightedSampler` in `fit`: an epoch of 12,000, small convolutional network"
    some = images[:12_000], labels[:12_000]
    yield compare(task, "`fit` on the arrays", epoch(*some, True), epoch(*some, False), 9)
