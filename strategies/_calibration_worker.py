"""One process of `calibrate`: _calibration_worker.py SETTINGS; writes its times in seconds."""

import json
import os
import sys
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
STEPS = 35


def training(path: str, batch: int) -> list[float]:
    """Return the seconds of a training step: the mean, the median, the 95th percentile."""
    with strategy.scope():
        model = keras.saving.load_model(path, compile=False)
        inputs = one_sample(model)
        outputs = model.compute_output_spec(inputs)
        model.compile("sgd", keras.tree.map_structure(lambda each: "mse", outputs))

    def samples(each: Any) -> Any:
        shape = (batch, *each.shape[1:])
        random = tf.random.uniform(shape) if "float" in each.dtype else tf.zeros(shape)
        return tf.cast(random, each.dtype)

    x = keras.tree.map_structure(samples, inputs)
    y = keras.tree.map_structure(lambda each: tf.zeros((batch, *each.shape[1:])), outputs)
    history = model.fit(
        tf.data.Dataset.from_tensors((x, y)).repeat(),
        epochs=2,  # the first warms up
        steps_per_epoch=STEPS,
        shuffle=False,
        verbose=0,
        callbacks=[kerasopt.callbacks.ThroughputMonitor()],
    )
    logs = {name: values[-1] for name, values in history.history.items()}
    return [batch / logs["samples_per_second"], logs["step_time"], logs["step_time_p95"]]


strategy = kerasopt.strategies.MultiWorker(timeout=120)
results = [training(path, batch) for path, batch in settings["runs"]]
Path(sys.argv[1]).with_name(f"result-{index}.json").write_text(json.dumps(results))
