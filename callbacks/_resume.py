"""Training that ends as if it had never been broken off."""

import copy
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasopt._strategy import assign_metrics, is_chief, metric_values
from kerasopt._validation import check_count
from kerasopt.callbacks._callback_states import set_states, states
from kerasopt.callbacks._checkpoint import Checkpoints, model_state, name_values
from kerasopt.callbacks._every import steps_done
from kerasopt.callbacks._position import begin_after, begin_at, calling_fit, pass_over


class Resume(keras.callbacks.Callback):
    """Keeps all of a training in a folder; the same script run again goes on where it was.

    Use it wherever training takes long enough to be broken off. The script is the same for the
    first and for all later runs, and after `kill -9` at any moment it ends, on a CPU and with data
    that do not depend on chance, with the weights, the optimizer and the history that a training
    without interruption has, bit for bit; the `History` that `fit` returns holds all epochs. Kept
    are

    - the weights, the random generators of layers, all that the optimizer remembers, by what
      callbacks scale its schedules, and within an epoch the sums of the metrics;
    - what the callbacks of the list remember: those that have `get_state` and `set_state`, as all
      of kerasopt, and Keras' `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`,
      `SwapEMAWeights` and `History`. It may stand anywhere in the list;
    - the random numbers of Python's `random` and of `np.random`, from the beginning of the epoch;
    - the place in the data. Batches that were trained on are read and left out; callbacks see
      nothing of it.

    A checkpoint is one file with a checksum. It is there whole or not at all, and outlasts a loss
    of power once it is there. If the newest is damaged, a warning says so, and training goes on
    from the one before. Under `kerasopt.strategies.MultiWorker` the chief writes, all workers read.

    A training that has come to its end is not gone on with for the same number of `epochs` or
    fewer, also if a callback stopped it early: `fit` hands back its weights and history. With more
    `epochs` it goes on, as if they had been asked for from the beginning.

    The data. Arrays go on in the same order; on TensorFlow this needs `keras.utils.set_random_seed`
    in the script. So does a `tf.data.Dataset`, with `shuffle` and `reshuffle_each_iteration` too,
    if it has a seed or the script sets one; what other operations of it draw at random (those of
    `tf.random` in `map`) is not kept. Of a `PyDataset` `on_epoch_begin` and `on_epoch_end` are
    called for the epochs that are over; if both they and `__getitem__` draw from one generator,
    draw instead from one that is seeded by epoch and index. Where `steps_per_epoch` is given, and
    with Python generators, all batches of the epochs that are over are read again.

    Not kept is what layers draw without a `keras.random.SeedGenerator`, and what other callbacks
    remember. Give `CSVLogger` `append=True`; it may repeat the epoch in which it was broken off.

    Args:
        directory: Folder of the checkpoints, for this training only. It is made if missing. Of
            `MultiWorker` all workers must share it.
        every: `"epoch"`, or after how many steps there is a checkpoint, ≥ 1: within epochs, as
            soon as the next step is done, or at their end. Defaults to `"epoch"`.
        keep: How many checkpoints are kept, ≥ 1: with 1, there is none to fall back on. Defaults
            to 2.

    Raises:
        TypeError: `every` is neither `"epoch"` nor an integer, or `keep` is not an integer; in
            `fit`, what `get_state` of a callback returned cannot be kept.
        ValueError: `every` or `keep` is less than 1; in `fit`, when the model is not built, the
            model or the optimizer is not that of the checkpoint, the data have fewer batches than
            before, or workers find different checkpoints.
        OSError: In `fit`, before training: the folder cannot be written to, or all checkpoints are
            damaged; later: there is no room for a checkpoint.
        RuntimeError: It is called by something else than `fit`.

    Reference:
        Mohan, Phanishayee and Chidambaram, CheckFreq: frequent, fine-grained DNN checkpointing,
        2021, on checkpoints within epochs and the position in the data.

    Example:
        >>> import keras, kerasopt, numpy as np, tempfile
        >>> runs = tempfile.mkdtemp()
        >>> def script(epochs):
        ...     keras.utils.set_random_seed(1)
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     resume = kerasopt.callbacks.Resume(runs)
        ...     x, y = np.ones((4, 2)), np.ones((4, 1))
        ...     return model.fit(x, y, epochs=epochs, verbose=0, callbacks=[resume])
        >>> script(2).epoch
        [0, 1]
        >>> script(3).epoch  # trains one more
        [0, 1, 2]
    """

    def __init__(self, directory: str | Path, every: str | int = "epoch", keep: int = 2) -> None:
        super().__init__()
        if isinstance(every, str) and every != "epoch":
            raise ValueError(
                f"`every` must be 'epoch' or a number of steps. Received: every={every!r}"
            )
        self._steps = 0 if isinstance(every, str) else check_count("every", every)
        self._checkpoints = Checkpoints("Resume", "directory", directory, check_count("keep", keep))
        # Where Keras calls callbacks from another thread, the model would be steps ahead of them.
        self.async_safe = not self._steps

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Have the training kept by what is called after all other callbacks."""
        callbacks, epochs = calling_fit()
        others = [each for each in callbacks.callbacks if not isinstance(each, _Keeper)]
        keeper = _Keeper(self._checkpoints, self._steps, others, epochs)
        keeper.set_model(self.model)
        keeper.set_params(self.params)
        callbacks.callbacks[:] = [*others, keeper]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do nothing; that it is there has Keras wait for callbacks, unless they are safe."""


class _Keeper(keras.callbacks.Callback):
    """The last callback of the list: what it keeps and restores, the others are done with."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        steps: int,
        others: list[keras.callbacks.Callback],
        epochs: Any,
    ) -> None:
        super().__init__()
        self._checkpoints, self._steps = checkpoints, steps  # 0: at the end of each epoch
        self._others, self._epochs = others, epochs
        self._epoch = self._step = self._unsaved = 0
        self._within: dict[str, Any] | None = None  # from the middle of the epoch that comes first
        self._pending: dict[str, Any] | None = None
        self._first: int | None = None  # the epoch that training began with, in the first run

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the newest checkpoint, if there is one."""
        self._checkpoints.check(self.model)
        if (state := self._checkpoints.newest(self.model)) is None:
            return
        over = self.params["epochs"] <= state["ended"]
        begin_at(self.model, max(state["epoch"], self.params["epochs"] if over else 0))
        self._first = state["first"]
        if not over:
            pass_over(self._epochs, state["epoch"] - self._first)
        self._restore(state)
        _set_random_state(state["random"])
        self._within = state if state["step"] else None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note where the epoch begins, and begin in its middle if that is where it was."""
        begin_at(self.model, None)
        self._epoch, self._step = epoch, 0
        self._first = epoch if self._first is None else self._first
        if state := self._within:
            self._within, self._step = None, state["step"]
            _set_random_state(state["random"])
            begin_after(self._epochs, self._step, lambda batch: self._restore_within(state, batch))
        self._random = _random_state()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write what was kept at an earlier step, now that the epoch did not end with it."""
        if self._pending:
            self._write(self._pending)
        done = steps_done(batch, self.params["steps"])
        self._unsaved += done - self._step
        self._step = done
        if self._steps and self._unsaved >= self._steps:
            state = self._state(self._epoch, self._step, self._random)
            state["metrics"] = name_values(self.model.metrics_variables, metric_values(self.model))
            self._pending = copy.deepcopy(state)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write a checkpoint if it is time."""
        ends = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if ends or self._unsaved >= self._steps:
            state = self._state(epoch + 1, 0, _random_state())
            self._write({**state, "ended": self.params["epochs"] if ends else 0})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the next `fit` begin where it is told to."""
        begin_at(self.model, None)

    def _state(self, epoch: int, step: int, numbers: dict[str, Any]) -> dict[str, Any]:
        return {
            **model_state(self.model),  # on JAX what is read after it is in the model again
            "first": self._first,
            "epoch": epoch,
            "step": step,
            "ended": 0,  # the number of epochs after which training has come to its end
            "random": numbers,
            "callbacks": states(self._others),
        }

    def _write(self, state: dict[str, Any]) -> None:
        self._pending, self._unsaved = None, 0
        if is_chief(self.model):
            self._checkpoints.write(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._checkpoints.assign(self.model, state)
        set_states(self._others, state["callbacks"])

    def _restore_within(self, state: dict[str, Any], batch: Any) -> None:
        model = self.model
        if len(model.metrics_variables) < len(state["metrics"]):
            # On TensorFlow metrics are built by the first step; one that counts nothing will do.
            model.test_on_batch(*keras.utils.unpack_x_y_sample_weight(batch))
        self._checkpoints.compare("metrics", state["metrics"], model.metrics_variables)
        self._restore(state)
        assign_metrics(model, [value for _, value in state["metrics"]])


def _random_state() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
