"""`kerasopt.strategies.MultiWorker`, in real processes on loopback."""

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt._launch import free_hosts
from tests.contract.cases import dense_model
from tests.workers import launch, started, wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.alone]

WORKERS = {"worker": ["a:1", "b:1"]}
FORM = r"must have the form \{\"cluster\": .* fails by "


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"TF_CONFIG must be JSON such as .*Received: TF_CONFIG=\{"),
        ("[]", FORM),
        ({"cluster": WORKERS}, FORM + r"KeyError\('task'\)"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}, FORM + "IndexError"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": "0"}}, "`index` must be an int"),
        ({"cluster": WORKERS, "task": {"type": "chief", "index": 0}}, FORM + r"KeyError\('chief'"),
        (
            {"cluster": {**WORKERS, "ps": ["c:1"]}, "task": {"type": "worker", "index": 0}},
            r"of the kind \['ps'\]",
        ),
        (
            {"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}},
            "an address is there twice",
        ),
        (
            {"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}},
            "'b' is not host:port",
        ),
    ],
)
def test_malformed_cluster(config: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        kerasopt.strategies.MultiWorker()
    if isinstance(config, dict):
        with pytest.raises(ValueError, match=message):
            kerasopt.strategies.MultiWorker(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "slurm"}, "`cluster` must be None, to read TF_CONFIG, .* cluster='slurm'"),
        ({"timeout": 0}, r"`timeout` must be a number in \(0, inf\)"),
        ({"communication": "mpi"}, r"`communication` must be one of \['auto', 'ring', 'nccl'\]"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.MultiWorker(**arguments)


def cluster_of(hosts: list[str]) -> dict:
    return {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 0}}


def test_worker_that_never_appears_is_named() -> None:
    hosts = free_hosts(3)
    there = socket.create_server(("127.0.0.1", int(hosts[1].split(":")[1])))
    with there, pytest.raises(TimeoutError, match=f"vain for: worker 2 at {hosts[2]}. Start them"):
        kerasopt.strategies.MultiWorker(cluster_of(hosts), timeout=0.5)


def test_port_in_use() -> None:
    hosts = free_hosts(2)
    with (
        socket.create_server(("127.0.0.1", int(hosts[0].split(":")[1]))),
        pytest.raises(OSError, match=f"must be free. Received: {hosts[0]} for worker 0: "),
    ):
        kerasopt.strategies.MultiWorker(cluster_of(hosts))


def test_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from kerasopt.strategies._cluster import read_cluster

    variables = {"PROCID": "1", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "n[7-8]"}
    variables |= {"STEP_TASKS_PER_NODE": "1(x2)", "NTASKS": "2", "NODEID": "1", "LOCALID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(gpus_per_node=1, gpus_per_task=1)
    cluster = read_cluster(slurm)
    assert (cluster.addresses, cluster.index) == (["n7:8888", "n8:8888"], 1)

    simple = tf.distribute.cluster_resolver.SimpleClusterResolver
    spec = tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})
    cluster = read_cluster(simple(spec, task_type="worker", task_id=1))
    assert (cluster.addresses, cluster.index) == (["a:1", "b:1", "c:1"], 2)
    assert read_cluster(simple(spec, task_type="chief", task_id=0)).index == 0
    with pytest.raises(ValueError, match="must say which worker this process is: set `task_type`"):
        read_cluster(simple(spec))  # as KubernetesClusterResolver, which does not know


def test_one_worker_without_a_cluster(digits: tuple, tmp_path: Path) -> None:
    import contextlib

    strategy = kerasopt.strategies.MultiWorker()
    weights = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            model = dense_model(keras.optimizers.SGD(0.1), steps_per_execution=2)
        model.fit(*digits, epochs=2, verbose=0)
        weights.append(np.concatenate([w.numpy().ravel() for w in model.weights]))
    np.testing.assert_allclose(*weights, atol=1e-6)
    lines: list[str] = []
    strategy.summary(lines.append)
    assert lines[:2] == [
        "worker 0 at this process (chief) (this one)",
        "replicas: 1, 1 in each worker",
    ]
    assert strategy.path(tmp_path) == tmp_path


def test_policy_that_shards_files(digits: tuple) -> None:
    import tensorflow as tf

    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.FILE
    options.experimental_distribute.auto_shard_policy = policy
    data = tf.data.Dataset.from_tensor_slices(digits).batch(16).with_options(options)
    with kerasopt.strategies.MultiWorker().scope():
        model = dense_model(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"must be DATA or AUTO: .* Received: FILE"):
        model.fit(data, shuffle=False, verbose=0)


FILES = """
strategy = kerasopt.strategies.MultiWorker()
strategy.summary(lambda line: print("summary:", line))
with strategy.scope():
    model = build()
callbacks = [
    kerasopt.callbacks.BackupAndRestore(here / "backup", delete_checkpoint=False),
    keras.callbacks.CSVLogger(strategy.path(here / "log.csv")),
    keras.callbacks.ModelCheckpoint(strategy.path(here / "model.keras")),
    kerasopt.callbacks.LearningCurve(strategy.path(here / "curve.png")),
    kerasopt.callbacks.ThroughputMonitor(),
]
class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05 * strategy.cluster.index)
callbacks.insert(0, Slow())
history = model.fit(
    x, y, batch_size=8, validation_split=0.25, epochs=3, verbose=0, callbacks=callbacks
)
print("scratch:", strategy.path(here / "scratch.txt"))
strategy.path(here / "scratch.txt").touch()
total = sum(float(np.abs(w.numpy()).sum()) for w in model.weights)
print("result:", json.dumps([total, history.history]))
"""


def printed(output: str, worker: int, label: str) -> list[str]:
    """Return what a worker has printed after a label."""
    start = f"[worker {worker}] {label}: "
    return [line.removeprefix(start) for line in output.splitlines() if line.startswith(start)]


def test_only_the_chief_writes_and_all_agree(tmp_path: Path) -> None:
    status, output = launch(tmp_path, FILES)
    assert status == 0, output
    names = {"backup", "curve.png", "log.csv", "model.keras", "scratch.txt", "script.py"}
    assert {path.name for path in tmp_path.iterdir()} == names
    scratch = [Path(printed(output, i, "scratch")[0]) for i in range(2)]
    assert scratch[0] == tmp_path / "scratch.txt"
    assert not scratch[1].parent.exists()
    # No seed was set: the workers agree on one, on the order of the data and on dropout.
    results = [json.loads(printed(output, i, "result")[0]) for i in range(2)]
    assert results[0][0] == results[1][0]
    figures, other = results[0][1], results[1][1]
    assert figures["val_loss"] == other["val_loss"]
    assert figures["val_loss"][-1] < figures["val_loss"][0]
    assert figures["straggler_ratio"] == other["straggler_ratio"]
    assert 1.5 < max(figures["straggler_ratio"]) < 2  # worker 1 sleeps, and worker 0 waits for it
    shares = [np.median(each["communication_share"]) for each in (figures, other)]
    assert shares[0] > 2 * shares[1]
    summary = printed(output, 1, "summary")
    assert summary[1].endswith("(this one)")
    assert summary[2] == "replicas: 2, 1 in each worker"


REFUSALS = """
strategy = kerasopt.strategies.MultiWorker()

def refused(label, function):
    try:
        function()
    except Exception as error:
        print(f"{label}: {type(error).__name__}: {error}")

def inside():
    with strategy.scope():
        build().fit(x, y, verbose=0)
refused("inside", inside)
outside = keras.layers.Dense(10)
outside.build((None, 64))
with strategy.scope():
    mixed = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), outside])
    mixed.compile("sgd", "sparse_categorical_crossentropy")
    compiled = build()
    compiled.compile("sgd", compiled.loss, jit_compile=True)
    model = build()
refused("outside", lambda: mixed.fit(x, y, verbose=0))
refused("compiled", lambda: compiled.fit(x, y, verbose=0))
order = np.random.default_rng(strategy.cluster.index).permutation(len(x))
refused("other", lambda: model.fit(x[order], y[order], verbose=0, shuffle=False))
"""


@pytest.mark.slow
def test_refusals(tmp_path: Path) -> None:
    _, output = launch(tmp_path, REFUSALS)
    texts = {
        "inside": "RuntimeError: `fit` and `evaluate` must be called outside of `with strategy",
        "outside": "ValueError: All weights must be built within `with strategy.scope():`",
        "compiled": "ValueError: `jit_compile` must be False or 'auto' with several replicas",
        "other": "ValueError: All workers must read the same batches",
    }
    for worker in range(2):
        for label, text in texts.items():
            assert printed(output, worker, label)[0].startswith(text), output


RESUMED = """
keras.utils.set_random_seed(0)
first = not (here / "backup").exists()
strategy = kerasopt.strategies.MultiWorker()
with strategy.scope():
    model = build()
class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        if VICTIM == strategy.cluster.index and first and step == 14:
            os.kill(os.getpid(), 9)
epochs = []
note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
backup = kerasopt.callbacks.BackupAndRestore(here / "backup")
model.fit(x, y, epochs=6, verbose=0, callbacks=[backup, note, Die()])
print("epochs:", epochs)
np.savez(here / f"{VICTIM}-{strategy.cluster.index}.npz", *[w.numpy() for w in model.weights])
"""


def test_killed_worker_and_resumed_training(tmp_path: Path) -> None:
    for victim, first in ((None, 0), (1, 3)):
        text = f"VICTIM = {victim}\n" + RESUMED
        status, output = launch(tmp_path, text, "--max-restarts", "1")
        assert status == 0, output
        assert [printed(output, i, "epochs") for i in range(2)] == [[str([*range(first, 6)])]] * 2
        assert ("all start again (1 of 1)" in output) == (victim is not None)
        assert not (tmp_path / "backup").exists()
    whole = np.load(tmp_path / "None-0.npz")
    for worker in range(2):
        resumed = np.load(tmp_path / f"1-{worker}.npz")
        for name in whole.files:
            np.testing.assert_array_equal(resumed[name], whole[name])


ENDLESS = """
strategy = kerasopt.strategies.MultiWorker(timeout=TIMEOUT)
with strategy.scope():
    model = build()
touch = lambda epoch, logs: (here / f"{strategy.cluster.index}.epoch").write_text(str(epoch))
model.fit(x, y, epochs=100000, verbose=0,
          callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=touch)])
"""


@pytest.mark.parametrize(
    ("victim", "number", "timeout", "limit"),
    [
        pytest.param(1, signal.SIGKILL, 60, 20, id="worker killed", marks=pytest.mark.slow),
        pytest.param(0, signal.SIGKILL, 60, 20, id="chief killed"),
        pytest.param(1, signal.SIGSTOP, 4, 15, id="worker hangs"),
    ],
)
def test_survivor_ends_in_time(
    tmp_path: Path, victim: int, number: int, timeout: int, limit: float
) -> None:
    with started(tmp_path, f"TIMEOUT = {timeout}\n" + ENDLESS) as workers:
        wait_for(lambda: (tmp_path / "0.epoch").exists() and (tmp_path / "1.epoch").exists())
        workers[victim].send_signal(number)
        start = time.monotonic()
        assert workers[1 - victim].wait(60) != 0
        assert time.monotonic() - start < limit
        message = (tmp_path / f"{1 - victim}.log").read_text()
    assert (
        f"WorkerLostError: Worker {1 - victim} has lost another worker, which ended or" in message
    )
    assert "`kerasopt launch --max-restarts`" in message
