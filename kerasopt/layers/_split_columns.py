"""One layer as several of a part of its width."""

from typing import Any

import keras

from kerasopt._validation import check_count
from kerasopt.layers._column import Column


def split_columns(layer: keras.Layer, columns: int = 2) -> list[Column]:
    """Return a layer of N filters as columns of N / `columns` each, for as many devices.

    The columns take what the layer takes; apply each to what its device is to see. Joined, their
    outputs have the shape of the layer's.

    Args:
        layer: A layer that has `filters`, such as `Conv2D`, or `units`, such as `Dense`, and no
            weights yet. Where an initializer has a seed, the i-th column adds i to it.
        columns: Number of columns, 2 or more. Defaults to 2.

    Raises:
        TypeError: `layer` has neither `filters` nor `units`; `columns` is not an integer ≥ 2.
        ValueError: The width cannot be divided by `columns`, or the layer is built.

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural
        networks, 2012, section 3.2.

    Example:
        >>> import keras, kerasopt
        >>> a, b = kerasopt.layers.split_columns(keras.layers.Conv2D(64, 3), 2)
        >>> b.column, b.layers[0].filters
        (1, 32)
    """
    check_count("columns", columns, least=2)
    config = layer.get_config() if isinstance(layer, keras.Layer) else {}
    name = next((name for name in ("filters", "units") if name in config), None)
    if name is None:
        raise TypeError(f"`layer` must have `filters` or `units`. Received: layer={layer!r}")
    widths = {key: config[key] for key in (name, "groups") if config.get(key, 1) != 1}
    if layer.built or any(width % columns for width in widths.values()):
        raise ValueError(
            "`layer` must have no weights yet, and a width that `columns` divides. Received: "
            f"columns={columns}, {widths}, built={layer.built}"
        )
    narrow = {key: width // columns for key, width in widths.items()}
    return [
        Column(
            type(layer).from_config(_seeded({**config, **narrow}, i)),
            i,
            name=f"{layer.name}_column_{i}",
        )
        for i in range(columns)
    ]


def _seeded(config: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the arguments of a layer with `index` added to the seeds of its initializers."""
    return {
        key: {**value, "config": {**value["config"], "seed": value["config"]["seed"] + index}}
        if isinstance(value, dict) and isinstance(value.get("config", {}).get("seed"), int)
        else value
        for key, value in config.items()
    }
