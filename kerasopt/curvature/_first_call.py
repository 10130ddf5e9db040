"""What a model and its loss make when they are called for the first time."""

from typing import Any

import keras
from keras import tree

from kerasopt._objective import of_batch


def first_call(model: keras.Model, batch: Any, criterion: keras.Model | None = None) -> None:
    """Compute the loss of one row, so that no compiled function makes what outlives it."""
    row = tree.map_structure(lambda t: t[:1], batch, none_is_leaf=False)
    if not model.built:
        model(row[0])
    values = [(variable, variable.value) for variable in model.variables]
    loss = of_batch(model, row, [], values, False, criterion).loss
    with keras.StatelessScope():  # which gives new variables their values when it ends
        if keras.backend.backend() == "jax":
            import jax

            jax.eval_shape(loss)  # without compiling each operation
        else:
            loss()
