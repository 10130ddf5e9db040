"""The paths and the saved state of the optimizers that Keras has, too."""

from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt.optimizers as ours
from tests.test_first_order import RATE, Problem, distance, travel

OF_KERAS = Problem(((130, 130), (5, 4), (3,)))

of_keras = pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
        ("Adam", {"weight_decay": 0.1, "global_clipnorm": 1.0}),
        ("AdamW", {"weight_decay": 0.1}),
        ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.5}),
        ("RMSprop", {"centered": True, "rho": 0.99}),  # with less, the variance is lost in float32
        ("RMSprop", {"centered": True, "rho": 0.99, "momentum": 0.5}),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)


@of_keras
def test_keras(name: str, arguments: dict[str, Any]) -> None:
    path, reference = (
        travel(getattr(package, name)(RATE / 8, **arguments), OF_KERAS, 100)
        for package in (ours, keras.optimizers)
    )
    assert distance(path, reference) <= 1e-6


@of_keras
@pytest.mark.parametrize(
    ("first", "second"),
    [(keras.optimizers, ours), (ours, keras.optimizers)],
    ids=["from Keras", "to Keras"],
)
def test_state_of_keras(
    name: str, arguments: dict[str, Any], first: ModuleType, second: ModuleType
) -> None:
    weights = [keras.Variable(w, dtype="float32") for w, _ in OF_KERAS.weights()]
    saving, loading, alone = (
        getattr(package, name)(RATE / 8, **arguments)
        for package in (first, second, keras.optimizers)
    )
    saved: dict[str, Any] = {}
    loaded: dict[str, Any] = {}
    travel(saving, OF_KERAS, 25, weights)
    saving.save_own_variables(saved)
    loading.build(weights)
    loading.load_own_variables(saved)
    loading.save_own_variables(loaded)
    np.testing.assert_equal(loaded, saved)
    path = travel(loading, OF_KERAS, 25, weights)
    assert distance(path, travel(alone, OF_KERAS, 50)[25:]) <= 1e-6
