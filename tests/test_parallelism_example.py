"""`examples/parallelism.py` as a person runs it, in short."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "parallelism.py"

pytestmark = [pytest.mark.tensorflow, pytest.mark.alone]


@pytest.mark.slow
def test_all_ways_take_the_same_path(tmp_path: Path) -> None:
    folders = ["--output", str(tmp_path / "run"), "--data-dir", str(tmp_path / "tfds")]
    options = ["--epochs", "1", "--width", "4", "--images", "150"]
    subprocess.run([sys.executable, SCRIPT, *folders, *options], check=True)
    with (tmp_path / "run" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors: dict[str, set[float]] = {}
    for row in rows:
        errors.setdefault(row["updates"], set()).add(round(float(row["test error"]), 3))
    assert len({row["way"] for row in rows}) == 5
    assert {*errors} == {"0", "3"}
    assert {len(seen) for seen in errors.values()} == {1}
    for name in ("updates.png", "time.png"):
        assert (tmp_path / "run" / name).stat().st_size > 10_000
