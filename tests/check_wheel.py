"""Install the one wheel in a folder into a clean environment and train with it, away from here."""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

TRAIN = """
import importlib.util
import pathlib

import keras
import numpy as np

import kerasopt

assert "site-packages" in kerasopt.__file__, kerasopt.__file__
assert pathlib.Path(kerasopt.__file__).with_name("py.typed").exists()
assert importlib.util.find_spec("callbacks") is None
x, y = np.random.uniform(size=(64, 8, 8, 1)), np.arange(64) % 2
with kerasopt.strategies.DataParallel(["CPU:0"]).scope():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kerasopt.layers.RandomGaussianNoise(),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(kerasopt.optimizers.Momentum(), "mse")
curve = kerasopt.callbacks.LearningCurve("curves.png")
model.fit(x, y, validation_split=0.5, epochs=2, verbose=0, callbacks=[curve])
assert pathlib.Path("curves.png").stat().st_size > 1000
print("kerasopt", kerasopt.__version__, "is installed and trains")
"""

WORKER = """
import kerasopt

strategy = kerasopt.strategies.MultiWorker()
strategy.summary()
assert strategy.worker_values(strategy.cluster.index).tolist() == [0, 1]
"""


def main(folder: Path) -> None:
    """Check the wheel in `folder`."""
    (wheel,) = folder.resolve().glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert top == {"kerasopt", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}, top
    for package in ("callbacks", "data", "layers", "optimizers", "strategies"):
        assert f"kerasopt/{package}/__init__.py" in names, package
    with tempfile.TemporaryDirectory() as clean:
        venv.create(clean, with_pip=True)
        python = Path(clean, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
        subprocess.run([python, "-c", TRAIN], check=True, cwd=clean)
        Path(clean, "worker.py").write_text(WORKER)
        launch = [python.with_name("kerasopt"), "launch", "--workers", "2", "worker.py"]
        subprocess.run(launch, check=True, cwd=clean)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
