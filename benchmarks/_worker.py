"""One worker, on one core: _worker.py FILE IMAGES_A_WORKER; the chief writes images a second.

With parameter servers, by TF_CONFIG, it is one of the processes of an asynchronous training.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

import kerasopt

file, images = Path(sys.argv[1]), int(sys.argv[2])
config = json.loads(os.environ["TF_CONFIG"])
asynchronous = "ps" in config["cluster"]
if config["task"]["type"] == "worker":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
kind = kerasopt.strategies.ParameterServer if asynchronous else kerasopt.strategies.MultiWorker
strategy = kind()
with strategy.scope():
    network = [layers.Conv2D(64, 3, padding="same", activation="relu") for _ in range(4)]
    top = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *network, *top])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])


def data(replicas: int) -> tf.data.Dataset:
    """Return the same batch over and over."""
    x = tf.random.uniform((images * replicas, 32, 32, 3), seed=0)
    y = tf.random.uniform((images * replicas,), maxval=10, dtype=tf.int32, seed=0)
    return tf.data.Dataset.from_tensors((x, y)).repeat()


monitor = kerasopt.callbacks.ThroughputMonitor()
known: dict[str, Any] = {"epochs": 2, "verbose": 0, "callbacks": [monitor]}
if asynchronous:  # steps of any worker, as many as there
    history = strategy.fit(model, lambda: data(1), steps_per_epoch=20, **known)
else:
    replicas = strategy.num_replicas_in_sync
    history = model.fit(data(replicas), steps_per_epoch=10, shuffle=False, **known)
if getattr(strategy, "is_chief", True):
    file.write_text(str(history.history["samples_per_second"][-1]))
