"""What mkdocs does beside reading `docs/`: the API, texts of the repository, tables and links."""

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parent.parent
PROJECT = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.md",
}
SOURCE = """---
search: {{exclude: true}}
---
# {path}

~~~~{language}
{text}~~~~
"""
LINK = re.compile(r"\]\((?:\.\./)?([\w./-]+)")
TABLE = re.compile(r"<!-- table: ([\w.]+) ([\w* ]+) -->")
REFERENCE = re.compile(r"\nReference:\n((?:    .*\n?)+)")
CODE = re.compile(  # but for what is a link, or in a heading
    r"<(a|h\d)\b.*?</\1>|<code>(?P<name>[a-z][\w/]*\.[\w.]*\w)(?:\([^<]*\))?</code>", re.DOTALL
)


class Sections(griffe.Extension):
    """Gives the sections of our docstrings names that mkdocstrings knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the text of a docstring."""
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples: Example:\n")
            text = text.replace("\nCall arguments:\n", "\nOther Parameters: Call arguments:\n")
            obj.docstring.value = REFERENCE.sub(_dedented, text)


def _dedented(reference: re.Match[str]) -> str:
    return f"\n**Reference:**\n\n{textwrap.dedent(reference[1])}"


@cache
def api() -> dict[str, griffe.Object]:
    """Return the public packages, each followed by what it exports, by their names."""
    top = griffe.load("kerasopt", search_paths=[ROOT])
    found = {}
    for package in [top, *(top[name] for name in sorted(top.modules))]:
        if package.is_init_module and not package.name.startswith("_"):
            found[package.path] = package
            found |= {f"{package.path}.{each.name}": each for each in exports(package)}
    return found


def exports(package: griffe.Object) -> list[griffe.Object]:
    """Return the public classes and functions of a package."""
    kinds = griffe.Kind.CLASS, griffe.Kind.FUNCTION
    own = [each for each in package.members.values() if each.kind in kinds]
    shown = [each for each in own if not each.name.startswith("_")]
    return sorted(shown, key=lambda each: each.name.lower())


def public(code: str) -> str | None:
    """Return the public name that code such as `optimizers.Adam` is, or is a member of."""
    name = code if code.startswith("kerasopt.") else f"kerasopt.{code}"
    owner = name.rpartition(".")[0]
    is_member = owner in api() and api()[owner].kind is griffe.Kind.CLASS
    return name if name in api() else owner if is_member else None


def place(name: str) -> str:
    """Return the file of the page of a public name; some names differ in capitals alone."""
    kind = api()[name].kind
    return f"api/{name}/index.md" if kind is griffe.Kind.MODULE else f"api/{kind.value}/{name}.md"


def api_page(name: str) -> str:
    """Return the page of a public name."""
    each = api()[name]
    if each.kind is not griffe.Kind.MODULE:
        return f"::: {name}\n"
    return f"# {name}\n\n{each.docstring.value}\n\n<!-- table: {name} * -->\n"


def files_shown() -> dict[str, str]:
    """Return the files of the repository that have a page, and the files of the pages."""
    examples = [
        path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("[a-z]*.py")
    ]
    return PROJECT | {path: f"{path}.md" for path in sorted(examples)}


def file_page(path: str) -> str:
    """Return the page of a file of the repository."""
    text, language = (ROOT / path).read_text(), "python" if path.endswith(".py") else "text"
    return text if path.endswith(".md") else SOURCE.format(path=path, language=language, text=text)


def table(names: list[str]) -> str:
    """Return a table of public names, with the first sentences of their docstrings."""
    sentences = [api()[name].docstring.value.split("\n\n")[0].replace("\n", " ") for name in names]
    rows = [f"| `{name}` | {text} |" for name, text in zip(names, sentences, strict=True)]
    return "\n".join(["| name | what it does |", "|---|---|", *rows])


def fill_tables(markdown: str) -> str:
    """Put tables in the place of `<!-- table: package Name -->`; `*` is what no table names."""
    tables = TABLE.findall(markdown)
    named = {f"{package}.{name}" for package, names in tables for name in names.split()}

    def fill(match: re.Match[str]) -> str:
        package, names = match[1], match[2].split()
        rest = [f"{package}.{each.name}" for each in exports(api()[package])]
        shown = [f"{package}.{name}" for name in names if name != "*"]
        return table([*shown, *(name for name in rest if "*" in names and name not in named)])

    return TABLE.sub(fill, markdown)


def relink(markdown: str) -> str:
    """Let links to files of the repository lead to their pages."""
    pages = files_shown()
    return LINK.sub(lambda link: f"]({pages.get(link[1], link[1].removeprefix('docs/'))}", markdown)


def on_config(config: MkDocsConfig) -> None:
    """Complete the navigation, and leave out of it what does not exist."""
    folder = Path(config.docs_dir)
    there = [item for item in config.nav if isinstance(item, dict) or (folder / item).exists()]
    examples = [{path: page} for path, page in files_shown().items() if path not in PROJECT]
    packages: dict[str, list[Any]] = {}
    for name, each in api().items():
        package = name if each.kind is griffe.Kind.MODULE else name.rpartition(".")[0]
        packages.setdefault(package, []).append({name.rpartition(".")[2]: place(name)})
    config.nav = [
        *there,
        {"Examples": examples},
        {"API": [{name: pages} for name, pages in packages.items()]},
        {"Project": [{path: page} for path, page in PROJECT.items()]},
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API and of the repository."""
    pages = {place(name): api_page(name) for name in api()}
    pages |= {page: file_page(path) for path, page in files_shown().items()}
    for uri, markdown in pages.items():
        files.append(File.generated(config, uri, content=markdown))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Complete the links and tables of a page."""
    return fill_tables(relink(markdown))


def on_page_content(html: str, page: Page, files: Files, **kwargs: Any) -> str:
    """Let public names and files that are set as code lead to their pages."""
    pages = files_shown()

    def link(match: re.Match[str]) -> str:
        name = match["name"] and public(match["name"])
        uri = place(name) if name else pages.get(match["name"])
        file = uri and files.get_file_from_path(uri)
        if not file or file is page.file:
            return match[0]
        return f'<a href="{get_relative_url(file.url, page.url)}">{match[0]}</a>'

    return CODE.sub(link, html)
