"""What the derivatives of the output by each depth say, in words."""

from collections.abc import Sequence
from math import inf, isfinite

import keras

VANISHED, EXPLODED = 1e-3, 1e3


def vanished(
    layers: Sequence[str], step: int, norms: Sequence[float], saturates: bool
) -> str | None:
    """Return a text if the output hardly depends on what some layer returns: on the uppermost."""
    limit = VANISHED * (min(1.0, norms[-1]) if saturates else 1.0)
    for layer, norm in zip(reversed(layers), reversed(norms), strict=True):
        if norm < limit:
            return (
                f"The Jacobian vanishes: at step {step} the output moves by at most {norm:.3g} "
                f"where what layer {layer!r} returns moves by 1, so that hardly any gradient gets "
                "there and below. Try `kerasopt.pretrain`, larger rates below by "
                "`kerasopt.optimizers.LayerwiseLearningRate`, rectifiers, normalisation or "
                "residual layers."
            )
    return None


def exploded(layers: Sequence[str], step: int, norms: Sequence[float]) -> str | None:
    """Return a text if the output depends too much on what some layer returns: on the worst."""
    sizes = [norm if isfinite(norm) else inf for norm in norms]
    if not max(sizes) > EXPLODED:
        return None
    return (
        f"The Jacobian explodes: at step {step} the output moves by up to {max(sizes):.3g} where "
        f"what layer {layers[sizes.index(max(sizes))]!r} returns moves by 1, and gradients below "
        "are as large. Try `kerasopt.optimizers.GradientClipping`, a lower learning rate, an "
        "initializer of smaller weights or normalisation layers."
    )


def saturates(model: keras.Model) -> bool:
    """Return whether the output layer flattens as it becomes sure."""
    layer = model.layers[-1]
    while isinstance(layer, keras.Model):
        layer = layer.layers[-1]
    flat = keras.activations.softmax, keras.activations.sigmoid
    return isinstance(layer, keras.layers.Softmax) or getattr(layer, "activation", None) in flat
