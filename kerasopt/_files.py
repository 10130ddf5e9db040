"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; then put what was written in the place of `path`.

    If the body raises, `path` stays as it was.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_writable(name: str, path: Path) -> None:
    """Raise an `OSError` that names the argument unless a file can be written at `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"`{name}` must be a file that can be written. Received: {name}={str(path)!r} ({error})"
        ) from error
