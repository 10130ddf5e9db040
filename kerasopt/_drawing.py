"""Which layers draw random numbers."""

import keras

RATES = ("rate", "dropout", "recurrent_dropout")


def generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """Return the random generators that a layer holds itself."""
    return [each for each in vars(layer).values() if isinstance(each, keras.random.SeedGenerator)]


def draws(layer: keras.Layer) -> bool:
    """Return whether a layer, or the cell of a recurrent one, is random while training."""
    if isinstance(layer, keras.layers.RNN):
        return any(draws(cell) for cell in layer._flatten_layers(include_self=False))
    rates = [getattr(layer, name) for name in RATES if hasattr(layer, name)]
    return bool(generators(layer)) and (any(rates) or not rates)
