"""What every callback keeps, in a real `fit`."""

import json
from pathlib import Path

import keras
import pytest

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


@every_callback
def test_trains_as_without(case: Case, digits: tuple) -> None:
    losses = []
    for callbacks in ([], [case.make()]):
        fresh = dense_model(keras.optimizers.SGD(0.1))
        history = fresh.fit(*digits, validation_split=0.2, epochs=3, verbose=0, callbacks=callbacks)
        losses.append(history.history["val_loss"])
    assert losses[0] == losses[1]


@every_callback
def test_fit_twice(case: Case, model: keras.Model, digits: tuple) -> None:
    callback = case.make()
    for _ in range(2):
        history = model.fit(
            *digits, validation_split=0.2, epochs=2, verbose=0, callbacks=[callback]
        )
    assert len(history.history["loss"]) == 2


@every_that_resumes
def test_state_round_trip_through_json(case: Case, model: keras.Model, digits: tuple) -> None:
    callback, again = case.make(), case.make()
    model.fit(*digits, validation_split=0.2, epochs=2, verbose=0, callbacks=[callback])
    state = json.loads(json.dumps(callback.get_state()))
    assert state != again.get_state()
    again.set_state(state)
    assert again.get_state() == callback.get_state()
    model.fit(*digits, validation_split=0.2, verbose=0, callbacks=[again])
    assert again.get_state() != callback.get_state()  # it does not share what it was given


@every_that_resumes
def test_missing_validation_data(case: Case, model: keras.Model, digits: tuple) -> None:
    with pytest.raises(ValueError, match=r"Received: .*'val_loss'.*`validation_data`"):
        model.fit(*digits, verbose=0, callbacks=[case.make()])


@every_callback
def test_beside_keras_callbacks(case: Case, model: keras.Model, digits: tuple) -> None:
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(patience=1),
        keras.callbacks.CSVLogger("log.csv"),
        case.make(),
        keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
        keras.callbacks.EarlyStopping(patience=1),
    ]
    model.fit(*digits, validation_split=0.2, epochs=3, verbose=0, callbacks=callbacks)
    assert Path("log.csv").read_text().startswith("epoch,")


@bad_rows(*CALLBACKS)
def test_bad_arguments(case: Case, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        case.make(**arguments)
