"""The race of all optimizers, in short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.tensorflow
def test_short_race_leaves_a_table_and_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "examples/race.py", "--quick", "--output", str(tmp_path)]
    subprocess.run(
        [*command, "--tasks", "quadratic", "digits"],
        cwd=ROOT,
        check=True,
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")},
    )
    table = (tmp_path / "race.md").read_text()
    for name in ("SGD", "AdamW", "Shampoo", "Sophia", "SAM(SGD)"):
        assert table.count(f"| {name} |") == 2
    assert (tmp_path / "race.png").stat().st_size > 50_000
