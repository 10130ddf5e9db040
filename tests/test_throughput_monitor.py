"""`kerasopt.callbacks.ThroughputMonitor`."""

import time
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.callbacks._throughput_monitor import FIGURES
from tests.contract.cases import dense_model

pytestmark = pytest.mark.alone


class Stamps(keras.callbacks.Callback):
    """Takes the time of the last epoch's steps, which it makes uneven."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.stamps = [time.perf_counter()]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.stamps.append(time.perf_counter())
        time.sleep(0.1 if batch % 5 == 4 else 0.02)


def figures(digits: tuple, model: keras.Model, **arguments: Any) -> dict[str, list[float]]:
    images, labels = (part[:100] for part in digits)
    callbacks = [kerasopt.callbacks.ThroughputMonitor()]
    defaults = {"batch_size": 10, "epochs": 2, "verbose": 0, "callbacks": callbacks}
    return model.fit(images, labels, **{**defaults, **arguments}).history


@pytest.mark.parametrize("steps_per_execution", [1, 3, 5])
def test_times_and_samples(digits: tuple, steps_per_execution: int) -> None:
    model = dense_model(keras.optimizers.SGD(0.1), steps_per_execution=steps_per_execution)
    callbacks = [kerasopt.callbacks.ThroughputMonitor(), stamps := Stamps()]
    history = figures(digits, model, validation_split=0.2, callbacks=callbacks)
    times = np.diff(stamps.stamps)
    counts = np.minimum(steps_per_execution, 8 - np.arange(0, 8, steps_per_execution))
    paces = np.repeat(times / counts, counts)
    expected = {
        "samples_per_second": 80 / times.sum(),
        "step_time": np.median(paces),
        "step_time_p95": np.percentile(paces, 95),
    }
    for name, value in expected.items():
        assert history[name][1] == pytest.approx(value, rel=0.02)
    assert "straggler_ratio" not in history


def test_compilation_is_left_out(digits: tuple) -> None:
    history = figures(digits, dense_model(keras.optimizers.SGD(0.1)), batch_size=100)
    assert np.isnan(history["step_time"][0])
    assert 0 < history["step_time"][1] < np.inf


@pytest.mark.tensorflow
def test_waiting_under_a_strategy(digits: tuple) -> None:
    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = dense_model(keras.optimizers.SGD(0.1))
    history = figures(digits, model)
    assert tuple(history)[-5:] == FIGURES
    assert all(0 < share < 1 for share in history["communication_share"])
    assert history["straggler_ratio"] == [1.0, 1.0]
    assert strategy.clock.numpy() > 0


def test_beside_the_learning_curve(digits: tuple, tmp_path: Any) -> None:
    curve = kerasopt.callbacks.LearningCurve(tmp_path / "c.png", monitor="loss")
    callbacks = [kerasopt.callbacks.ThroughputMonitor(), curve]
    figures(digits, dense_model(keras.optimizers.SGD(0.1)), callbacks=callbacks)
    assert set(FIGURES[:3]) < set(curve.history)
    assert list(curve._panels()) == ["loss", "accuracy"]
