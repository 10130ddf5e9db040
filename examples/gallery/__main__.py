"""Run the scripts of the gallery, and write the page.

    python examples/gallery              # all
    python examples/gallery rates zigzag # these; of the others the page keeps what was measured

`_gallery.py` says what a script is.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BLOCK = re.compile(r"^ *# page: begin\n(.*?)^ *# page: end$", re.MULTILINE | re.DOTALL)

HEAD = """# The gallery

What X. Wang's lecture "Optimization for Training Deep Models" (2015) says, tried out. Each section
is one script of `examples/gallery`, which makes the picture and fails where the claim does not
hold. `make gallery` writes the page anew; the numbers in the tables are of the run that wrote it,
by {software}, on {cores} CPU cores.
"""


class Script(NamedTuple):
    """A script of the gallery, as its source tells."""

    path: Path
    number: int
    title: str
    claim: str
    seen: str
    excerpt: str

    def section(self, measured: str) -> str:
        """Return this part of the page."""
        name = self.path.stem
        parts = [
            f"## {self.number}. {self.title}",
            f"**The lecture:** {self.claim}",
            f"![{self.title}](gallery/{name}.png)",
            f"**What is seen:** {self.seen}",
            measured,
            f"The lines that do it, of `examples/gallery/{name}.py`:",
            f"```python\n{self.excerpt}\n```",
        ]
        return "\n\n".join(parts) + "\n"


def scripts() -> list[Script]:
    """Return all scripts by their numbers."""
    return sorted(map(read, HERE.glob("[!_]*.py")), key=lambda script: script.number)


def read(path: Path) -> Script:
    """Return what the source of a script says."""
    source = path.read_text()
    text = ast.get_docstring(ast.parse(source)) or ""
    parts = re.fullmatch(r"(\d+)\. (.+?)\.\n\nThe lecture: (.+)\n\nSeen: (.+)", text, re.DOTALL)
    blocks = [textwrap.dedent(block).strip("\n") for block in BLOCK.findall(source)]
    if not parts or not blocks:
        raise ValueError(f"{path} is not a script of the gallery: see _gallery.py.")
    number, title, claim, seen = parts.groups()
    return Script(path, int(number), title, claim, seen, "\n\n".join(blocks))


def run(script: Script, pictures: Path) -> str:
    """Run a script, which draws its picture; return its table."""
    command = [sys.executable, str(script.path), "--output", str(pictures)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    return done.stdout.strip()


def measured_before(page: Path) -> dict[str, str]:
    """Return the tables that are on a page, by the names of their scripts."""
    sections = page.read_text().split("\n## ")[1:] if page.exists() else []
    return {
        re.findall(r"\]\(gallery/(\w+)\.png\)", section)[0]: "\n".join(
            line for line in section.splitlines() if line.startswith("| ")
        )
        for section in sections
    }


def page(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Run the scripts that are named, or all, and yield the parts of the page."""
    import keras

    software = f"Keras {keras.__version__} and its {keras.backend.backend()} backend"
    yield HEAD.format(software=software, cores=os.cpu_count())
    before = measured_before(folder / "gallery.md") if names else {}
    for script in scripts():
        name, start = script.path.stem, time.perf_counter()
        known = name in before and name not in names
        yield script.section(before[name] if known else run(script, folder / "gallery"))
        seconds = time.perf_counter() - start
        print(f"{script.number:2}. {script.title}: {seconds:.0f} s", flush=True)


def main() -> int:
    """Write the page and its pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("names", nargs="*", help="scripts to run, without .py (all)")
    add("--output", type=Path, default=ROOT / "docs", help="folder (docs)")
    options = parser.parse_args()
    text = "\n".join(page(options.output, options.names))  # before the page there is replaced
    (options.output / "gallery.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
