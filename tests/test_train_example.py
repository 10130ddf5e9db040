"""`examples/train.py` as a person runs it."""

import csv
import importlib.util
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from matplotlib.image import imread

import kerasopt  # the saved model has parts of it
from kerasopt._launch import main

SCRIPT = Path(__file__).parent.parent / "examples" / "train.py"

pytestmark = [pytest.mark.tensorflow, pytest.mark.alone]


@pytest.fixture(scope="module")
def train() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


def start(folder: Path, data_dir: str, *arguments: str) -> subprocess.Popen[str]:
    """Run the script in a process of its own."""
    command = [sys.executable, "-u", SCRIPT, "--output", folder, "--data-dir", data_dir, *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("strategy", [["--strategy", "none"], ["--devices", "2"]], ids=str)
def test_leaves_what_it_promises(tmp_path: Path, data_dir: str, strategy: list[str]) -> None:
    folder = tmp_path / "new" / "run"
    process = start(folder, data_dir, "--epochs", "3", "--seed", "1", *strategy)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.png",
        "history.csv",
        "model.keras",
        "report.md",
    ]
    assert imread(folder / "curves.png").ndim == 3
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    report = (folder / "report.md").read_text()
    accuracy = float(report.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 80
    assert f"Test accuracy {accuracy:.2f}%" in out
    for part in ("What the curves say", "Where the time went", "| seed | 1 |", "of 3 epochs"):
        assert part in report
    model = keras.saving.load_model(folder / "model.keras")
    assert isinstance(model.optimizer, kerasopt.optimizers.Momentum)
    assert model.predict(np.zeros((1, 8, 8, 1)), verbose=0).shape == (1, 10)


@pytest.mark.slow
def test_two_workers(tmp_path: Path, data_dir: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    options = ["--strategy", "multiworker", "--epochs", "2", "--data-dir", data_dir]
    assert main(["launch", str(SCRIPT), *options, "--output", str(folder)]) == 0
    out = capfd.readouterr().out
    assert "[worker 0] Test accuracy" in out
    assert "[worker 1]" not in out
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["curves.png", "history.csv", "model.keras", "report.md"]


@pytest.mark.slow
def test_same_seed_same_curves(tmp_path: Path, data_dir: str) -> None:
    processes = [
        start(tmp_path / name, data_dir, "--epochs", "2", "--strategy", "none") for name in "ab"
    ]
    for process in processes:
        assert process.wait(timeout=300) == 0, process.stderr.read()
        process.communicate()
    first, second = ((tmp_path / name / "history.csv").read_text() for name in "ab")
    assert first == second


@pytest.mark.slow
def test_interruption_keeps_the_best_so_far(tmp_path: Path, data_dir: str) -> None:
    folder = tmp_path / "run"
    with start(folder, data_dir, "--strategy", "none") as process:
        for line in process.stdout:
            if line.startswith("Epoch 4"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert f"Interrupted: the best model so far and the curves are kept in {folder}" in out
    assert zipfile.ZipFile(folder / "model.keras").testzip() is None
    assert "was interrupted after" in (folder / "report.md").read_text().replace("\n", " ")
    assert (folder / "curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "0"], "argument --devices: must be greater than 0. Received: 0"),
        (["--devices", "2", "--strategy", "none"], "argument --devices: to be chosen with --str"),
        (["--epochs", "0"], "argument --epochs: must be greater than 0"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--learning-rate", "nan"], "argument --learning-rate: must be greater than 0"),
        (["--optimizer", "magic"], "argument --optimizer: invalid choice: 'magic'"),
        (["--strategy", "none", "--dataset", "nosuch"], "--dataset nosuch: Dataset nosuch not"),
        (["--strategy", "none", "--dataset", "digits:9.9.9"], "cannot be loaded at version 9.9.9"),
        (["--strategy", "none", "--dataset", "iris"], "--dataset iris is not a dataset of images"),
        (["--strategy", "none", "--batch-size", "900"], "--batch-size 900 is too large for 1437"),
        (["--strategy", "none", "--output", "/proc/run"], "--output /proc/run cannot be written"),
        (["--strategy", "none", "--output", "full"], "--output full is not empty; name a new"),
        (["--strategy", "none", "--output", "locked"], "--output locked cannot be written: it is"),
        (["--strategy", "none", "--output", "full/file"], "--output full/file cannot be written"),
    ],
)
def test_refuses_in_one_line(
    train: ModuleType,
    data_dir: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "file").write_text("of another run")
    Path("locked").mkdir(mode=0o555)
    try:
        status = train.main(["--data-dir", data_dir, *arguments])
    except SystemExit as refused:
        status = refused.code
    assert status == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if ": error: " in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert [path.name for path in Path("full").iterdir()] == ["file"]
    assert Path("full", "file").read_text() == "of another run"
    assert not list(Path("locked").iterdir())


def test_splits_where_nothing_is_held_out(train: ModuleType) -> None:
    assert train.split({"train": 1000}, 64) == ["train[:672]", "train[672:800]", "train[800:]"]
    assert train.split({"train": 900, "validation": 99}, 50)[2] == "validation"


@pytest.mark.slow
def test_fashion_mnist_reaches_90_percent(shared_tfds: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "run", str(shared_tfds), "--dataset", "fashion_mnist")
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, err
    assert float(out.split("Test accuracy ")[1].split("%")[0]) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_digits_reach_98_percent(tmp_path: Path, data_dir: str, seed: int) -> None:
    process = start(tmp_path / "run", data_dir, "--seed", str(seed))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert float(out.split("Test accuracy ")[1].split("%")[0]) >= 98


@pytest.mark.slow
def test_under_ray() -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    script = SCRIPT.with_name("ray_train.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "replicas 2, loss 0.0" in done.stdout
