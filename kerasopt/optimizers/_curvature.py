"""The second derivatives of the layers of a model, by differences of its gradient."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt.optimizers._devices import gradient_of


def layer_curvature(
    model: keras.Model, x: Any, y: Any, layers: np.ndarray, probes: int, seed: int
) -> np.ndarray:
    """Return |vᵀ H v| / n for each weight, of the layer that it is in.

    Args:
        model: A compiled model.
        x: A batch of inputs.
        y: Its targets.
        layers: The number of the layer of each trainable variable.
        probes: How many v to average over.
        seed: Seed of the random signs v.
    """
    gradient, random = gradient_of(model, x, y), np.random.default_rng(seed)
    start = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    length = 1e-3 * max(1.0, *(np.abs(w).max() for w in start))

    def product(inside: np.ndarray) -> float:
        """Return vᵀ H v / n for random signs v of the weights inside a layer."""
        signs = [inside[i] * random.choice([-1.0, 1.0], w.shape) for i, w in enumerate(start)]
        ahead, behind = (
            gradient([w + (side * v).astype(w.dtype) for w, v in zip(start, signs, strict=True)])
            for side in (length, -length)
        )
        parts = zip(signs, ahead, behind, strict=True)
        total = sum(np.sum(v * (a.astype("float64") - b)) for v, a, b in parts)
        return total / (2 * length * sum(np.count_nonzero(v) for v in signs))

    of_layer = {
        layer: abs(np.mean([product(layers == layer) for _ in range(probes)]))
        for layer in dict.fromkeys(layers.tolist())
    }
    return np.array([of_layer[layer] for layer in layers.tolist()])
