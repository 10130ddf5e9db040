"""Evaluation within an epoch."""

from typing import Any

import keras
import numpy as np

from kerasopt._validation import check_count
from kerasopt.callbacks._every import Every


class EvaluateEvery(keras.callbacks.Callback):
    """Evaluates the model after every so many training batches.

    Use it where an epoch is long, so that one error per epoch says too little about overfitting, or
    where `EarlyStopping` should look more often. The values are those that `model.evaluate` returns
    with `val_` before their names. They go to `history` with their steps, to the logs of the batch
    after which they were taken, and the newest ones to the logs of the epoch, for the callbacks
    that come after this one; what `fit` itself logs by the same name stays.

    The training is left as it is, to the last bit: the metrics of the epoch and what layers keep
    beside their weights, random generators included, are put back after each evaluation.

    Args:
        n_batches: Number ≥ 1 of training batches between two evaluations, counted over the epochs
            of a `fit`. With `steps_per_execution` the evaluation comes after the execution that
            reaches it.
        data: What to evaluate on: a tuple (x, y) or (x, y, sample_weight), or a dataset.
        batch_size: Rows of a batch where `data` is arrays. Defaults to that of `evaluate`, 32.

    Attributes:
        history: Lists of equal length by name: `"step"`, the number of training batches done, and
            the values of the evaluations, such as `"val_loss"`.

    Raises:
        TypeError: `n_batches` or `batch_size` is not an integer.
        ValueError: `n_batches` or `batch_size` is less than 1.

    Reference:
        Prechelt, Early stopping - but when?, 1998, on how often to evaluate.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> evaluate = kerasopt.callbacks.EvaluateEvery(2, (x[:8], y[:8]))
        >>> _ = model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[evaluate])
        >>> evaluate.history["step"], len(evaluate.history["val_loss"])
        ([2, 4, 6, 8], 4)
    """

    def __init__(self, n_batches: int, data: Any, batch_size: int | None = None) -> None:
        super().__init__()
        self._every = Every("n_batches", n_batches)
        self.n_batches = n_batches
        self.data = data
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.history: dict[str, list[float]] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin to count."""
        self._every.begin_training()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Expect the first batch of the epoch."""
        self._every.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluate if it is time."""
        if self._every.reached(batch, self.params["steps"]):
            values = {"step": self._every.count, **self._evaluate()}
            for name, value in values.items():
                self.history.setdefault(name, []).append(value)
            self._hand_in(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the newest values to the logs of the epoch."""
        self._hand_in(logs)

    def get_state(self) -> dict[str, Any]:
        """Return the steps and values, as a dict that JSON can hold."""
        history = {name: list(values) for name, values in self.history.items()}
        return {"every": self._every.get_state(), "history": history}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._every.set_state(state["every"])
        self.history = {name: list(values) for name, values in state["history"].items()}

    def _hand_in(self, logs: dict[str, Any] | None) -> None:
        for name, values in self.history.items():
            if logs is not None and name != "step":
                logs.setdefault(name, values[-1])

    def _evaluate(self) -> dict[str, float]:
        """Return the values of the model, which is then as it was before."""
        model = self.model  # on JAX this brings the weights' values into the model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self.data)
        touched = [*model.non_trainable_variables, *model.metrics_variables]
        copies = [copy for variable in touched for copy in _copies(model, variable)]
        values = [np.array(keras.ops.convert_to_numpy(copy)) for copy in copies]
        logs = model.evaluate(
            *(x, y, self.batch_size, 0, sample_weight),
            return_dict=True,
        )
        for copy, value in zip(copies, values, strict=True):
            copy.assign(value)
        return {f"val_{name}": value for name, value in logs.items()}


def _copies(model: keras.Model, variable: keras.Variable) -> list[Any]:
    """Return the variables of all replicas, which may differ in metrics; without, the variable."""
    if keras.backend.backend() != "tensorflow":
        return [variable]
    return list(model.distribute_strategy.experimental_local_results(variable.value))
