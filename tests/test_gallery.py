"""The gallery: the page says what the scripts do, and the scripts run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "examples" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
SCRIPTS = sorted(GALLERY.glob("[!_]*.py"))
BLOCK = re.compile(r"^ *# page: begin\n(.*?)^ *# page: end$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_has_the_script_as_it_is(script: Path) -> None:
    source, page = script.read_text(), PAGE.read_text()
    title = source.partition("\n")[0].strip('".')
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert f"](gallery/{script.stem}.png)" in section
    said = source.partition("The lecture: ")[2].partition('"""')[0].partition("\n\nSeen: ")
    assert all(" ".join(part.split()) in " ".join(section.split()) for part in said[::2])
    lines = [line.strip() for block in BLOCK.findall(source) for line in block.split("\n")]
    excerpt = section.partition("```python\n")[2].partition("```")[0].split("\n")
    assert [line for line in lines if line] == [line.strip() for line in excerpt if line]
    assert 8 <= len([line for line in lines if line]) <= 30


def test_page_has_a_section_and_a_picture_for_each_script_and_no_others() -> None:
    page, names = PAGE.read_text(), {script.stem for script in SCRIPTS}
    assert {*re.findall(r"\]\(gallery/(\w+)\.png\)", page)} == names
    assert {path.stem for path in (PAGE.parent / "gallery").iterdir()} == names
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", page, re.MULTILINE)]
    assert numbers == sorted({*numbers})
    assert len(numbers) == len(names)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_picture_is_small_and_not_empty(script: Path) -> None:
    path = PAGE.parent / "gallery" / f"{script.stem}.png"
    with Image.open(path) as picture:
        assert picture.width == 1000
        assert len(picture.convert("RGB").getcolors(10**6)) > 20
    assert path.stat().st_size < 60_000


@pytest.mark.slow
def test_script_runs_alone(tmp_path: Path) -> None:
    command = [sys.executable, GALLERY / "rates.py", "--output", tmp_path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == "| --- | ---: | ---: | ---: |"
    assert (tmp_path / "rates.png").stat().st_size > 5_000
