"""`kerasopt.callbacks.BackupAndRestore`."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasopt.callbacks import BackupAndRestore
from tests.contract.cases import dense_model


class BreakOff(keras.callbacks.Callback):
    """Raises at the beginning of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise InterruptedError


def noisy_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def train(digits: tuple, *callbacks: keras.callbacks.Callback, epochs: int = 5) -> keras.Model:
    model = noisy_model()
    model.fit(*digits, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_goes_on_as_if_not_broken_off(digits: tuple, tmp_path: Path, save_freq: Any) -> None:
    folder = tmp_path / "backup"
    with pytest.raises(InterruptedError):
        train(digits, BackupAndRestore(folder, save_freq), BreakOff(3))
    assert [path.name for path in folder.iterdir()] == [
        "epoch-000003.npz" if save_freq == "epoch" else "epoch-000002.npz"
    ]
    resumed = train(digits, backup := BackupAndRestore(folder, save_freq))
    assert not folder.exists()
    if save_freq == "epoch":  # else the epoch that was broken off is repeated
        for expected, weight in zip(train(digits).weights, resumed.weights, strict=True):
            np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    history = resumed.fit(*digits, epochs=2, verbose=0, callbacks=[backup])
    assert history.epoch == [0, 1]  # a finished training is not gone on with


def test_backup_that_breaks_off_leaves_the_one_before(
    digits: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(file: Any, *values: Any) -> None:
        file.write(b"half")
        raise OSError("no space left")

    with pytest.raises(InterruptedError):
        train(digits, BackupAndRestore(tmp_path), BreakOff(2))
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", half_written)
        with pytest.raises(OSError, match="no space left"):
            train(digits, BackupAndRestore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002.npz"]


@pytest.mark.parametrize("double", [True, False])
def test_backup_that_cannot_be_read(digits: tuple, tmp_path: Path, double: bool) -> None:
    with pytest.raises(InterruptedError):
        train(digits, BackupAndRestore(tmp_path, double_checkpoint=double), BreakOff(3))
    (tmp_path / "epoch-000003.npz").write_bytes(b"not a backup")
    again, epochs = BackupAndRestore(tmp_path, double_checkpoint=double), []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    if double:
        with pytest.warns(UserWarning, match=r"damaged: \['.*epoch-000003.npz'\]. Training goes"):
            train(digits, again, note)
        assert epochs == [2, 3, 4]
    else:
        with pytest.raises(OSError, match=r"must be readable. Received: .*epoch-000003"):
            train(digits, again, note)


def test_backup_of_another_model(digits: tuple, tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        train(digits, BackupAndRestore(tmp_path), BreakOff(1))
    other = dense_model(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"of the same model and optimizer. Received: backup_dir"):
        other.fit(*digits, verbose=0, callbacks=[BackupAndRestore(tmp_path)])


def test_bfloat16(digits: tuple, tmp_path: Path) -> None:
    models = []
    for _ in range(2):
        models.append(
            keras.Sequential([keras.Input((64,)), keras.layers.Dense(1, dtype="bfloat16")])
        )
        models[-1].compile("adam", "mse")
    x, y = digits[0].reshape(-1, 64), digits[1]
    with pytest.raises(InterruptedError):
        models[0].fit(
            x, y, verbose=0, epochs=2, callbacks=[BackupAndRestore(tmp_path), BreakOff(1)]
        )
    models[1].fit(x, y, verbose=0, epochs=1, callbacks=[BackupAndRestore(tmp_path)])
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one.astype("float32"), other.astype("float32"))


def test_keeps_what_it_wrote_if_asked(digits: tuple, tmp_path: Path) -> None:
    train(digits, BackupAndRestore(tmp_path, delete_checkpoint=False), epochs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002.npz"]


def test_model_that_is_not_built(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = BackupAndRestore(tmp_path)
    backup.set_model(model)
    with pytest.raises(ValueError, match=r"must be built before `fit`.* Received: Sequential"):
        backup.on_train_begin()


def test_one_file_system_for_all(
    digits: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "kerasopt.callbacks._checkpoint.worker_values"
    monkeypatch.setattr(module, lambda model, place: np.array([[3, 0], place]))
    with pytest.raises(ValueError, match=r"that all workers share.* epochs \[3, 0\]"):
        dense_model(keras.optimizers.SGD(0.1)).fit(
            *digits, verbose=0, callbacks=[BackupAndRestore(tmp_path)]
        )
