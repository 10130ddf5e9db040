"""The documentation: its code runs, its names exist; the site has them all and is whole."""

import ast
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import kerasopt
from tests.test_project import FRONT, PUBLIC, ROOT

GENERATED = "gallery"  # `make gallery` runs its code
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != GENERATED]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)  # other code is marked `py`
NAME = re.compile(r"`((?:kerasopt|" + "|".join(PUBLIC) + r")\.[^`]+)`")


def with_code() -> Iterator[Any]:
    """Yield the pages with code; JAX has to run the quick start alone, which alone is not slow."""
    for page in PAGES:
        marks = [] if page.stem == "index" else [pytest.mark.tensorflow, pytest.mark.slow]
        if BLOCK.search(page.read_text()):
            yield pytest.param(page, id=page.stem, marks=marks)


@pytest.mark.parametrize("page", list(with_code()))
def test_code_of_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), names)
    assert "kerasopt" in names


def find(name: str) -> Any:
    """Return what a name such as `optimizers.Adam` or `kerasopt.prepare` stands for."""
    return functools.reduce(getattr, name.removeprefix("kerasopt.").split("."), kerasopt)


@pytest.mark.tensorflow  # strategies
@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_names_of_page_exist(page: Path) -> None:
    codes = NAME.findall(page.read_text())
    nodes = [ast.parse(code, mode="eval").body for code in codes]
    for node in nodes:
        called = isinstance(node, ast.Call)
        member = find(ast.unparse(node.func if called else node))
        if called:
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(member).bind(*node.args, **keywords)
    assert nodes or page.stem == "CHANGELOG"


class Html(HTMLParser):
    """What one page of the site refers to, the places in it, its tables and its plain text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: set[str] = set()
        self.rows: list[list[int]] = []
        self.text = ""
        self._code = 0
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids.add(named.get("id") or "")
        if tag == "a":
            self.links.append(named.get("href") or "")
        elif named.get("rel") != "canonical":
            self.sources += [named[key] or "" for key in ("src", "href") if key in named]
        if tag == "table":
            self.rows.append([])
        if tag == "tr":
            self.rows[-1].append(0)
        if tag in ("td", "th"):
            self.rows[-1][-1] += 1
        self._code += tag in ("code", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._code else data


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Html]:
    """The pages of the site, built anew without a warning."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Html(path) for path in sorted(folder.rglob("*.html")) if path.stem != "404"}


@pytest.mark.tensorflow
def test_site_has_all_public_names(site: dict[Path, Html]) -> None:
    modules = [importlib.import_module(f"kerasopt.{name}") for name in PUBLIC]
    names = {f"kerasopt.{member.__name__}" for member in FRONT}
    for module in modules:
        own = {name: member for name, member in vars(module).items() if not name.startswith("_")}
        names |= {f"{module.__name__}.{n}" for n, m in own.items() if not inspect.ismodule(m)}
    pages = {path.stem: html for path, html in site.items() if "api" in path.parts}
    assert names <= {*pages}
    assert all(name in pages[name].ids for name in names)


def test_links_of_site_lead_somewhere(site: dict[Path, Html]) -> None:
    broken = []
    for path, html in site.items():
        for link in html.links + html.sources:
            url = urlsplit(link)
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            ids = site[target].ids if target in site else {url.fragment}
            if not url.scheme and not (target.exists() and {url.fragment, ""} & ids):
                broken.append((path.name, link))
    assert not broken


def test_site_needs_no_network(site: dict[Path, Html]) -> None:
    for path, html in site.items():
        assert not [source for source in html.sources if urlsplit(source).netloc], path.name


def test_markdown_of_site_is_understood(site: dict[Path, Html]) -> None:
    for path, html in site.items():
        assert not re.search(r">>>|```|:::|\]\(|<!--|\|\s*-{3}", html.text), path.name
        for rows in html.rows:
            assert len({*rows}) == 1, path.name
