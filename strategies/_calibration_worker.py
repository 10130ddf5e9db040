"""One process of `calibrate`: _calibration_worker.py SETTINGS; writes its times in seconds."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import kerasopt
from kerasopt.strategies._trace import one_sample

settings = json.loads(Path(sys.argv[1]).read_text())
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
if settings["alone"]:
    del os.environ["TF_CONFIG"]
ROUNDS, STEPS = 7, 5


def training(batch: int) -> list[float]:
    """Return the seconds of a training step: the mean, the median, the 95th percentile."""

    def samples(each: Any) -> Any:
        shape = (batch, *each.shape[1:])
        random = tf.random.uniform(shape) if "float" in each.dtype else tf.zeros(shape)
        return tf.cast(random, each.dtype)

    x = keras.tree.map_structure(samples, inputs)
    y = keras.tree.map_structure(lambda each: tf.zeros((batch, *each.shape[1:])), outputs)
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    history = model.fit(
        data,
        epochs=2,  # the first warms up
        steps_per_epoch=ROUNDS * STEPS,
        shuffle=False,
        verbose=0,
        callbacks=[kerasopt.callbacks.ThroughputMonitor()],
    )
    logs = {name: values[-1] for name, values in history.history.items()}
    return [batch / logs["samples_per_second"], logs["step_time"], logs["step_time_p95"]]


def exchange(size: int) -> list[float]:
    """Return the seconds in which all workers add up vectors of so many bytes."""

    @tf.function
    def run() -> Any:
        def add_up() -> Any:
            context = tf.distribute.get_replica_context()
            vector = tf.zeros(size // 4)
            for _ in range(STEPS):
                vector = context.all_reduce(tf.distribute.ReduceOp.SUM, vector) + 1.0
            return vector

        return strategy.run(add_up)

    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / STEPS)
    return times


strategy = kerasopt.strategies.MultiWorker(timeout=120)
with strategy.scope():
    model = keras.saving.load_model(settings["model"], compile=False)
    inputs = one_sample(model)
    outputs = model.compute_output_spec(inputs)
    model.compile("sgd", keras.tree.map_structure(lambda each: "mse", outputs))
result = {
    "steps": [training(batch) for batch in settings["batches"]],
    "exchanges": [exchange(size) for size in settings["sizes"]],
}
Path(sys.argv[1]).with_name(f"result-{index}.json").write_text(json.dumps(result))
