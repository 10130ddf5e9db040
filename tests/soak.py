"""Kills a training at random moments, starts it again, and compares it with one left alone.

`python -m tests.soak --kills 30` prints a line for each case, and ends with status 1 if the last
weights, the state of the optimizer or the history differ in one bit.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVERY = (3, "epoch", 1, 16)  # by turns: after how many steps there is a checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; return the status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    moments, left, number, same = random.Random(options.seed), options.kills, 0, True
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        duration = _run(whole, 3)
        while left > 0:
            every, case = EVERY[number % len(EVERY)], Path(folder, str(number))
            kills = _run_with_kills(case, every, duration, moments, min(left, 5))
            left, number = left - kills, number + 1
            equal = _result(case) == _result(whole)
            same = same and equal
            words = "as if left alone" if equal else "DIFFERENT"
            line = f"case {number}: every={every!r}, {kills} kills: {words}"
            print(line, flush=True)
    return 0 if same else 1


def _run_with_kills(
    case: Path, every: int | str, duration: float, moments: random.Random, most: int
) -> int:
    """Train until the end; return how often the training was killed."""
    kills = 0
    while not (case / "result.json").exists():
        with contextlib.suppress(TimeoutError):
            _run(case, every, moments.uniform(0, duration / 2) if kills < most else None)
            break
        kills += 1
    return kills


def _run(case: Path, every: int | str, moment: float | None = None) -> float:
    """Train in a process; kill it at a moment of the training. Return the seconds it trained."""
    case.mkdir(exist_ok=True)
    (case / "begun").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.soak_training", str(case), json.dumps(every)]
    with (case / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[1])
        while not (case / "begun").exists() and process.poll() is None:
            time.sleep(0.01)
        start = time.monotonic()
        try:
            status = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TimeoutError from None
    if status != 0:
        raise RuntimeError(f"The training failed:\n{(case / 'log').read_text()}")
    return time.monotonic() - start


def _result(case: Path) -> str:
    return (case / "result.json").read_text()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
