"""A look at the gradients within the compiled training step, for any optimizer."""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    from kerasopt.callbacks import _tensorflow_tap as _backend
else:
    from kerasopt.callbacks import _jax_tap as _backend  # type: ignore[no-redef]

Row = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Any]
Open = tuple[list[Any], Callable[[], None]]

_open: WeakKeyDictionary[keras.Model, Open] = WeakKeyDictionary()


class GradientTap:
    """Keeps figures of the gradients of every so many steps, until they are read.

    They are computed where the optimizer takes its step, of what it is given: the gradients of the
    whole batch, before the optimizer clips or accumulates them; of those that it accumulates, the
    last. Nothing comes to Python before `read`. `row(gradients, before, after)` returns a vector of
    figures; `before` and `after` are the weights around the step, `before` surely if `keeps`. Of
    `shape` vectors, the number and the length, the last are kept.
    """

    def __init__(
        self, model: keras.Model, row: Row, shape: tuple[int, int], every: int, keeps: bool
    ) -> None:
        self._model = model
        self._ring = _backend.Ring(model, row, shape, every, keeps)
        self._install(lambda rings: [*rings, self._ring])

    def close(self) -> None:
        """Let the step be as it was."""
        self._install(lambda rings: [ring for ring in rings if ring is not self._ring])

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps since the last reading, counted from 1, and their figures."""
        steps, values = self._ring.read()
        new = np.flatnonzero(steps)
        order = new[np.argsort(steps[new], kind="stable")]
        return steps[order], values[order]

    def _install(self, change: Callable[[list[Any]], list[Any]]) -> None:
        rings, undo = _open.pop(self._model, ([], lambda: None))
        undo()
        if rings := change(rings):
            _open[self._model] = rings, _backend.install(self._model, rings)


def forget(model: keras.Model) -> None:
    """Let the taps of a model forget what they have not been read of."""
    rings, _ = _open.get(model, ([], None))
    for ring in rings:
        ring.read()
