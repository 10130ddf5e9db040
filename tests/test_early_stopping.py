"""`kerasopt.callbacks.EarlyStopping` in a real `fit`."""

import functools
import json
from math import inf, nan
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.callbacks import EarlyStopping, EvaluateEvery
from tests.contract.cases import dense_model

FALLING = [5, 4, 3, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3]
TURNING = [5, 4, 3, 2, 1.9, 2.1, 2.0, 1.8, 1.9, 2.0, 2.2, 2.1, 2.4, 2.6, 2.5, 2.9, 3.1, 3.3, 3.2, 4]
NOISY = list(np.abs(np.random.RandomState(3).normal(size=25)).cumsum()[::-1] % 7 + 1)
SCRIPTS = {"falling": FALLING, "turning": TURNING, "noisy": NOISY}


class Script(keras.callbacks.Callback):
    """Logs given values, and makes the epoch the one weight of the model."""

    def __init__(self, val_loss: list, **others: list) -> None:
        super().__init__()
        self.values = {"val_loss": val_loss, **others}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({name: float(values[epoch]) for name, values in self.values.items()})
        self.model.set_weights([np.full((1, 1), float(epoch))])


@functools.cache
def tiny_model() -> keras.Model:
    """Return one compiled model for all: the script sets its weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse", metrics=["accuracy"])
    return model


def train(*callbacks: Any, epochs: int = 100, **arguments: Any) -> keras.Model:
    """Fit, for as many epochs as the script has, if there is one."""
    model, x = tiny_model(), np.zeros((4, 1))
    for script in callbacks[:1]:
        epochs = min(epochs, len(getattr(script, "values", {}).get("val_loss", range(epochs))))
    model.fit(x, x, epochs=epochs, verbose=0, callbacks=list(callbacks), **arguments)
    return model


def stopped_after(stop: EarlyStopping, val_loss: list, **others: list) -> int | None:
    """Return after which epoch, from 1, training was stopped."""
    epochs = train(Script(val_loss, **others), stop).history.epoch
    return len(epochs) if stop.reason else None


class FirstStops(keras.callbacks.Callback):
    """Notes after which epoch each of several callbacks stops, and goes on with the training."""

    def __init__(self, stops: list[keras.callbacks.EarlyStopping]) -> None:
        super().__init__()
        self.stops, self.epochs = stops, [None] * len(stops)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for index, stop in enumerate(self.stops):
            if stop.stopped_epoch and self.epochs[index] is None:
                self.epochs[index] = epoch + 1
        self.model.stop_training = False


AS_KERAS: list[dict[str, Any]] = [
    {},
    {"patience": 3},
    {"patience": 2, "min_delta": 0.3},
    {"patience": 4, "baseline": 1.5},
    {"patience": 2, "start_from_epoch": 4},
    {"patience": 3, "mode": "max", "min_delta": 0.2},
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_is_that_of_keras(script: str) -> None:
    kinds = EarlyStopping, keras.callbacks.EarlyStopping
    own, theirs = ([kind(**arguments) for arguments in AS_KERAS] for kind in kinds)
    train(Script(SCRIPTS[script]), *own, *theirs, first := FirstStops(own + theirs))
    assert first.epochs[: len(own)] == first.epochs[len(own) :]
    for one, other in zip(own, theirs, strict=True):
        for name in ("best", "best_epoch", "wait"):
            assert getattr(one, name) == getattr(other, name)


def test_takes_the_arguments_of_keras_in_their_order() -> None:
    arguments = ("loss", 0.5, 3, 0, "min", 2.0, True, 1)
    own, theirs = EarlyStopping(*arguments), keras.callbacks.EarlyStopping(*arguments)
    for name in ("monitor", "min_delta", "patience", "verbose", "mode", "baseline"):
        assert getattr(own, name) == getattr(theirs, name)
    assert (own.restore_best_weights, own.start_from_epoch) == (True, 1)


def prechelt(criterion: str, errors: Any, losses: Any, alpha: float, s: int) -> int | None:
    """Return after which epoch the criterion stops, by the definitions of the paper."""
    k, errors, losses = 5, np.array(errors), np.array(losses)
    run = 0
    for t in range(1, len(errors) + 1):
        gl = 100 * (errors[t - 1] / errors[:t].min() - 1)
        if criterion != "GL" and t % k:
            continue
        if criterion == "UP":
            holds = t > k and errors[t - 1] > errors[t - 1 - k]
        else:
            strip = losses[t - k : t]
            p = 1000 * (strip.sum() / (k * strip.min()) - 1) if criterion == "PQ" else 1.0
            holds = gl / p > alpha
        run = run + 1 if holds else 0
        if run == s:
            return t
    return None


PAPER = [
    *(("GL", alpha, 0) for alpha in (1, 3, 5, 30)),
    *(("PQ", alpha, 0) for alpha in (0.01, 0.05, 0.1, 0.5)),
    *(("UP", None, s) for s in (1, 2, 3)),
    ("GL", 5, 3),
    ("PQ", 0.01, 2),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_criteria_of_the_paper(script: str) -> None:
    errors = SCRIPTS[script]
    losses = list(3 + np.exp(-np.arange(len(errors)) / 4))
    stops = [EarlyStopping(criterion=c, alpha=a, patience=s) for c, a, s in PAPER]
    train(Script(errors, loss=losses), *stops, first := FirstStops(stops))
    expected = [prechelt(c, errors, losses, a or 0, max(1, s)) for c, a, s in PAPER]
    assert first.epochs == expected
    assert {stop.reason for stop in stops} <= {"GL", "PQ", "UP", ""}


@pytest.mark.parametrize(
    ("losses", "expected"), [([0] * 10, 10), ([1, 0, 1, 0, 1] * 2, None), ([1] * 10, 10)]
)
def test_progress_of_a_training_error_of_zero(losses: list, expected: int | None) -> None:
    errors = [5, 4, 3, 2, 1, 2, 3, 4, 5, 6]
    assert stopped_after(EarlyStopping(criterion="PQ"), errors, loss=losses) == expected


def test_criteria_where_more_is_better() -> None:
    stop = EarlyStopping("val_accuracy", criterion="GL", alpha=10.0)
    assert stopped_after(stop, [0] * 5, val_accuracy=[0.5, 0.8, 0.73, 0.71, 0.9]) == 4


@pytest.mark.parametrize("smooth", [0.0, 0.5, 0.9])
def test_smooth(smooth: float) -> None:
    m, best, expected = 0.0, inf, None
    for t, error in enumerate(NOISY, start=1):
        m = smooth * m + (1 - smooth) * error
        value = m / (1 - smooth**t)
        if value >= best:
            expected = t
            break
        best = value
    stop = EarlyStopping(smooth=smooth)
    assert stopped_after(stop, NOISY) == expected
    assert stop.best == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "values", "expected", "reason"),
    [
        ({"relative": True, "min_delta": 0.1}, [10, 8.9, 8.1, 7], 3, "not better"),
        ({"relative": True, "min_delta": 0.1, "mode": "max"}, [1, 1.2, 1.31, 2], 3, "not better"),
        (
            {"relative": True, "min_delta": 0.1, "baseline": 10, "patience": 2},
            *([9.5, 9.4, 9.3, 9.2], 2, "not better"),
        ),
        ({"stopping_threshold": 2}, [4, 3, 2, 1], 3, "good enough"),
        ({"stopping_threshold": 2, "mode": "max"}, [1, 1.5, 2.5, 3], 3, "good enough"),
        ({"divergence_threshold": 9, "patience": 9}, [4, 8, 9, 1], 3, "diverged"),
        ({"divergence_threshold": 0.5, "patience": 9, "mode": "max"}, [1, 0.4, 1], 2, "diverged"),
        ({"patience": 9}, [4, nan, 3], 2, "not finite"),
        ({"patience": 9}, [inf, 4, 3], 1, "not finite"),
        ({"patience": 2, "check_finite": False}, [4, 3, nan, 2, inf, nan, 1], 6, "not better"),
        ({"patience": 2, "check_finite": False}, [nan, nan, nan, 2, 3, 3, 1], 6, "not better"),
        ({"patience": 2, "check_finite": False, "mode": "max"}, [1, inf, nan, 2], 3, "not better"),
    ],
)
def test_when_it_stops(arguments: dict, values: list, expected: int, reason: str) -> None:
    stop = EarlyStopping(**arguments)
    assert stopped_after(stop, values) == (expected if reason else None)
    assert stop.reason == reason
    assert [event.text for event in stop.events] == ([f"stop: {reason}"] if reason else [])
    assert [event.epoch for event in stop.events] == ([expected] if reason else [])


class Interrupt(keras.callbacks.Callback):
    """Ends the training after six epochs, in some way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 5 and self.how == "keyboard":
            raise KeyboardInterrupt
        self.model.stop_training |= epoch == 5 and self.how == "callback"


@pytest.mark.parametrize("how", ["epochs", "callback", "keyboard", "not finite", "not better"])
def test_best_weights_are_back(how: str) -> None:
    values = [5, 3, 2, 4, 4, nan if how == "not finite" else 4]
    stop = EarlyStopping(patience=3 if how == "not better" else 9, restore_best_weights=True)
    if how == "keyboard":
        with pytest.raises(KeyboardInterrupt):
            train(Script(values), stop, Interrupt(how))
        stop.on_train_end()
    else:
        train(Script(values), stop, Interrupt(how))
    assert tiny_model().get_weights()[0].item() == 2
    assert stop.events[-1] == (6, "epoch 3 restored")


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_optimizer_goes_back_with_the_weights(digits: tuple, optimizer: str) -> None:
    def run(*callbacks: Any, epochs: int) -> list[np.ndarray]:
        made = keras.optimizers.SGD(0.1, 0.9) if optimizer == "momentum" else "adam"
        model = dense_model(made)
        model.fit(*digits, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks))
        return [keras.ops.convert_to_numpy(v) for v in [*model.weights, *model.optimizer.variables]]

    values = [5, 4, 3, 6, 7, 8]
    scripted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=values[epoch])
    )
    stop = EarlyStopping(patience=9, restore_best_weights=True, restore_optimizer=True)
    for expected, value in zip(run(epochs=3), run(scripted, stop, epochs=6), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("criterion", ["patience", "GL", "PQ", "UP"])
def test_resumes_where_it_was(criterion: str) -> None:
    arguments: dict[str, Any] = {"criterion": criterion, "patience": 2, "smooth": 0.3}
    arguments |= {"restore_best_weights": True, "restore_optimizer": True}
    whole, first, second = (EarlyStopping(**arguments) for _ in range(3))
    end = len(train(Script(TURNING), whole).history.epoch)
    assert whole.reason
    train(Script(TURNING), first, epochs=end - 1)
    assert not first.reason
    second.set_state(first.get_state())
    model = train(Script(TURNING), second, epochs=20, initial_epoch=end - 1)
    assert model.history.epoch == [end - 1]
    assert second.best_epoch == whole.best_epoch
    assert model.get_weights()[0].item() == whole.best_epoch


def test_state_without_weights_is_json() -> None:
    train(Script(TURNING), stop := EarlyStopping(criterion="UP", patience=4))
    assert json.loads(json.dumps(stop.get_state())) == stop.get_state()


def test_second_fit_begins_anew() -> None:
    stop = EarlyStopping(restore_best_weights=True)
    for _ in range(2):
        assert stopped_after(stop, [3, 2, 4, 1]) == 3
    assert stop.best == 2


def test_validation_in_some_epochs() -> None:
    stop, x = EarlyStopping(patience=1), np.zeros((4, 1))
    model = train(stop, epochs=9, validation_data=(x, x), validation_freq=3)
    assert len(model.history.epoch) == 6  # the errors are all zero
    assert stop.wait == 1


@pytest.mark.parametrize(
    ("monitor", "arguments", "message"),
    [
        (
            "val_loss",
            {},
            r"monitor='val_loss', logged: \['accuracy', 'loss'\]. .*`validation_data`",
        ),
        ("val_auc", {"validation_freq": 1}, r"monitor='val_auc', logged: .*'val_accuracy'"),
        ("auc", {"validation_freq": 2}, r"monitor='auc', logged: \['accuracy', 'loss'\]"),
    ],
)
def test_monitor_that_is_not_logged(monitor: str, arguments: dict, message: str) -> None:
    x = np.zeros((4, 1))
    arguments |= {"validation_data": (x, x)} if arguments else {}
    with pytest.raises(ValueError, match=f"`monitor` must be a value that `fit` logs.*{message}"):
        train(EarlyStopping(monitor, mode="min"), **arguments)


@pytest.mark.parametrize("steps", [1, 4])
def test_every_batches(digits: tuple, steps: int) -> None:
    model = dense_model(keras.optimizers.SGD(0.1), steps_per_execution=steps)
    images, labels = (np.concatenate([part] * 4) for part in digits)
    evaluate = EvaluateEvery(4, (images[:64], labels[:64]))
    stop = EarlyStopping(every_batches=4, divergence_threshold=1e-3, restore_best_weights=True)
    model.fit(images, labels, epochs=3, verbose=0, callbacks=[evaluate, stop])
    assert evaluate.history["step"] == [4]
    assert stop.events == [(0.25, "stop: diverged"), (1, "epoch 1 restored")]
    stop = EarlyStopping("loss", every_batches=8, patience=2, stopping_threshold=1e9)
    model.fit(images, labels, epochs=3, verbose=0, callbacks=[stop])
    assert stop.events == [(0.5, "stop: good enough")]


def test_patience_within_the_first_epoch(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.0))
    evaluate = EvaluateEvery(1, digits)
    stop = EarlyStopping(every_batches=1, patience=2)
    model.fit(*digits, epochs=2, verbose=0, callbacks=[evaluate, stop])
    assert evaluate.history["step"] == [1, 2, 3]
    assert stop.events == [(0.75, "stop: not better")]


def test_every_batches_without_evaluation(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.1))
    stop = EarlyStopping(every_batches=2)
    message = r"`every_batches` must be a multiple .*monitor='val_loss'.* put an `EvaluateEvery` be"
    for callbacks in ([stop], [stop, EvaluateEvery(2, digits)], [EvaluateEvery(3, digits), stop]):
        with pytest.raises(ValueError, match=message):
            model.fit(*digits, validation_split=0.5, verbose=0, callbacks=callbacks)


class GoOn(keras.callbacks.Callback):
    """Lets no other callback stop the training."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = False


def test_each_fit_counts_its_batches_anew(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.0))
    stop = EarlyStopping("loss", every_batches=3, stopping_threshold=1e9)
    for _ in range(2):  # an epoch has four batches
        model.fit(*digits, verbose=0, callbacks=[stop, GoOn()])
    assert stop.events == [(0.75, "stop: good enough")] * 2


def test_evaluation_and_check_of_each_fit_meet(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.0))
    evaluate, stop = EvaluateEvery(3, digits), EarlyStopping(every_batches=3, patience=1)
    for _ in range(2):
        model.fit(*digits, epochs=9, verbose=0, callbacks=[evaluate, stop])
        assert len(model.history.epoch) == 2
    assert evaluate.history["step"] == [3, 6, 9, 12]


def test_evaluation_that_comes_after_epochs(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.0))
    evaluate, stop = EvaluateEvery(6, digits), EarlyStopping(patience=1)
    model.fit(*digits, epochs=9, verbose=0, callbacks=[evaluate, stop])  # of four batches
    assert len(model.history.epoch) == 3
    assert evaluate.history["step"] == [6, 12]


@pytest.mark.tensorflow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_under_a_strategy(digits: tuple, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model = dense_model(keras.optimizers.SGD(0.1, 0.9))
    seen: list[list[np.ndarray]] = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(model.get_weights())
    )
    scripted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=[3, 1, 2, 2][epoch])
    )
    stop = EarlyStopping(patience=2, restore_best_weights=True, restore_optimizer=True)
    model.fit(*digits, epochs=4, verbose=0, callbacks=[keep, scripted, stop])
    for value, expected in zip(model.get_weights(), seen[1], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert int(model.optimizer.iterations.numpy()) == 8


def test_prints_as_keras(capsys: pytest.CaptureFixture) -> None:
    printed = []
    for kind in (EarlyStopping, keras.callbacks.EarlyStopping):
        train(Script([2, 1, 3]), kind(verbose=1, restore_best_weights=True))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "best epoch: 2" in printed[0]
