"""Networks of columns for the tests."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kerasopt.layers import Column, CrossConnection, split_columns

L2 = keras.regularizers.L2(0.01)


def one_device() -> None:
    """Return no strategy."""


def apply(columns: list[Column], tensors: list[Any]) -> list[Any]:
    """Return what each column makes of its tensor."""
    return [column(tensor) for column, tensor in zip(columns, tensors, strict=True)]


def two_columns(
    *within: Callable[[], keras.Layer], columns: int = 2, **arguments: Any
) -> keras.Model:
    """Return the network of the lecture: columns that meet at one layer and at the top."""
    x = keras.Input((8, 8, 1), name="images")
    maps = apply(split_columns(layers.Conv2D(12, 3, activation="tanh"), columns), [x] * columns)
    maps = CrossConnection()(maps)
    maps = apply(split_columns(layers.Conv2D(12, 3, activation="tanh"), columns), maps)
    tail = [layers.Flatten, *within]
    tails = [Column([make() for make in tail], i, name=f"tail_column_{i}") for i in range(columns)]
    maps = apply(tails, maps)
    top = split_columns(layers.Dense(12, activation="tanh", **arguments), columns)
    joined = layers.Concatenate()(apply(top, CrossConnection()(maps)))
    return keras.Model(x, layers.Dense(10, name="classes")(joined))


def apart(width: int = 16) -> keras.Model:
    """Return columns that are joined for the last layer only."""
    x = keras.Input((8, 8, 1))
    convolutions = [
        [layers.Conv2D(width, 3, activation="tanh") for _ in range(2)] for _ in range(2)
    ]
    tops = [[layers.Flatten(), layers.Dense(2 * width)] for _ in range(2)]
    columns = [Column([*convolutions[i], *tops[i]], i) for i in range(2)]
    joined = layers.Concatenate()([column(x) for column in columns])
    return keras.Model(x, layers.Dense(10)(joined))


def compiled(
    strategy: Any,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    build: Callable[[], keras.Model] = two_columns,
    **arguments: Any,
) -> keras.Model:
    """Return a compiled model, of the same weights at every call."""
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss, metrics=["accuracy"], **arguments)
    return model


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of 8×8 and classes."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 8, 8, 1)).astype(keras.config.floatx())
    return x, random.integers(0, 10, count)
