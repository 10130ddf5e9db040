"""`kerasopt.strategies.ParameterServer`, in real processes on loopback."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt._launch import free_hosts
from tests.workers import launch, wait_for, write

pytestmark = [pytest.mark.tensorflow, pytest.mark.alone]

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
LACKS = "The cluster must have one 'chief', the coordinator, .* by `kerasopt launch --parameter"


def without(kind: str) -> dict:
    return {name: addresses for name, addresses in CLUSTER.items() if name != kind}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, LACKS),
        ({"cluster": without("chief"), "task": {"type": "worker", "index": 0}}, LACKS),
        ({"cluster": without("ps"), "task": {"type": "chief", "index": 0}}, LACKS),
        ({"cluster": without("worker"), "task": {"type": "chief", "index": 0}}, LACKS),
        (
            {"cluster": {**CLUSTER, "chief": ["a:1", "e:1"]}, "task": {"type": "ps", "index": 0}},
            LACKS,
        ),
        (
            {"cluster": {**CLUSTER, "evaluator": ["e:1"]}, "task": {"type": "ps", "index": 0}},
            r"with 'chief' and 'worker' and 'ps' only. It fails by .* the kind \['evaluator'\]",
        ),
        ({"cluster": CLUSTER, "task": {"type": "ps", "index": 1}}, "It fails by IndexError"),
    ],
)
def test_malformed_cluster(config: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match=message):
        kerasopt.strategies.ParameterServer()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "slurm"}, "`cluster` must be None, to read TF_CONFIG, .* cluster='slurm'"),
        ({"fetch_every": 0}, "`fetch_every` must be an integer ≥ 1. Received: fetch_every=0"),
        ({"push_every": 1.5}, "`push_every` must be an integer ≥ 1. Received: push_every=1.5"),
        ({"timeout": 0}, r"`timeout` must be a number in \(0, inf\)"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.ParameterServer(**arguments)


def cluster_of(hosts: list[str], kind: str) -> dict:
    cluster = {"chief": hosts[:1], "worker": hosts[1:2], "ps": hosts[2:]}
    return {"cluster": cluster, "task": {"type": kind, "index": 0}}


def test_process_that_never_appears_is_named() -> None:
    hosts = free_hosts(3)
    there = socket.create_server(("127.0.0.1", int(hosts[1].split(":")[1])))
    with (
        there,
        pytest.raises(TimeoutError, match=f"Chief has waited in vain for: ps 0 at {hosts[2]}"),
    ):
        kerasopt.strategies.ParameterServer(cluster_of(hosts, "chief"), timeout=0.5)


def test_port_in_use() -> None:
    hosts = free_hosts(3)
    there = socket.create_server(("127.0.0.1", int(hosts[1].split(":")[1])))
    with there, pytest.raises(OSError, match=f"must be free. Received: {hosts[1]} for worker 0: "):
        kerasopt.strategies.ParameterServer(cluster_of(hosts, "worker"))


ENDLESS = """
strategy = kerasopt.strategies.ParameterServer()
with strategy.scope():
    model = build()
touch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: (here / "epoch").touch())
data = lambda: tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
strategy.fit(model, data, 100000, callbacks=[touch], verbose=0)
"""


@pytest.mark.slow
def test_lost_server_ends_all(tmp_path: Path) -> None:
    path, hosts, processes = write(tmp_path, ENDLESS), free_hosts(3), {}
    for kind in ("chief", "worker", "ps"):
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster_of(hosts, kind))}
        with (tmp_path / f"{kind}.log").open("w") as log:
            command = [sys.executable, path]
            processes[kind] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for((tmp_path / "epoch").exists, 120)
        processes["ps"].kill()
        assert processes["chief"].wait(60) == 1
        assert processes["worker"].wait(60) == 0  # by itself
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    message = "WorkerLostError: The coordinator has lost a parameter server, and its weights."
    assert message in (tmp_path / "chief.log").read_text()


PATHS = [(1, 1, 1), (2, 4, 4), (4, 2, 4), (2, 3, 5)]  # fetch_every, push_every, steps of a call

# Here a network of one weight, which is w, has the loss w, or (w - 1)² / 2.
SCRIPT = """
if "worker" in os.environ["TF_CONFIG"].rpartition("task")[2]:
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    (here / f"worker{index}").write_text(str(os.getpid()))
strategy = kerasopt.strategies.ParameterServer()
strategy.summary(lambda line: print("summary:", line))

def one_weight(optimizer, loss, **kwargs):
    with strategy.scope():
        weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), weight])
        model.compile(optimizer(), loss, **kwargs)
    return model

def linear(y, p):
    return p

def quadratic(y, p):
    return (p - 1) ** 2 / 2

def worker(y, p):
    return y

def of_worker(context):
    rows = tf.ones((4, 1)), tf.fill((4, 1), tf.cast(context.input_pipeline_id, "float32"))
    return tf.data.Dataset.from_tensors(rows)

def fit(model, fetch_every, push_every, *args, **kwargs):
    strategy.fetch_every, strategy.push_every = fetch_every, push_every
    return strategy.fit(model, of_worker, *args, verbose=0, **kwargs).history

# What two workers push is applied one at a time: the state is that of as many steps of one.
makers = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 40)),
    "Momentum": lambda: kerasopt.optimizers.Momentum(0.1),
    "AdaBelief": lambda: kerasopt.optimizers.AdaBelief(0.1),
}
for name, optimizer in makers.items():
    model = one_weight(optimizer, linear)
    fit(model, 1, 1, steps_per_epoch=40)
    figures = [float(model.weights[0].numpy()[0, 0]), int(model.optimizer.iterations.numpy())]
    print(f"{name}:", json.dumps(figures))

# One call in an epoch: the workers take turns, and the path is known.
for fetch_every, push_every, steps in PATHS:
    model = one_weight(lambda: keras.optimizers.SGD(0.1), quadratic)
    history = fit(model, fetch_every, push_every, 3, steps)
    figures = [float(model.weights[0].numpy()[0, 0]), history["max_staleness"]]
    print(f"path {fetch_every} {push_every}:", json.dumps(figures))

# A worker is killed in the second epoch and starts again.
model = one_weight(lambda: keras.optimizers.SGD(1.0), linear, metrics=[worker])
class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 10):
            os.kill(int((here / "worker1").read_text()), 9)
            (here / "worker1").unlink()
shares, rows, late, steps, deadline = [], [], [], 0, time.monotonic() + 200
while len(shares) < 3 or not shares[-1]:
    assert time.monotonic() < deadline
    kwargs = {"initial_epoch": len(shares), "callbacks": [Kill()]}
    history = fit(model, 1, 1, len(shares) + 1, 60, **kwargs)
    steps += 60
    shares += history["worker"]
    late += [*zip(history["staleness"], history["max_staleness"])]
    rows.append(float(model.metrics[0].count.numpy()))
    time.sleep(0.5)
figures = [steps, -float(model.weights[0].numpy()[0, 0]), int(model.optimizer.iterations.numpy())]
print("killed:", json.dumps([shares, rows, late, figures]))

# As with `model.fit`: callbacks, validation, checkpoints, dropout, batch normalisation.
with strategy.scope():
    model = build()
    model.add(keras.layers.BatchNormalization())
    model.compile(kerasopt.optimizers.AdamW(0.02), model.loss, metrics=["accuracy"])
seen = []
callbacks = [
    keras.callbacks.CSVLogger(here / "log.csv"),
    keras.callbacks.ModelCheckpoint(here / "model.keras"),
    keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=10.0),
    kerasopt.callbacks.LearningCurve(here / "curve.png"),
    kerasopt.callbacks.ThroughputMonitor(),
    keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
]
def digits():
    return tf.data.Dataset.from_tensor_slices((x[:96], y[:96])).shuffle(96).batch(8)
history = strategy.fit(
    model, digits, 9, validation_data=(x[96:], y[96:]), callbacks=callbacks, verbose=2
)
assert seen == 2 * [*range(12)], seen
moving = model.layers[-1].moving_variance.numpy()
np.savez(here / "outputs.npz", outputs=model.predict(x[96:], verbose=0), moving=moving)
print("history:", json.dumps(history.history))
print("evaluated:", json.dumps(model.evaluate(x[96:], y[96:], verbose=0)))

def refused(label, function):
    try:
        function()
    except Exception as error:
        print(f"{label}: {type(error).__name__}: {error}")
def compiled(optimizer="sgd", **kwargs):
    with strategy.scope():
        model = build()
        model.compile(optimizer, model.loss, **kwargs)
    return model
def inside():
    with strategy.scope():
        strategy.fit(model, digits)
class Own(keras.Sequential):
    def train_step(self, data):
        return {}
own, outside = Own(), build()
plain = compiled()
with strategy.scope():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
trains = lambda *args, **kwargs: lambda: strategy.fit(*args, **kwargs)
refused("model.fit", lambda: plain.fit(x, y, verbose=0))
refused("inside", inside)
refused("model", trains(3, digits))
refused("outside", trains(outside, digits))
refused("own", trains(own, digits))
refused("optimizer outside", trains(compiled(keras.optimizers.Adam()), digits))
refused("jit", trains(compiled(jit_compile=True), digits))
refused("eager", trains(compiled(run_eagerly=True), digits))
refused("execution", trains(compiled(steps_per_execution=2), digits))
refused("scaled", trains(compiled(scaled), digits))
refused("loss", trains(compiled(kerasopt.optimizers.SAM("sgd")), digits))
refused("clipping", trains(compiled(kerasopt.optimizers.GradientClipping("sgd")), digits))
refused("data", trains(plain, digits()))
refused("returned", trains(plain, lambda: x))
refused("rows", trains(plain, lambda: tf.data.Dataset.range(3)))
refused("endless", trains(plain, lambda: digits().repeat()))
refused("steps", trains(plain, digits, steps_per_epoch=0))
refused("epochs", trains(plain, digits, epochs=0))
"""


RESUMED = """
first = not (here / "backup").exists()
if '"ps"' in os.environ["TF_CONFIG"].rpartition("task")[2]:
    (here / "ps").write_text(str(os.getpid()))
strategy = kerasopt.strategies.ParameterServer()
with strategy.scope():
    model = build()
def end(epoch, logs):
    if first and epoch == 2:
        os.kill(int((here / "ps").read_text()), 9)
epochs = []
callbacks = [
    kerasopt.callbacks.BackupAndRestore(here / "backup"),
    keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch)),
    keras.callbacks.LambdaCallback(on_epoch_begin=end),
]
data = lambda: tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
strategy.fit(model, data, 4, callbacks=callbacks, verbose=0)
print("epochs:", epochs, int(model.optimizer.iterations.numpy()))
"""


@pytest.mark.slow
def test_lost_server_and_resumed_training(tmp_path: Path) -> None:
    options = ["--parameter-servers", "1", "--max-restarts", "1"]
    status, text = launch(tmp_path, RESUMED, *options)
    assert status == 0, text
    assert "; all start again (1 of 1)" in text
    assert printed(text, "epochs") == ["[2, 3] 32"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the script above in a coordinator, two workers and two servers."""
    folder = tmp_path_factory.mktemp("cluster")
    options = ["--workers", "2", "--parameter-servers", "2", "--max-restarts", "1"]
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        options.append("--pin")  # workers of one core, where messages could be waited for in vain
    status, text = launch(folder, f"PATHS = {PATHS}\n{SCRIPT}", *options)
    assert status == 0, text
    return text, folder


def printed(text: str, label: str) -> list[str]:
    return re.findall(rf"^\[chief 0\] {re.escape(label)}: (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("SGD", lambda: keras.optimizers.SGD(0.1, momentum=0.9)),
        ("Adam", lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 40))),
        ("Momentum", lambda: kerasopt.optimizers.Momentum(0.1)),
        ("AdaBelief", lambda: kerasopt.optimizers.AdaBelief(0.1)),
    ],
)
def test_no_update_is_lost(output: tuple[str, Path], name: str, optimizer: Any) -> None:
    weight, alone = keras.Variable(np.zeros((1, 1))), optimizer()
    for _ in range(40):
        alone.apply([keras.ops.ones((1, 1))], [weight])
    value, iterations = json.loads(printed(output[0], name)[0])
    assert iterations == 40
    np.testing.assert_allclose(value, float(weight.numpy()[0, 0]), rtol=1e-6)


@pytest.mark.parametrize(("fetch_every", "push_every", "steps"), PATHS)
def test_fetching_and_pushing(
    output: tuple[str, Path], fetch_every: int, push_every: int, steps: int
) -> None:
    w = v = accrued = 0.0
    for step in [*range(steps)] * 3:
        v = w if step % fetch_every == 0 else v
        g = v - 1
        accrued, v = accrued + g, v - 0.1 * g
        if (step + 1) % push_every == 0 or step + 1 == steps:
            w, accrued = w - 0.1 * accrued, 0.0
    found, staleness = json.loads(printed(output[0], f"path {fetch_every} {push_every}")[0])
    assert found == pytest.approx(w, rel=1e-5)
    assert staleness == [0.0] * 3  # there were no other pushes


def test_killed_worker(output: tuple[str, Path]) -> None:
    assert "worker 1 ended with status 137; it starts again (1 of 1)" in output[0]
    shares, rows, late, figures = json.loads(printed(output[0], "killed")[0])
    steps, applied, iterations = figures
    assert 0 < shares[0] < 1  # both worked, then hardly worker 1, then both again
    assert shares[1] < 0.5
    assert shares[-1] > 0
    # It may have died in the middle of a push, which is then half or wholly made twice.
    assert {applied - steps, iterations - steps} <= {0, 1}
    assert all(mean <= largest for mean, largest in late)
    assert max(largest for _, largest in late) >= 1
    assert set(rows) == {4 * 60}  # of these the metrics are, in each epoch


def test_habits_of_fit(output: tuple[str, Path]) -> None:
    text, folder = output
    history = json.loads(printed(text, "history")[0])
    names = {"accuracy", "loss", "val_accuracy", "val_loss", "staleness", "max_staleness"}
    assert names < set(history)
    assert len(history["loss"]) == 2  # `EarlyStopping` has ended it
    assert history["loss"][1] < history["loss"][0]
    assert (folder / "log.csv").read_text().count("\n") == 3
    assert (folder / "curve.png").exists()
    assert "12/12" in text
    evaluated = json.loads(printed(text, "evaluated")[0])
    assert evaluated == [history["val_loss"][-1], history["val_accuracy"][-1]]


def test_checkpoint_is_loaded_without_the_strategy(
    output: tuple[str, Path], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    model = keras.saving.load_model(output[1] / "model.keras")
    saved = np.load(output[1] / "outputs.npz")
    outputs = model.predict(digits[0][96:], verbose=0)
    np.testing.assert_allclose(outputs, saved["outputs"], atol=1e-5)
    assert np.all(saved["moving"] != 1)


def test_summary(output: tuple[str, Path]) -> None:
    lines = printed(output[0], "summary")
    assert [line.split(" at ")[0] for line in lines[:3]] == ["chief", "worker 0", "worker 1"]
    assert lines[-1] == "gradients: pushed every 1 steps, applied one at a time"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("model.fit", "RuntimeError: `fit` of the strategy must be called in place of that of the"),
        ("inside", "RuntimeError: `fit` must be called outside of `with strategy.scope():`"),
        ("model", "TypeError: `model` must be a Keras model. Received: model=3"),
        ("outside", "ValueError: `model` must be built and compiled within `with strategy.scope"),
        ("own", "TypeError: `model` must keep Keras' `train_step`"),
        ("optimizer outside", "ValueError: `optimizer` must be made within `with strategy.scope()"),
        ("jit", "ValueError: `jit_compile` must be False or 'auto': the weights are in other"),
        ("eager", "ValueError: `run_eagerly` must be False: workers run graphs. Received: Seq"),
        ("execution", "ValueError: `steps_per_execution` must be 1: use `fetch_every` and `push_"),
        ("scaled", "ValueError: `optimizer` must not scale the loss: train in 'mixed_bfloat16'"),
        ("loss", "ValueError: `optimizer` must act on the gradient alone, without a part in"),
        ("clipping", "ValueError: `optimizer` must act on the gradient alone, without a part in"),
        ("data", "TypeError: `dataset_fn` must be a function that returns a `tf.data.Dataset`: ev"),
        ("returned", "TypeError: `dataset_fn` must be a function that returns a `tf.data.Dataset`"),
        ("rows", "ValueError: The dataset must give batches"),
        ("endless", "ValueError: `steps_per_epoch` must be given where the number of batches is"),
        ("steps", "ValueError: `steps_per_epoch` must be an integer ≥ 1. Received: steps_per_epo"),
        ("epochs", "ValueError: `epochs` must be an integer ≥ 1. Received: epochs=0"),
    ],
)
def test_refusals(output: tuple[str, Path], label: str, message: str) -> None:
    assert printed(output[0], label)[0].startswith(message)
