"""What every callback keeps, in a real `fit`."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasopt.callbacks import GrowingBatchSize
from kerasopt.callbacks._checkpoint import _load, _save
from tests.contract.cases import CALLBACKS, Case, bad_rows, dense_model, rows

every_callback = rows(*CALLBACKS)
every_that_resumes = rows(*(case for case in CALLBACKS if case.resumes))


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """One compiled model for all: what it has learned does not matter here."""
    return dense_model(keras.optimizers.SGD(0.1))


def fit(model: keras.Model, digits: tuple, *callbacks: Any, epochs: int = 2) -> dict:
    """Train with validation, on the data that a callback hands out if one does."""
    data = digits
    for callback in callbacks:
        if isinstance(callback, GrowingBatchSize):
            data = (callback.batches(*digits),)
    arguments = {"validation_data": digits, "epochs": epochs, "verbose": 0}
    return model.fit(*data, callbacks=list(callbacks), **arguments).history


@rows(*(case for case in CALLBACKS if not case.acts))
def test_trains_as_without(case: Case, digits: tuple) -> None:
    losses = []
    for callbacks in ([], [case.make()]):
        fresh = dense_model(keras.optimizers.SGD(0.1))
        losses.append(fit(fresh, digits, *callbacks, epochs=3)["val_loss"])
    assert losses[0] == losses[1]


@every_callback
def test_fit_twice(case: Case, model: keras.Model, digits: tuple) -> None:
    callback = case.make()
    for _ in range(2):
        history = fit(model, digits, callback)
    assert len(history["loss"]) == 2


def text(state: dict[str, Any]) -> str:
    return json.dumps(state, default=np.ndarray.tolist)


@every_that_resumes
def test_state_round_trip_through_a_file(case: Case, model: keras.Model, digits: tuple) -> None:
    callback, again = case.make(), case.make()
    fit(model, digits, callback)
    _save(Path("state"), callback.get_state())
    state = _load(Path("state"))
    assert text(state) != text(again.get_state())
    again.set_state(state)
    before = text(state)
    assert text(again.get_state()) == text(callback.get_state()) == before
    fit(model, digits, again)
    assert text(state) == before  # it does not share what it was given


@rows(*(case for case in CALLBACKS if case.validated))
def test_missing_validation_data(case: Case, model: keras.Model, digits: tuple) -> None:
    with pytest.raises(ValueError, match=r"Received: .*'val_loss'.*`validation_data`"):
        model.fit(*digits, verbose=0, callbacks=[case.make()])


@every_callback
def test_beside_keras_callbacks(case: Case, model: keras.Model, digits: tuple) -> None:
    callback = case.make()
    drives = getattr(callback, "drives_learning_rate", False)
    callbacks = [
        *([] if drives else [keras.callbacks.ReduceLROnPlateau(patience=1)]),
        keras.callbacks.CSVLogger("log.csv"),
        callback,
        keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
        keras.callbacks.EarlyStopping(patience=1),
    ]
    fit(model, digits, *callbacks, epochs=3)
    assert Path("log.csv").read_text().startswith("epoch,")


@bad_rows(*CALLBACKS)
def test_bad_arguments(case: Case, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        case.make(**arguments)
