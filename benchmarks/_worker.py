"""One worker, on one core: _worker.py FILE IMAGES_A_WORKER; the chief writes images a second."""

import os
import sys
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

import kerasopt

file, images = Path(sys.argv[1]), int(sys.argv[2])
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
strategy = kerasopt.strategies.MultiWorker()
with strategy.scope():
    network = [layers.Conv2D(64, 3, padding="same", activation="relu") for _ in range(4)]
    top = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *network, *top])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
batch = images * strategy.num_replicas_in_sync
x = tf.random.uniform((batch, 32, 32, 3), seed=0)
y = tf.random.uniform((batch,), maxval=10, dtype=tf.int32, seed=0)
data = tf.data.Dataset.from_tensors((x, y)).repeat()
monitor = kerasopt.callbacks.ThroughputMonitor()
history = model.fit(
    data, epochs=2, steps_per_epoch=10, shuffle=False, verbose=0, callbacks=[monitor]
)
if strategy.is_chief:
    file.write_text(str(history.history["samples_per_second"][-1]))
