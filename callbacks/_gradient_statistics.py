"""Figures of the gradients of each layer, for the compiled step."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt.optimizers._flat import norm

# The figures by the names of the callback's argument, and what they are called in the logs.
STATISTICS = {
    "norm": "gradient_norm",
    "mean": "gradient_mean",
    "std": "gradient_std",
    "zero_fraction": "gradient_zero_fraction",
    "update_ratio": "update_ratio",
}
LOWEST, HIGHEST, PER_DECADE = -12, 4, 2  # of the histograms of log10 |g|
BINS = (HIGHEST - LOWEST) * PER_DECADE


def layers_of(model: keras.Model) -> dict[str, list[int]]:
    """Return the places of the layers' weights among all trainable ones, by layer.

    A layer is called by the path of its weights, without the model's own name.
    """
    layers: dict[str, list[int]] = {}
    for place, weight in enumerate(model.trainable_variables):
        layer = weight.path.rpartition("/")[0] or weight.path
        layers.setdefault(layer.removeprefix(f"{model.name}/"), []).append(place)
    return layers


class LayerStatistics:
    """The chosen figures of all layers, as one vector: layer by layer, histograms last."""

    def __init__(
        self, layers: dict[str, list[int]], names: Sequence[str], histograms: bool
    ) -> None:
        self._layers, self._names, self._histograms = layers, names, histograms
        self.width = len(names) + histograms * BINS
        self.needs_before = "update_ratio" in names

    def __call__(
        self, gradients: Sequence[Any], before: Sequence[Any], after: Sequence[Any]
    ) -> Any:
        """Return the vector."""
        figures = []
        for places in self._layers.values():
            g = _flat(gradients, places)
            w, new = (_flat(before, places), _flat(after, places)) if before else (g, g)
            figures += [ops.reshape(_FIGURES[name](g, w, new), (1,)) for name in self._names]
            figures += [_histogram(g)] if self._histograms else []
        return ops.concatenate(figures)


def _flat(tensors: Sequence[Any], places: list[int]) -> Any:
    parts = [ops.reshape(ops.convert_to_tensor(tensors[place]), (-1,)) for place in places]
    return ops.concatenate([ops.cast(part, "float32") for part in parts])


def _ratio(g: Any, before: Any, after: Any) -> Any:
    length, way = norm([before]), norm([after - before])
    return ops.where(length > 0, way / ops.where(length > 0, length, 1.0), 0.0)


_FIGURES = {
    "norm": lambda g, *_: norm([g]),
    "mean": lambda g, *_: ops.mean(g),
    "std": lambda g, *_: ops.std(g),
    "zero_fraction": lambda g, *_: ops.mean(ops.cast(g == 0, "float32")),
    "update_ratio": _ratio,
}


def _histogram(g: Any) -> Any:
    """Return how many elements are in each bin of log10 |g|; the outer ones have what is beyond."""
    place = (ops.log10(ops.maximum(ops.abs(g), 10.0**LOWEST)) - LOWEST) * PER_DECADE
    place = ops.clip(ops.where(ops.isfinite(place), place, BINS), 0, BINS - 1)
    return ops.segment_sum(ops.ones_like(place), ops.cast(place, "int32"), num_segments=BINS)
