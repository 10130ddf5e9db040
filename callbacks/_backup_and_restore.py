"""Training that goes on where it was broken off."""

import shutil
from pathlib import Path
from typing import Any

import keras

from kerasopt._strategy import is_chief
from kerasopt.callbacks._checkpoint import Checkpoints, model_state
from kerasopt.callbacks._position import begin_at


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Keeps the state of training in a folder while `fit` runs, and takes it up in the next `fit`.

    Use it where a long training may be broken off. It does what
    `keras.callbacks.BackupAndRestore` does, in whose place it stands, and beyond that:

    - The random generators of layers are kept: training ends at the weights of one that was not
      broken off.
    - A backup is one file that is there whole or not at all. Keras writes weights and epoch one
      after the other: broken off in between, it repeats an epoch with the weights that follow it.
    - Under `kerasopt.strategies.MultiWorker` only the chief writes and deletes, and all workers
      restore. With Keras' callback they break each other's files.

    Not restored are the history, what other callbacks keep, and the place in the sequence of orders
    of data that is shuffled differently in each epoch: for these take `Resume`.

    Args:
        backup_dir: Folder of the backups, for this training only. Of `MultiWorker` all workers
            must share it.
        save_freq: `"epoch"`, or a number of batches. Training goes on at the beginning of the epoch
            in either case. Defaults to `"epoch"`.
        double_checkpoint: Whether to keep the last two backups, in case that the newest is damaged.
            Defaults to False.
        delete_checkpoint: Whether to delete the folder when training has come to its end. Defaults
            to True.

    Raises:
        ValueError: `backup_dir` is empty or `save_freq` is neither; in `fit`, when the model is
            not built, the backup is of another model, or workers find different backups.
        OSError: The folder cannot be written to, there is no room in it, or the backup is damaged.

    Reference:
        X. Wang, Optimization for Training Deep Models, lecture, 2015, on machines that fail.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> backup = kerasopt.callbacks.BackupAndRestore("backup")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> model.fit(x, y, epochs=2, verbose=0, callbacks=[backup]).epoch
        [0, 1]
    """

    def __init__(
        self,
        backup_dir: str | Path,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__(str(backup_dir), save_freq, double_checkpoint, delete_checkpoint)
        self._checkpoints = Checkpoints(
            "BackupAndRestore", "backup_dir", backup_dir, 2 if double_checkpoint else 1
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the newest backup that is not damaged, if any."""
        self._checkpoints.check(self.model)
        state = self._checkpoints.newest(self.model)
        if state:
            self._checkpoints.assign(self.model, state)
        begin_at(self.model, state["epoch"] if state else 0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the backups; training has come to its end."""
        if self.delete_checkpoint and is_chief(self.model):
            shutil.rmtree(self.backup_dir, ignore_errors=True)

    def _save_model(self) -> None:
        """Write a backup, which Keras' class calls for at the times asked for."""
        if is_chief(self.model):
            state = {"epoch": self._current_epoch, "step": 0, **model_state(self.model)}
            self._checkpoints.write(state)
