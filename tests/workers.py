"""Runs scripts as the workers of a cluster on this machine."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kerasopt._launch import config, free_hosts, main

PREAMBLE = """
import json, os, sys, time
from pathlib import Path
here = Path({here!r})
import keras, numpy as np, tensorflow as tf
import kerasopt
from sklearn.datasets import load_digits

bunch = load_digits()
x, y = (bunch.images[:128, ..., None] / 16).astype("float32"), bunch.target[:128]

def build():
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.3)]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kerasopt.optimizers.Momentum(0.1), loss, metrics=["accuracy"])
    return model
"""


def write(folder: Path, text: str) -> str:
    """Write a script that has the usual imports, the digits `x` and `y`, and the folder `here`."""
    path = folder / "script.py"
    path.write_text(PREAMBLE.format(here=str(folder)) + text)
    return str(path)


def launch(folder: Path, text: str, *options: str) -> tuple[int, str]:
    """Run a script in two workers under the launcher; return status and all that they print."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(["launch", *options, write(folder, text)])
    return status, out.getvalue()


@contextlib.contextmanager
def started(folder: Path, text: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start two workers without a launcher; give them to the body, and end what is left."""
    path, hosts, workers = write(folder, text), free_hosts(2), []
    for index in range(2):
        with (folder / f"{index}.log").open("w") as log:
            workers.append(
                subprocess.Popen(
                    [sys.executable, path],
                    env={**os.environ, "TF_CONFIG": config(hosts, index)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
