"""16. Parallelism in five ways.

The lecture: one GPU, two with model parallelism, two and four with data parallelism, and four with
both take very different times. Plotted against the number of weight updates, the curves of their
test errors would almost perfectly coincide.

Seen: the network of two columns of `examples/parallelism.py` on the digits, from the same weights
over the same batches. Against the updates the curves lie on each other; the lines differ in width
so that all can be seen. The devices here are four logical ones on the same cores: against time, the
picture shows what the ways cost, not what they gain, and the first epoch holds what TensorFlow
still prepares. What they gain on devices of their own is predicted in section 17.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from _gallery import Shown, legend, panels, show

sys.path.append(str(Path(__file__).parent.parent))

from parallelism import STYLES, load, parse, strategies, train


# page: begin
def curves() -> dict[str, list[Any]]:
    """Return (updates, seconds, test error in %) before training and after each epoch, by way."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    with tempfile.TemporaryDirectory() as folder:
        options = parse(["--data-dir", folder, "--epochs", "4", "--width", "8"])
        data = load(options)
    return {name: train(way, options, data) for name, way in strategies().items()}


# page: end


def make() -> Shown:
    """Train in five ways."""
    figure, (left, right) = panels(["test error, by weight updates", "test error, by time"])
    rows: list[list[Any]] = [["", "updates", "test error, %", "seconds"]]
    errors = []
    for name, points in curves().items():
        updates, seconds, error = zip(*points, strict=True)
        colour, width = STYLES[name]
        for axes, across in ((left, updates), (right, seconds)):
            axes.plot(across, error, color=colour, linewidth=width, label=name)
        errors.append(error)
        rows.append([name, updates[-1], error[-1], seconds[-1]])
    spread = np.ptp(errors, axis=0)
    assert spread[0] == 0  # the same weights
    assert spread.max() < 1.2  # four of 360 images
    assert np.max(errors[0]) > 10 * np.mean(errors, axis=0)[-1]
    left.set(xlabel="weight updates", ylabel="%", ylim=(0, None))
    right.set(xlabel="seconds of training", ylim=(0, None))
    legend(left)
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
