"""Training that goes on where it was broken off."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasopt._files import replacing
from kerasopt._strategy import is_chief, worker_values

PATTERN = "epoch-*.npz"
BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)  # what NumPy may raise


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

    Not restored are what other callbacks keep, and the place in the sequence of orders of data that
    is shuffled differently in each epoch.

    Args:
        backup_dir: Folder of the backups, for this training only. Of `MultiWorker` all workers
            must share it.
        save_freq: `"epoch"`, or a number of batches. Training goes on at the beginning of the epoch
            in either case. Defaults to `"epoch"`.
        double_checkpoint: Whether to keep the last two backups, in case that the newest cannot be
            read. Defaults to False.
        delete_checkpoint: Whether to delete the folder when training has come to its end. Defaults
            to True.

    Raises:
        ValueError: `backup_dir` is empty or `save_freq` is neither; in `fit`, when the model is
            not built, the backup is of another model, or workers find different backups.
        OSError: The backup cannot be read.

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

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the newest backup that can be read, if any."""
        if not self.model.built:
            raise ValueError(
                "The model must be built before `fit` with `BackupAndRestore`: give it an "
                f"`Input`, or call it on a batch. Received: {type(self.model).__name__}, not built"
            )
        backups = sorted(Path(self.backup_dir).glob(PATTERN), reverse=True)
        epoch = self._restore(backups) if backups else 0
        epochs = worker_values(self.model, epoch)
        if any(epochs != epochs[0]):
            raise ValueError(
                "`backup_dir` must be a folder that all workers share. Received: "
                f"backup_dir={self.backup_dir!r}, where the workers find backups of the epochs "
                f"{epochs.tolist()}"
            )
        self.model._initial_epoch = epoch  # where `fit` begins

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the backups; training has come to its end."""
        if self.delete_checkpoint and is_chief(self.model):
            shutil.rmtree(self.backup_dir, ignore_errors=True)

    def _restore(self, backups: list[Path]) -> int:
        """Load the first that can be read; return the epochs it has behind it."""
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        for backup in backups:
            try:
                with np.load(backup) as file:
                    values = [file[name] for name in file.files]
            except BROKEN:
                continue
            self._assign(backup, values)
            return int(backup.stem.removeprefix("epoch-"))
        raise OSError(
            f"The backup must be readable. Received: {[str(backup) for backup in backups]}. Delete "
            "`backup_dir` to begin anew; `double_checkpoint=True` keeps one more."
        )

    def _assign(self, backup: Path, values: list[np.ndarray]) -> None:
        state = self._state()
        kept, here = ([tuple(v.shape) for v in each] for each in (values, state))
        if kept != here:
            raise ValueError(
                "`backup_dir` must hold backups of the same model and optimizer. Received: "
                f"{str(backup)!r} with {len(kept)} variables; the model has {len(here)}, or other "
                "shapes. Delete the folder to begin anew."
            )
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)

    def _state(self) -> list[keras.Variable]:
        """Return the variables of the model, its random generators and its optimizer."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        state = [variable for variable in self.model.variables if id(variable) not in metrics]
        return state + (self.model.optimizer.variables if self.model.optimizer else [])

    def _save_model(self) -> None:
        """Write a backup, which Keras' class calls for at the times asked for."""
        if not is_chief(self.model):
            return
        folder = Path(self.backup_dir)
        folder.mkdir(parents=True, exist_ok=True)
        values = [keras.ops.convert_to_numpy(variable) for variable in self._state()]
        # NumPy has no bfloat16 of its own; its values are among those of float32.
        values = [v.astype("float32") if v.dtype.name == "bfloat16" else v for v in values]
        with replacing(folder / PATTERN.replace("*", f"{self._current_epoch:06d}")) as part:
            np.savez(part, *values)
        for old in sorted(folder.glob(PATTERN))[: -2 if self.double_checkpoint else -1]:
            old.unlink()
