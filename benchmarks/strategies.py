"""One training step of a convolutional network on two logical CPUs."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import layers

import kerasopt
from benchmarks._race import Row, race

DEVICES = ["CPU:0", "CPU:1"]
BATCH, STEPS = 64, 40


def trainer(strategy: Any) -> Callable[[], Any]:
    """Return a function that runs some steps of `fit`."""
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(64, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    images = tf.random.uniform((BATCH, 32, 32, 3))
    labels = tf.random.uniform((BATCH,), maxval=10, dtype=tf.int32)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return lambda: model.fit(data, steps_per_epoch=STEPS, verbose=0)


def rows() -> Iterator[Row]:
    """Compare with TensorFlow's strategy, which is not exact, on an even batch."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    reduction = tf.distribute.ReductionToOneDevice()
    yield race(
        f"`DataParallel`, {STEPS} steps of a convolutional network, 2 logical CPUs",
        "`tf.distribute.MirroredStrategy`",
        trainer(kerasopt.strategies.DataParallel(DEVICES)),
        trainer(tf.distribute.MirroredStrategy(DEVICES, cross_device_ops=reduction)),
        rounds=11,
    )
