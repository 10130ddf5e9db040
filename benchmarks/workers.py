"""Two workers of one processor core each, against one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._race import Row, compare
from kerasopt._launch import main

IMAGES = 64  # a worker and step


def rows() -> Iterator[Row]:
    """Compare the time for an image; the batch is doubled with the workers."""
    script = str(Path(__file__).with_name("_worker.py"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images_per_second")

        def milliseconds_an_image(workers: int, *options: str) -> float:
            run = ["launch", "--workers", str(workers), "--pin", *options]
            main([*run, script, str(file), str(IMAGES)])
            return 1000 / float(file.read_text())

        yield compare(
            f"`MultiWorker`, an image, 2 workers on a core each, {2 * IMAGES} images a step",
            f"1 worker on one core, {IMAGES} images a step",
            lambda: milliseconds_an_image(2),
            lambda: milliseconds_an_image(1),
            rounds=3,
        )
        yield compare(
            "`ParameterServer`, an image, 2 workers on a core each, 1 server",
            "`MultiWorker`, 2 workers on a core each",
            lambda: milliseconds_an_image(2, "--parameter-servers", "1"),
            lambda: milliseconds_an_image(2),
            rounds=3,
        )
