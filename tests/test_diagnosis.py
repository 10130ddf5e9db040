"""`kerasopt.diagnose`, on real runs with known faults and on curves of a known form."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt._diagnosis import ADVICE
from kerasopt._histories import read_history
from kerasopt.callbacks import LearningCurve

RUNS = json.loads(Path(__file__).with_name("diagnosis").joinpath("runs.json").read_text())


def right(runs: list[dict[str, Any]]) -> float:
    """Return in what share of the runs the first finding is the fault."""
    found = [kerasopt.diagnose(run["history"], start=run["start"]).main for run in runs]
    return float(np.mean([main == run["fault"] for main, run in zip(found, runs, strict=True)]))


def test_real_runs() -> None:
    assert {run["fault"] for run in RUNS} == set(ADVICE)
    assert len(RUNS) >= 60
    assert right([run for run in RUNS if run["seen"]]) > 0.94
    assert right([run for run in RUNS if not run["seen"]]) > 0.9  # by chance a ninth


FALL = 2 * 0.8 ** np.arange(40.0) + 0.1
WAVE = (-1.0) ** np.arange(40)
FORMS = {
    "diverged": {"loss": [2.0, 1.0, 5.0, float("nan"), float("nan"), float("nan")]},
    "rate_too_high": {"loss": 1 + 0.2 * WAVE},
    "rate_too_low": {"loss": np.linspace(2.0, 1.2, 40)},
    "plateau": {"loss": 2.3 + 0.001 * WAVE},
    "underfitting": {"loss": FALL + 1},
    "overfitting": {"loss": FALL, "val_loss": FALL + np.linspace(0, 1, 40)},
    "noisy_validation": {"loss": FALL, "val_loss": FALL + 0.1 + 0.05 * WAVE},
    "leak": {"loss": FALL + 0.3, "val_loss": FALL + 0.1},
    "converged": {"loss": FALL, "val_loss": 1.02 * FALL},
}


@pytest.mark.parametrize("code", FORMS)
@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_forms(code: str, unit: float) -> None:
    history = {name: unit * np.array(values) for name, values in FORMS[code].items()}
    assert kerasopt.diagnose(history).main == code


@pytest.mark.parametrize(
    ("code", "history"),
    [
        ("converged", {"loss": -1 + 0.5 * 0.8 ** np.arange(40.0)}),  # an error below zero
        ("diverged", {"loss": [1e9, 2e6, 3e6, 1e6, 2e6, 2e6], "accuracy": [0.1] * 6}),
        ("rate_too_high", {"loss": [5.0, *[2.31] * 9], "accuracy": [0.2, *[0.1] * 9]}),
        ("plateau", {"loss": [2.35, *[2.31] * 9], "accuracy": [0.1] * 10}),
        ("underfitting", {"loss": [0.4, *[0.28] * 9], "accuracy": [0.8, *[0.88] * 9]}),
    ],
)
def test_what_a_classifier_knows(code: str, history: dict) -> None:
    assert kerasopt.diagnose(history).main == code


def test_validation_that_does_not_divide_the_epochs() -> None:
    falls = [0.5**k for k in range(10)]
    found = kerasopt.diagnose({"loss": falls, "val_loss": [0.5, 1.0, 2.0]})  # epochs 3, 6, 9
    assert found.main == "converged"  # three values are too few
    _, values = read_history("history", {"loss": falls, "val_loss": [0.5, 1.0, 2.0]})
    assert np.flatnonzero(np.isfinite(values["val_loss"])).tolist() == [2, 5, 8]


def test_finding_in_words() -> None:
    text = str(kerasopt.diagnose(FORMS["overfitting"]))
    assert text.startswith("What the curves show:\n- overfitting: the error of the validation set ")
    for figure in ("in epoch 14,", "ended at 1.05", "that of training at 0.1", "`callbacks.Early"):
        assert figure in text


def test_advice_names_what_exists() -> None:
    words = " ".join(ADVICE.values()).split("`")[1::2]
    named = [
        word.split(".")
        for word in words
        if word.startswith(("callbacks.", "optimizers.", "layers."))
    ]
    assert len(named) > 8
    assert all(hasattr(getattr(kerasopt, module), name) for module, name in named)


@pytest.mark.parametrize(("steps", "known"), [(1, True), (2, False)])
def test_error_before_training(tmp_path: Path, steps: int, known: bool) -> None:
    keras.utils.set_random_seed(0)
    x, y = np.random.default_rng(0).normal(size=(2, 32, 1))
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(30.0), "mse", steps_per_execution=steps)
    error = float(keras.ops.mean((model(x[:8]) - y[:8]) ** 2))
    curve = LearningCurve(tmp_path / "c.png", monitor="loss", verbose=False)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[curve])
    assert curve.start == (pytest.approx(error, rel=1e-5) if known else None)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[curve])  # goes on
    again = LearningCurve(tmp_path / "c.png")
    again.set_state(json.loads(json.dumps(curve.get_state())))
    assert again.start == curve.start


def test_a_first_epoch_that_went_astray() -> None:
    history = {"loss": [1e4, 10.0, *[1.0] * 9]}
    found = [kerasopt.diagnose(history, start=start).main for start in (None, 1e4, 1.0)]
    assert found == ["converged", "converged", "rate_too_high"]


@pytest.mark.parametrize(("start", "error"), [("1", TypeError), (0, ValueError)])
def test_bad_start(start: Any, error: type) -> None:
    with pytest.raises(error, match=r"`start` must be a number in \(0, inf\). Received: start="):
        kerasopt.diagnose({"loss": [1.0] * 9}, start=start)


def test_any_kind_of_history(tmp_path: Path, digits: tuple) -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv", separator=";")
    curve = LearningCurve(tmp_path / "c.png", monitor="loss", verbose=False)
    history = model.fit(*digits, epochs=5, verbose=0, callbacks=[log, curve])
    found = [kerasopt.diagnose(each) for each in (history, history.history, tmp_path / "log.csv")]
    assert found[0] == found[1]
    assert {each.main for each in (*found, curve.diagnosis())} == {found[0].main}


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1.0], TypeError, "`history` must be what `fit` returned"),
        ({}, ValueError, "`history` must hold the values of one epoch"),
        ({"mse": [1.0] * 9}, ValueError, r"`history` must hold 'loss' .* Received: \['mse'\], 9"),
        (
            {"loss": [1.0] * 4},
            ValueError,
            r"for at least 5 epochs\. Received: \['loss'\], 4 epochs",
        ),
    ],
)
def test_bad_history(history: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        kerasopt.diagnose(history)
