"""How fast training runs, and what it waits for."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasopt._strategy import start_clock, worker_values
from kerasopt.callbacks._every import steps_done

FIGURES = (
    "samples_per_second",
    "step_time",
    "step_time_p95",
    "communication_share",
    "straggler_ratio",
)


class ThroughputMonitor(keras.callbacks.Callback):
    """Logs how fast each epoch trained and, under a strategy of kerasopt, what it waited for.

    Use it to see whether more devices or workers pay, whether one worker keeps the others waiting,
    and whether the network between them is what limits. The logs of every epoch get

        samples_per_second     samples / Σ t_i
        step_time              median of t_i
        step_time_p95          95th percentile of t_i
        communication_share    W / Σ t_i
        straggler_ratio        max_k b_k / median_k b_k,   b = (Σ t_i - W) / steps in worker k

    where t_i are the seconds from the end of one training step to that of the next, W the seconds
    in which this worker waited for others or talked to them, and b_k the seconds for which worker k
    is busy in a step: 1 means that no worker is slower than the others. The last two are there
    under `kerasopt.strategies` only. The first step of each `fit` is left out: it compiles. The
    values reach `History` and the callbacks that come after this one, `TensorBoard` among them.

    W is taken around the messages within the step; what a device computes meanwhile is in it.

    Reference:
        Chen et al., Revisiting distributed synchronous SGD, 2016, on stragglers.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = kerasopt.callbacks.ThroughputMonitor()
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[monitor]).history
        >>> history["samples_per_second"][0] > 0
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock: Callable[[], float] | None = None
        self._compiling = self._open = False
        self._last = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock of the strategy."""
        self._clock = start_clock(self.model)
        self._compiling = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin anew."""
        self._times: list[float] = []
        self._steps = 0
        self._start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the time of the step, or of the steps of one execution."""
        now = time.perf_counter()
        done = steps_done(batch, self.params["steps"])
        steps = done - self._steps
        self._steps = done
        if self._compiling:
            self._compiling = False
            self._start()
            return
        self._times += [(now - self._last) / steps] * steps
        self._last = now

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Close the account before the validation of this epoch begins."""
        self._close()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Add the figures of this epoch to its logs."""
        self._close()
        times = np.array(self._times or [math.nan])
        logs["samples_per_second"] = self._samples / self._steps / float(times.mean())
        logs["step_time"] = float(np.median(times))
        logs["step_time_p95"] = float(np.percentile(times, 95))
        if self._clock:
            waits = self._waited / len(times)
            busy = worker_values(self.model, times.mean() - waits)
            logs["communication_share"] = float(waits / times.mean())
            logs["straggler_ratio"] = float(busy.max() / np.median(busy))

    def _start(self) -> None:
        self._last = time.perf_counter()
        self._waited = -self._clock() if self._clock else 0.0
        self._open = True

    def _close(self) -> None:
        if self._open:
            self._open = False
            tracker = next(metric for metric in self.model.metrics if metric.name == "loss")
            self._samples = float(keras.ops.convert_to_numpy(tracker.count))
            self._waited += self._clock() if self._clock else 0.0
