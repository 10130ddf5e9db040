"""Whether the weights follow a steady direction or oscillate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops


def cosines(update: Sequence[Any], last: Sequence[Any], layers: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between two updates of the weights, for each layer.

    The sums are taken on the device. Not-a-number stands for a layer that did not move.
    """
    pairs = zip(update, last, strict=True)
    sums = [ops.stack([_dot(a, b), _dot(a, a), _dot(b, b)]) for a, b in pairs]
    of_weights = ops.convert_to_numpy(ops.stack(sums)).astype("float64")
    of_layers = np.zeros((max(layers) + 1, 3))
    np.add.at(of_layers, layers, of_weights)
    dots, squares, before = of_layers.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return dots / np.sqrt(squares * before)


def all_finite(values: Sequence[Any]) -> bool:
    """Return whether no value is infinite or not-a-number."""
    return bool(ops.all(ops.stack([ops.all(ops.isfinite(value)) for value in values])))


def _dot(a: Any, b: Any) -> Any:
    return ops.sum(ops.cast(a, "float32") * ops.cast(b, "float32"))
