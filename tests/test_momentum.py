"""`kerasopt.optimizers.Momentum` against NumPy and against Keras' SGD."""

import keras
import numpy as np
import pytest

from kerasopt.optimizers import Momentum
from tests.contract.cases import dense_model


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_follows_the_equation(momentum: float) -> None:
    curvature = np.array([[1.0, 0.3], [0.3, 20.0]])
    start = np.array([4.0, -1.0])
    before, now = start, start
    w, optimizer = keras.Variable(start), Momentum(0.05, momentum)
    for _ in range(30):
        optimizer.apply([(curvature @ w.numpy()).astype("float32")], [w])
        backprop = -0.05 * curvature @ now
        before, now = now, now + (1 - momentum) * backprop + momentum * (now - before)
        np.testing.assert_allclose(w.numpy(), now, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [lambda rate: rate, lambda rate: keras.optimizers.schedules.CosineDecay(rate, 30)],
    ids=["constant", "schedule"],
)
def test_path_of_keras_sgd_at_a_scaled_rate(schedule: object, digits: tuple) -> None:
    ours = dense_model(Momentum(schedule(0.5), 0.9))
    theirs = dense_model(keras.optimizers.SGD(schedule(0.5 * (1 - 0.9)), 0.9))
    for model in (ours, theirs):
        model.fit(*digits, epochs=8, shuffle=False, verbose=0)
    for w, reference in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(w.numpy(), reference.numpy(), atol=2e-6)


def test_integer_rate_is_a_number() -> None:
    assert float(Momentum(1).learning_rate) == 1
