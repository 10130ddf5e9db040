"""The weights that derivatives are taken by."""

from collections.abc import Sequence
from typing import Any

import keras


def weights_of(model: keras.Model, layer: Any) -> list[Any]:
    """Return the trainable weights of a model, or of some of its layers, in the model's order."""
    if layer is None:
        chosen = model.trainable_variables
    else:
        several = layer if isinstance(layer, Sequence) and not isinstance(layer, str) else [layer]
        found = [_find(model, each) for each in several]
        inside = {id(weight) for each in found for weight in each.trainable_variables}
        chosen = [weight for weight in model.trainable_variables if id(weight) in inside]
    if not chosen:
        raise ValueError(
            "`layer` must have trainable weights, or the model where it is None. "
            f"Received: layer={layer!r}"
        )
    return list(chosen)


def _find(model: keras.Model, layer: Any) -> keras.Layer:
    """Return a layer of a model, which may be nested."""
    every = list(model._flatten_layers())
    for each in every:
        if layer is each or layer in (each.name, each.path):
            return each
    raise ValueError(
        f"`layer` must be one of the layers {[each.name for each in every[1:]]} or a list of them. "
        f"Received: layer={layer!r}"
    )
