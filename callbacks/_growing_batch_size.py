"""Small batches first, larger ones as training proceeds."""

from itertools import islice
from math import inf, sqrt
from typing import Any

import keras

from kerasopt._acting import ActingCallback, check_one_rate_driver
from kerasopt._rate_factor import LearningRate
from kerasopt._validation import check_choice, check_count, check_number
from kerasopt.callbacks._checks import logged
from kerasopt.callbacks._gradient_noise import noise_scale
from kerasopt.callbacks._growing_batches import GrowingBatches, source_of

PROBES = 8  # batches that the noise of the gradient is estimated from


class GrowingBatchSize(ActingCallback):
    """Trains with batches that grow, in one `fit`.

    Small batches are fast while all samples say the same; towards the end, when their gradients
    differ, larger ones average the noise away, as a lower learning rate would, but take fewer
    steps. The callback hands out the data, and is passed to `fit` beside them:

        model.fit(growing.batches(x, y), epochs=20, callbacks=[growing])

    Each epoch goes through all samples once. Weights and optimizer keep their state; on TensorFlow
    the training step is not traced anew, on JAX once for each size.

    Args:
        start: Number ≥ 1 of samples in the first batches. Defaults to 32.
        factor: By what the size grows, an integer ≥ 2. Defaults to 2.
        every: Number of epochs ≥ 1: with `trigger="epoch"` from one growth to the next, with
            `"plateau"` those without improvement. Defaults to 5.
        max_size: Largest size, ≥ `start`, or None: the number of samples. Defaults to None.
        trigger: `"epoch"`; `"plateau"`: when `monitor` stops falling; or `"gradient_noise"`: when
            the noise scale tr Σ / ‖∇J‖² of the gradient, estimated from eight batches after each
            epoch, or as many as there are, is above the size. Defaults to `"epoch"`.
        monitor: Name of a logged value which falls as training proceeds, for `"plateau"`. Defaults
            to `"loss"`.
        min_delta: By how much it has to fall to count, ≥ 0. Defaults to 0.
        scale_learning_rate: How the learning rate grows with the size: `"linear"`: by the same
            factor, `"sqrt"`: by its root, or None: not. Defaults to None.

    Attributes:
        size: The number of samples in a batch, now.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range; when training begins: `batches` was not
            called, or another callback sets the rate that is scaled; after an epoch: `monitor` is
            not logged.

    Reference:
        Smith, Kindermans, Ying and Le, Don't decay the learning rate, increase the batch size,
        2018; McCandlish, Kaplan, Amodei et al., An empirical model of large-batch training, 2018,
        appendix A.1 (`"gradient_noise"`); X. Wang, Optimization for Training Deep Models, lecture,
        2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> growing = kerasopt.callbacks.GrowingBatchSize(start=8, every=2)
        >>> _ = model.fit(growing.batches(x, y), epochs=5, verbose=0, callbacks=[growing])
        >>> growing.size, int(model.optimizer.iterations)
        (32, 26)
    """

    def __init__(
        self,
        start: int = 32,
        factor: int = 2,
        every: int = 5,
        max_size: int | None = None,
        trigger: str = "epoch",
        monitor: str = "loss",
        min_delta: float = 0.0,
        scale_learning_rate: str | None = None,
    ) -> None:
        super().__init__()
        self.start = check_count("start", start)
        self.factor = check_count("factor", factor, least=2)
        self.every = check_count("every", every)
        self.max_size = None if max_size is None else check_count("max_size", max_size, least=start)
        self.trigger = check_choice("trigger", trigger, ("epoch", "plateau", "gradient_noise"))
        self.monitor = monitor
        self.min_delta = check_number("min_delta", min_delta, "[0, inf)")
        self.scale_learning_rate = check_choice(
            "scale_learning_rate", scale_learning_rate, (None, "linear", "sqrt")
        )
        self.drives_learning_rate = scale_learning_rate is not None
        self._data: Any = None
        self.set_state({"size": start, "epochs": 0, "waited": 0, "best": inf})

    def batches(
        self, x: Any, y: Any = None, sample_weight: Any = None, seed: int | None = 0
    ) -> keras.utils.PyDataset:
        """Return the data for `fit`.

        Args:
            x: Inputs: arrays, or a `tf.data.Dataset` that is not in batches, whose number of
                elements is known; what it shuffles is shuffled.
            y: Targets, of arrays. Defaults to None.
            sample_weight: Weights of the samples, of arrays. Defaults to None.
            seed: Seed of the order of the rows of arrays, which is another one in each epoch; None
                keeps them in place. Defaults to 0.

        Raises:
            TypeError: `x` is neither.
            ValueError: The arrays differ in their number of rows, or that of a dataset is unknown.
        """
        self._data = GrowingBatches(source_of(x, y, sample_weight, seed), lambda: self.size)
        return self._data

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that there are data; take the rate in hand."""
        if self._data is None:
            raise ValueError(
                "`GrowingBatchSize` must hand out the data: train with "
                "`model.fit(growing.batches(x, y), callbacks=[growing])`. Received: other data"
            )
        if self.scale_learning_rate:
            check_one_rate_driver()
            self._rate = LearningRate(self.model)
        self._largest = min(self.max_size or inf, self._data.source.count)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the rows into another order."""
        self._data.source.epoch = self._epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Let the size grow if it is time."""
        self._epochs += 1
        if self.size < self._largest and self._is_time(logs):
            self._grow(epoch)

    def get_state(self) -> dict[str, Any]:
        """Return the size, and what decides on the next."""
        return {
            "size": self.size,
            "epochs": self._epochs,
            "waited": self._waited,
            "best": self._best,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.size: int = state["size"]
        self._epochs, self._waited, self._best = state["epochs"], state["waited"], state["best"]

    def _is_time(self, logs: dict[str, Any]) -> bool:
        if self.trigger == "gradient_noise":
            whole = min(PROBES, self._data.source.count // self.size)
            batches = islice(self._data.source.batches(self.size), whole)
            return whole > 1 and noise_scale(self.model, batches) > self.size
        self._waited += 1
        if self.trigger == "plateau":
            value = logged(self.monitor, logs)
            if value < self._best - self.min_delta:
                self._best, self._waited = value, 0
        return self._waited >= self.every

    def _grow(self, epoch: int) -> None:
        before, self._waited = self.size, 0
        self.size = int(min(self.size * self.factor, self._largest))
        self.note(epoch + 1, f"batch {self.size}")
        if self.scale_learning_rate:
            ratio = self.size / before
            self._rate.scale(ratio if self.scale_learning_rate == "linear" else sqrt(ratio))
