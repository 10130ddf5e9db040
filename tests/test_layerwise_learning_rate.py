"""`LayerwiseLearningRate` against its base, layer by layer."""

from typing import Any

import keras
import numpy as np
import pytest

from kerasopt.optimizers import SGD, Adam, LayerwiseLearningRate
from tests.contract.cases import dense_model


def first_steps(optimizer: keras.optimizers.Optimizer, digits: tuple) -> list[np.ndarray]:
    """Return by how much each weight of the classifier moves in its first step."""
    model = dense_model(optimizer)
    for number, layer in enumerate(model.layers):
        layer.name = f"layer_{number}"
    before = model.get_weights()
    model.train_on_batch(*digits)
    return [new - old for old, new in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize("base", [keras.optimizers.SGD, Adam, keras.optimizers.Lion])
def test_all_factors_one_is_the_base_bit_by_bit(base: Any, digits: tuple) -> None:
    weights = []
    for optimizer in (base(0.01), LayerwiseLearningRate(base(0.01), {"kernel": 1.0})):
        model = dense_model(optimizer)
        model.fit(*digits, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "factors"),
    [
        ({"multipliers": {"kernel": 3.0}}, [3, 1, 3, 1]),
        ({"multipliers": {"dense": 0.5, "dense.*/bias": 2.0}}, [0.5, 2, 0.5, 2]),
        ({"multipliers": {"kernel": 0.0}}, [0, 1, 0, 1]),
        ({"layer_decay": 0.5}, [0.5, 0.5, 1, 1]),
        ({"layer_decay": 0.5, "multipliers": {"bias": 4.0}}, [0.5, 2, 1, 4]),
        ({"rule": "fan_in"}, [0.5, 0.5, 2, 2]),  # of 64 and 16 inputs: 1/64 and 1/16, centred
    ],
)
def test_factors(arguments: dict[str, Any], factors: list[float], digits: tuple) -> None:
    plain = first_steps(SGD(0.1), digits)
    optimizer = LayerwiseLearningRate(SGD(0.1), **arguments)
    ours = first_steps(optimizer, digits)
    np.testing.assert_allclose([*optimizer.multipliers.values()], factors, rtol=1e-6)
    for step, reference, factor in zip(ours, plain, factors, strict=True):
        np.testing.assert_allclose(step, factor * reference, rtol=1e-3, atol=1e-7)


def test_factor_of_a_layer_and_its_change_in_training(digits: tuple) -> None:
    model = dense_model("sgd")
    layer = model.layers[1]
    optimizer = LayerwiseLearningRate(SGD(0.1), {layer: 0.0})
    model.compile(optimizer, model.loss)
    before = layer.kernel.numpy()
    model.train_on_batch(*digits)
    np.testing.assert_array_equal(layer.kernel.numpy(), before)
    optimizer.set_multiplier(layer, 2.0)
    assert [*optimizer.multipliers.values()] == [2, 2, 1, 1]
    model.train_on_batch(*digits)
    assert not np.array_equal(layer.kernel.numpy(), before)


def test_expression_that_matches_nothing() -> None:
    optimizer = LayerwiseLearningRate(SGD(), {"block9": 0.1})
    with pytest.raises(ValueError, match=r"Received: 'block9'; the paths are \['lower', 'upper'\]"):
        optimizer.build([keras.Variable(1.0, name="lower"), keras.Variable(1.0, name="upper")])


def test_curvature_of_a_linear_model() -> None:
    """The loss Σ (a x)² + (b x)² has the second derivatives 2 mean x² of each weight."""
    inputs = keras.Input((1,))
    lower = keras.layers.Dense(1, use_bias=False, name="lower")(inputs)
    upper = keras.layers.Dense(1, use_bias=False, name="upper")(keras.ops.multiply(inputs, 4.0))
    model = keras.Model(inputs, keras.layers.Concatenate()([lower, upper]))
    optimizer = LayerwiseLearningRate(SGD(0.1), rule="curvature")
    model.compile(optimizer, "mse")
    x, y = np.linspace(-1, 1, 32, dtype="float32")[:, None], np.zeros((32, 2), "float32")
    with pytest.raises(ValueError, match=r"`rule` 'curvature' .* `optimizer.measure\(model, x, y"):
        model.train_on_batch(x, y)
    before = model.get_weights()
    optimizer.measure(model, x, y)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    np.testing.assert_allclose([*optimizer.multipliers.values()], [4, 0.25], rtol=1e-3)
    model.train_on_batch(x, y)
