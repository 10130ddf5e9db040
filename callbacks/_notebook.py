"""Pictures in the cell of a notebook."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def notebook_view() -> Callable[["Image.Image"], None] | None:
    """Return how to show a picture in the cell that is running; outside of notebooks None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    handle = display({"text/plain": "The first epoch is running."}, raw=True, display_id=True)
    return lambda picture: handle.update(picture)
