"""How noisy the gradient of a batch is."""

from collections.abc import Iterable
from math import inf
from typing import Any

import keras
from keras import ops, tree

from kerasopt._objective import of_batch
from kerasopt.optimizers._flat import norm


def noise_scale(model: keras.Model, batches: Iterable[Any]) -> float:
    """Estimate tr Σ / ‖∇J‖², the number of samples at which noise and gradient are equal.

        small = mean_k ‖g_k‖²,  big = ‖mean_k g_k‖²         K batches of b samples
        ‖∇J‖² ≈ (K big - small) / (K - 1),  tr Σ ≈ b K (small - big) / (K - 1)

    Both are without bias. Where noise hides the gradient, the ratio is infinite.
    """
    others = [(variable, ops.copy(variable)) for variable in model.non_trainable_variables]
    total: list[Any] = []
    small, count = 0.0, 0
    for batch in batches:
        count += 1
        data = keras.utils.unpack_x_y_sample_weight(batch)
        rows = len(tree.flatten(data)[0])
        gradient = of_batch(model, data, model.trainable_variables, others).gradient()
        small += float(norm(gradient)) ** 2
        total = [a + b for a, b in zip(total, gradient, strict=True)] if total else gradient
    small, big = small / count, (float(norm(total)) / count) ** 2
    signal, noise = count * big - small, rows * count * (small - big)
    return noise / signal if signal > 0 else inf
