"""The frame of rules: joined weights, their state, missing gradients; rates that adapt."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kerasopt.optimizers import SGD, Adam, DeltaBarDelta, Rprop
from tests.contract.test_optimizers import minimise

SHAPES = ((3, 2), (200, 100), (), (3, 2), (5,))  # the second is large, the others are joined


def weights() -> list[keras.Variable]:
    random = np.random.default_rng(0)
    return [keras.Variable(random.normal(size=s), dtype="float32") for s in SHAPES]


def gradients(step: int) -> list[Any]:
    random = np.random.default_rng(step)
    return [ops.convert_to_tensor(random.normal(size=s).astype("float32")) for s in SHAPES]


@pytest.mark.tensorflow
def test_small_weights_share_their_state() -> None:
    optimizer = Adam()
    optimizer.build(weights())
    sizes = sorted(int(np.prod(v.shape)) for v in optimizer.variables)
    assert sizes == [1, 1, 18, 18, 18, 20000, 20000]  # with what the fused kernel moves


def test_state_of_a_weight() -> None:
    optimizer, ours = SGD(0.5, momentum=0.9), weights()
    optimizer.apply(gradients(0), ours)
    for weight, gradient in zip(ours, gradients(0), strict=True):
        state = optimizer.state_of(weight)
        np.testing.assert_allclose(state["momentum"], -0.5 * ops.convert_to_numpy(gradient))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_state_without_a_gradient_stays() -> None:
    optimizer, reference = Adam(0.1), keras.optimizers.Adam(0.1)
    ours, theirs = weights(), weights()
    for step in range(6):
        given = [None if (step + i) % 3 == 0 else g for i, g in enumerate(gradients(step))]
        optimizer.apply(given, ours)
        reference.apply(given, theirs)
    for weight, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-6)


def test_excluded_weights_do_not_decay() -> None:
    results = []
    for base in (Adam, keras.optimizers.Adam):
        optimizer, values = base(0.1, weight_decay=0.5), weights()
        optimizer.exclude_from_weight_decay(var_list=values[::2])
        for step in range(3):
            optimizer.apply(gradients(step), values)
        results.append([w.numpy() for w in values])
    for weight, expected in zip(*results, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


def test_state_of_another_optimizer_is_not_loaded() -> None:
    store: dict[str, Any] = {}
    other = keras.optimizers.SGD(momentum=0.9)
    other.build(weights())
    other.save_own_variables(store)
    optimizer = Adam()
    optimizer.build(weights())
    with pytest.warns(UserWarning, match="not loaded: it has 12 variables and 7 were saved"):
        optimizer.load_own_variables(store)


@pytest.mark.tensorflow
def test_checkpoint_of_tensorflow(tmp_path: Any) -> None:
    import tensorflow as tf

    optimizer, again = Adam(), Adam()
    for each, steps in ((optimizer, 3), (again, 1)):
        values = weights()
        for step in range(steps):
            each.apply(gradients(step), values)
    path = tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "state")
    tf.train.Checkpoint(optimizer=again).restore(path).assert_consumed()
    for ours, expected in zip(again.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


def rotated_quadratic(condition: float, size: int = 10) -> Any:
    """Return the gradient of a quadratic with curvatures from 1 to `condition`, and a start."""
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.normal(size=(size, size)))
    hessian = (axes * np.logspace(0, math.log10(condition), size)) @ axes.T
    return hessian.astype("float32"), random.normal(size=size).astype("float32")


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("method", [DeltaBarDelta, Rprop])
def test_needs_fewer_steps_than_the_best_constant_rate(method: Any, condition: float) -> None:
    """Gradient descent at 2 / (1 + κ), its best rate, needs ln(1/ε) / (2 ln((κ + 1) / (κ - 1)))."""
    best = math.log(1e6) / (2 * math.log((condition + 1) / (condition - 1)))
    hessian, start = rotated_quadratic(condition)
    w = keras.Variable(start)
    minimise(method(), w, lambda w: ops.matmul(hessian, w), int(best))
    assert w.numpy() @ hessian @ w.numpy() < 1e-6 * (start @ hessian @ start)
