"""`kerasopt.callbacks.Resume`: what was broken off ends as what was not, bit for bit."""

import json
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import ExponentialDecay

import kerasopt
from kerasopt.callbacks import (
    AdaptiveLearningRate,
    EarlyStopping,
    EvaluateEvery,
    GradientMonitor,
    GrowingBatchSize,
    LearningCurve,
    LearningRateFinder,
    Resume,
)
from kerasopt.callbacks._callback_states import REMEMBERED, states
from tests.soak import main as soak
from tests.workers import launch

X = np.random.default_rng(0).normal(size=(44, 6)).astype("float32")
Y = (X[:, :1] * X[:, 1:2] > 0).astype("float32")


class BreakOff(keras.callbacks.Callback):
    """Raises after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at = epoch, step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch + 1) >= self.at:
            raise InterruptedError


class Steps(keras.callbacks.Callback):
    """Notes the epoch and the index of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen.append((self.epoch, batch))


class RatePerStep(keras.callbacks.Callback):
    """Changes the rate in each step, and remembers how many there were."""

    steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        self.model.optimizer.learning_rate = 0.02 / (1 + self.steps)

    def get_state(self) -> dict[str, Any]:
        return {"steps": np.array([self.steps])}

    def set_state(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"][0])


class Bad(keras.callbacks.Callback):
    """Logs a hopeless loss in the third epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if epoch == 2:
            logs["loss"] = 1e9


class Shuffled(keras.utils.PyDataset):
    """Shuffles itself after each epoch, and adds noise of NumPy's global generator."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.order, self.noise = np.arange(len(X)), noise

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple:
        rows = self.order[index * 8 : index * 8 + 8]
        noise = np.random.normal(size=X[rows].shape) if self.noise else 0
        return X[rows] + self.noise * noise, Y[rows]

    def on_epoch_end(self) -> None:
        if not self.noise:
            np.random.shuffle(self.order)


def arrays() -> dict:
    return {"x": X, "y": Y, "batch_size": 8}


def whole_batch() -> dict:
    return {"x": X, "y": Y, "batch_size": 44, "shuffle": False, "validation_data": None}


def dataset(*steps: Callable) -> Callable[[], dict]:
    def make() -> dict:
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(44, seed=3)
        for step in (*steps, lambda data: data.batch(8).prefetch(2)):
            data = step(data)
        return {"x": data, "shuffle": False}

    return make


def generator() -> dict:
    def batches() -> Any:
        random = np.random.default_rng(0)
        while True:
            rows = random.integers(len(X), size=8)
            yield X[rows], Y[rows]

    return {"x": batches(), "steps_per_epoch": 6, "shuffle": False}


def growing() -> dict:
    """Return data, and the callback that hands them out."""
    grows = GrowingBatchSize(start=4, every=1, max_size=8, scale_learning_rate="linear")
    return {"x": grows.batches(X, Y), "callbacks": [grows]}


def network(
    optimizer: Callable = keras.optimizers.Adam, units: int = 8, **arguments: Any
) -> keras.Model:
    hidden = keras.layers.Dense(units, "tanh", name="hidden")
    layers = [hidden, keras.layers.Dropout(0.2), keras.layers.Dense(1, name="top")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer(), loss, **{"metrics": ["mae"], **arguments})
    return model


def momentum() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.1, 0.9)


def eager(optimizer: Callable = momentum, **arguments: Any) -> keras.Model:
    """Return a model that takes no time to be compiled, on TensorFlow."""
    return network(optimizer, run_eagerly=True, **arguments)


def slow() -> keras.Model:
    return eager(lambda: keras.optimizers.SGD(0.01))


def decaying() -> keras.Model:
    return eager(lambda: keras.optimizers.SGD(ExponentialDecay(0.01, 10, 0.9)))


def layerwise() -> keras.Model:
    return eager(lambda: kerasopt.optimizers.LayerwiseLearningRate(keras.optimizers.SGD(0.01)))


def quasi_newton() -> keras.Model:
    model = kerasopt.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh")])
    model.add(keras.layers.Dense(1))
    model.compile(kerasopt.optimizers.LBFGS(), "mse")
    return model


def normalised() -> keras.Model:
    model = network(run_eagerly=True)
    model.add(keras.layers.BatchNormalization())
    return model


def schedule_free() -> keras.Model:
    return eager(lambda: kerasopt.optimizers.ScheduleFree("sgd"))


def averaged() -> keras.Model:
    return eager(lambda: keras.optimizers.SGD(0.1, use_ema=True))


def on_two_devices() -> keras.Model:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        return network()


def keras_callbacks() -> list:
    return [
        keras.callbacks.EarlyStopping(patience=2, min_delta=0.01, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=0.01),
        keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
    ]


def adaptive(**arguments: Any) -> Callable[[], list]:
    """Return callbacks that go back at the end of the third epoch alone."""
    return lambda: [Bad(), AdaptiveLearningRate(tolerance=1.0, **arguments)]


def finder() -> list:
    return [LearningRateFinder(X, Y, steps=2)]


def looks() -> list:
    return [
        EvaluateEvery(4, (X, Y)),
        EarlyStopping(every_batches=8, patience=99, restore_best_weights=True),
        GradientMonitor(every=4, histograms=True),
        LearningCurve(every_batches=3, verbose=False),
    ]


@dataclass(frozen=True)
class Script:
    """A script that trains, run from its beginning by each call."""

    data: Callable[[], dict] = arrays
    model: Callable[[], keras.Model] = eager
    callbacks: Callable[[], list] = list
    every: Any = 4
    first: bool = False  # whether `Resume` is the first in the list
    breaks: tuple[int, int] = (1, 5)  # epoch, and the step after which it is broken off
    begins: tuple[int, int] = (1, 2)  # where it goes on
    epochs: int = 2

    def __call__(self, *others: Any, epochs: int = 0, directory: str = "runs") -> list:
        """Return history, weights and optimizer, and what the callbacks remember."""
        keras.utils.set_random_seed(1)
        arguments = {
            "validation_data": (X[:8], Y[:8]),
            "epochs": epochs or self.epochs,
            **self.data(),
        }
        model, own = self.model(), [*arguments.pop("callbacks", ()), *self.callbacks(), *others]
        own.insert(0 if self.first else len(own), Resume(directory, self.every))
        history = model.fit(**arguments, verbose=0, callbacks=own)
        variables = [*model.variables, *model.optimizer.variables]
        rate = model.optimizer.learning_rate
        values = [keras.ops.convert_to_numpy(v).tolist() for v in (*variables, rate)]
        remembered = json.dumps([history.history, states(own)], default=np.ndarray.tolist)
        return [remembered, history.epoch, values]


EPOCHS: dict[str, Any] = {"every": "epoch", "begins": (1, 0)}
STOPS: dict[str, Any] = {"callbacks": keras_callbacks, "epochs": 9}
LATE: dict[str, Any] = {"breaks": (2, 6), "begins": (2, 4), "epochs": 4}
PLACES = {"": LATE, ", epochs": {**LATE, "every": "epoch", "begins": (2, 0)}}
RATES = {"number": slow, "schedule": decaying}
OWN = {
    f"{name}, {rate}{where}": Script(**{"model": model, **place, **script})
    for where, place in PLACES.items()
    for rate, model in RATES.items()
    for name, script in {
        "adaptive": {"callbacks": adaptive()},
        "growing": {"data": growing, "begins": (2, 3 if place is LATE else 0)},  # after 17 steps
    }.items()
}
SCRIPTS = {
    **OWN,
    "finder": Script(callbacks=finder, model=decaying, **LATE),
    "finder, epochs": Script(callbacks=finder, model=decaying, **PLACES[", epochs"]),
    "adaptive, loss": Script(callbacks=adaptive(mode="loss"), **LATE),
    "adaptive, layers": Script(callbacks=adaptive(per_layer=True), model=layerwise, **LATE),
    "adaptive, batches": Script(callbacks=adaptive(every=3), **LATE),
    "looks": Script(callbacks=looks, **LATE),
    "looks, epochs": Script(callbacks=looks, **PLACES[", epochs"]),
    "compiled": Script(model=network),
    "normalised": Script(model=normalised),
    "dataset": Script(dataset()),
    "dataset, epochs": Script(dataset(), **EPOCHS),
    "initial epoch": Script(
        lambda: {**dataset()(), "initial_epoch": 1}, epochs=3, breaks=(2, 5), begins=(2, 2)
    ),
    "unknown size": Script(dataset(lambda data: data.filter(lambda x, y: x[0] > -100))),
    "repeated": Script(lambda: {**dataset(lambda d: d.repeat())(), "steps_per_epoch": 6}),
    "generator": Script(generator),
    "PyDataset": Script(lambda: {"x": Shuffled(0.0)}),
    "PyDataset with noise": Script(lambda: {"x": Shuffled(0.1)}),
    "two devices": Script(model=on_two_devices),
    "L-BFGS": Script(whole_batch, quasi_newton, **EPOCHS, breaks=(1, 1), epochs=3),
    "schedule-free": Script(model=schedule_free, **EPOCHS),
    "steps per execution": Script(model=lambda: network(steps_per_execution=2)),
    "callbacks, last": Script(**STOPS, breaks=(2, 6), begins=(2, 4)),
    "callbacks, first": Script(**{**STOPS, **EPOCHS}, first=True),
    "rate per step": Script(callbacks=lambda: [RatePerStep()], first=True),
    "averages": Script(
        model=averaged, callbacks=lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    ),
}
SLOW = ("L-BFGS", "finder", "two devices", "adaptive, loss", "adaptive, batches")
rows = pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            script,
            id=name,
            marks=[
                *[pytest.mark.tensorflow] * (name == "two devices"),
                *[pytest.mark.slow] * (name in SLOW or name.endswith(", epochs")),
            ],
        )
        for name, script in SCRIPTS.items()
    ],
)


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@rows
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # where its size is not known
def test_ends_as_if_not_broken_off(script: Script, steps: Steps) -> None:
    expected = script(directory="whole")
    with pytest.raises(InterruptedError):
        script(BreakOff(*script.breaks))
    assert script(steps) == expected
    assert steps.seen[0] == script.begins


def flip(place: int) -> Callable[[bytes], bytes]:
    """Return what turns over a bit of the byte in this place."""

    def turn(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[place] ^= 4
        return bytes(changed)

    return turn


by_epoch = Script(every="epoch")


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", flip(40), flip(-40)])
def test_damaged_checkpoint(damage: Callable[[bytes], bytes], steps: Steps) -> None:
    expected, newest = by_epoch(), Path("runs/epoch-000002.npz")
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"damaged: \['.*-000002.npz'\].*from '.*-000001.npz'"):
        assert by_epoch(steps) == expected
    assert steps.seen[0] == (1, 0)
    assert by_epoch() == expected  # the damaged one was written anew


def test_no_checkpoint_can_be_read() -> None:
    by_epoch()
    for path in Path("runs").iterdir():
        path.write_bytes(b"")
    with pytest.raises(OSError, match=r"in `directory` must be readable. Received: .* all damaged"):
        by_epoch()


class FullDisk(keras.callbacks.Callback):
    """Lets no file become larger than a few kilobytes, from the second epoch on."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, self.limits[1]))


def test_full_disk_leaves_what_is_there() -> None:
    expected, full = by_epoch(directory="whole"), FullDisk()
    try:
        with pytest.raises(OSError, match=r"`directory` must have room .*: make room and run"):
            by_epoch(full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, full.limits)
    assert [path.name for path in Path("runs").iterdir()] == ["epoch-000001.npz"]
    assert by_epoch() == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: eager(units=9),
            r"sequential/hidden/kernel \(6, 8\) of the model is now .*kernel \(6, 9\)\.",
        ),
        (
            lambda: eager(keras.optimizers.Adam),
            r"sgd/iteration \(\) of the optimizer is now adam/iteration \(\)\. Delete the folder",
        ),
        (
            lambda: eager(keras.optimizers.SGD),
            r"sgd/sequential_hidden_kernel_momentum \(6, 8\) of the optimizer is now nothing",
        ),
        (
            lambda: eager(metrics=["mse"]),
            r"mean_absolute_error/total \(\) of the metrics is now mean_squared_error/total",
        ),
    ],
    ids=["shape", "optimizer", "momentum", "metrics"],
)
def test_another_model_or_optimizer(other: Callable, message: str) -> None:
    script = Script()
    with pytest.raises(InterruptedError):
        script(BreakOff(0, 6))
    with pytest.raises(ValueError, match=f"the same model and optimizer.*'runs', where {message}"):
        replace(script, model=other)()


@pytest.mark.parametrize("epochs", [1, 2])
def test_finished_training_is_handed_back(epochs: int, steps: Steps) -> None:
    script = Script(callbacks=keras_callbacks, model=averaged)
    expected = script()
    assert script(steps, epochs=epochs) == expected
    assert not steps.seen


def test_training_that_was_stopped_stays_so(steps: Steps) -> None:
    script = Script(
        callbacks=lambda: [keras.callbacks.EarlyStopping(patience=1, baseline=-1)], epochs=4
    )
    expected = script()
    assert expected[1] == [0, 1]
    assert script(steps) == expected
    assert not steps.seen
    script(steps, epochs=5)
    assert steps.seen[0] == (2, 0)


@pytest.mark.parametrize("model", [averaged, schedule_free])
def test_more_epochs_go_on(model: Callable) -> None:
    script = Script(model=model, every="epoch")
    expected = script(epochs=3, directory="whole")
    script(epochs=1)
    assert script(epochs=3) == expected


def test_rate_is_found_once() -> None:
    """The script that goes on has no data to find it with."""
    script = Script(callbacks=finder, **EPOCHS)
    expected = script(directory="whole")
    with pytest.raises(InterruptedError):
        script(BreakOff(*script.breaks))
    assert replace(script, callbacks=lambda: [LearningRateFinder(iter(()))])() == expected


def test_stopping_remembers_why_and_begins_anew() -> None:
    def train(*others: Any) -> tuple[keras.Model, EarlyStopping]:
        stop, model = EarlyStopping("loss", patience=1, min_delta=100), eager()
        callbacks = [stop, *others, Resume("runs")]
        model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
        return model, stop

    with pytest.raises(InterruptedError):
        train(BreakOff(1, 1))
    for _ in range(2):  # the second is handed back
        model, stop = train()
        assert (stop.reason, stop.stopped_epoch) == ("not better", 1)
    assert model.fit(X, Y, epochs=5, verbose=0, callbacks=[stop]).epoch == [0, 1]


def test_next_fit_begins_where_it_is_told_to() -> None:
    by_epoch()
    keras.utils.set_random_seed(1)
    model = eager()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[Resume("runs")])
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize("keep", [1, 3])
def test_keep(keep: int) -> None:
    Path("runs").mkdir()
    Path("runs/.part-epoch-000007.npz").touch()  # of a process that was killed
    eager().fit(X, Y, epochs=4, verbose=0, callbacks=[Resume("runs", keep=keep)])
    names = [f"epoch-{epoch:06d}.npz" for epoch in range(5 - keep, 5)]
    assert sorted(path.name for path in Path("runs").iterdir()) == names


def test_files_within_epochs() -> None:
    Script(every=4)(epochs=2)  # 12 steps: the last checkpoint within an epoch is after 8
    names = ["epoch-000001-step-000000002.npz", "epoch-000002.npz"]
    assert sorted(path.name for path in Path("runs").iterdir()) == names


def test_other_callbacks() -> None:
    by_epoch()
    with pytest.warns(UserWarning, match=r"\['RatePerStep 1'\] begin anew, and what \[\] rem"):
        by_epoch(RatePerStep(), epochs=3)


def test_state_that_cannot_be_kept() -> None:
    callback = RatePerStep()
    callback.get_state = lambda: {"model": Path()}
    with pytest.raises(TypeError, match=r"plain values, lists and NumPy arrays. Received: .*Path"):
        by_epoch(callback)


def test_fewer_batches_than_before() -> None:
    script = Script()
    with pytest.raises(InterruptedError):
        script(BreakOff(0, 6))
    with pytest.raises(ValueError, match=r"more than the 4 batches an epoch .* Received"):
        replace(script, data=lambda: {**arrays(), "batch_size": 22})()


@pytest.mark.parametrize("directory", ["/proc/runs", "file/runs", "file"])
def test_unwritable_directory_before_training(directory: str, steps: Steps) -> None:
    Path("file").touch()
    with pytest.raises(OSError, match=f"must be a folder that can be written to.*'{directory}'"):
        by_epoch(steps, directory=directory)
    assert not steps.seen


@pytest.mark.tensorflow  # elsewhere `fit` builds it
def test_model_that_is_not_built() -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"must be built before `fit`.* Received: Sequential, not"):
        model.fit(X, Y, verbose=0, callbacks=[Resume("runs")])


def test_loop_of_ones_own() -> None:
    resume = Resume("runs")
    resume.set_model(eager())
    with pytest.raises(RuntimeError, match="must be called by `fit` of a Keras model"):
        resume.on_train_begin()


def test_names_that_keras_keeps_its_state_by() -> None:
    callbacks = [*keras_callbacks(), keras.callbacks.SwapEMAWeights(), keras.callbacks.History()]
    for callback in callbacks:
        callback.on_train_begin()
    assert [*map(type, callbacks)] == [*REMEMBERED]
    for callback, names in zip(callbacks, REMEMBERED.values(), strict=True):
        assert set(names) <= vars(callback).keys()


CLUSTER = """
keras.utils.set_random_seed(0)
strategy = kerasopt.strategies.MultiWorker()

class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        first = len(list(here.glob("runs/*-step-*"))) and not (here / "died").exists()
        if strategy.cluster.index == 1 and first and self.model.optimizer.iterations > 9:
            (here / "died").touch()
            os.kill(os.getpid(), 9)

def train(name, *callbacks):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build()
    resume = kerasopt.callbacks.Resume(here / name, every=3)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[resume, *callbacks])
    return [history.history, [w.numpy().tolist() for w in model.weights]]

steps = []
note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
print("result:", json.dumps([train("whole") == train("runs", Die(), note), len(steps)]))
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.tensorflow
def test_killed_worker(tmp_path: Path) -> None:
    status, output = launch(tmp_path, CLUSTER, "--max-restarts", "1")
    assert status == 0, output
    assert (tmp_path / "died").exists()
    for worker in range(2):
        assert f"[worker {worker}] result: [true, 3]" in output


@pytest.mark.slow
def test_killed_process() -> None:
    assert soak(["--kills", "1"]) == 0
