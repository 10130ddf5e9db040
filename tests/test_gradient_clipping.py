"""`GradientClipping` against NumPy, in a real `fit`, and at the cliff of a recurrent network."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kerasopt.optimizers import SGD, Adam, GradientClipping, ScheduleFree
from tests.contract.cases import dense_model

SHAPES = ((4, 3), (3,), (2, 2, 3, 5))


def unit_norms(values: np.ndarray) -> np.ndarray:
    """Return the norms over all axes but the last; of a vector, over it."""
    axes = tuple(range(max(1, values.ndim - 1)))
    return np.sqrt(np.sum(values**2, axis=axes, keepdims=True))


def norm(gradients: list[np.ndarray]) -> float:
    return np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))


def clipped(
    method: str, gradients: list[np.ndarray], weights: list[np.ndarray], norms: list[float]
) -> list[np.ndarray]:
    """Return what each method makes of gradients; `norms` are those so far."""
    if method == "value":
        return [np.clip(g, -1, 1) for g in gradients]
    if method == "adaptive":
        limits = [0.01 * np.maximum(unit_norms(w), 1e-3) for w in weights]
        pairs = zip(gradients, limits, strict=True)
        return [g * np.minimum(1, limit / unit_norms(g)) for g, limit in pairs]
    threshold = np.percentile(norms[-5:], 50) if method == "percentile" else 1.0
    return [g * min(1, threshold / norm(gradients)) for g in gradients]


@pytest.mark.parametrize("method", ["norm", "value", "adaptive", "percentile"])
def test_clips_skips_and_counts(method: str) -> None:
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(size=s), dtype="float32") for s in SHAPES]
    extra = {"percentile": 50.0, "window": 5} if method == "percentile" else {}
    optimizer = GradientClipping(keras.optimizers.SGD(1.0), method, **extra)
    norms, factors, skipped = [], [], 0
    for step in range(20):
        gradients = [(random.normal(size=s) * 10.0 ** (step % 4 - 3)).astype("f4") for s in SHAPES]
        if step in (3, 4, 11):
            gradients[1][0] = (np.nan, np.inf)[step % 2]
        before = [w.numpy() for w in weights]
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], weights)
        expected = [np.zeros_like(g) for g in gradients]
        if np.isfinite(norm(gradients)):
            norms.append(norm(gradients))
            expected = clipped(method, gradients, before, norms)
            factors.append(norm(expected) / norm(gradients))
        else:
            skipped += 1
        for w, old, g in zip(weights, before, expected, strict=True):
            np.testing.assert_allclose(w.numpy(), old - g, atol=1e-6)
    hard = [factor for factor in factors if factor < 1 - 1e-6]
    assert 0 < len(hard) < len(factors)
    assert int(optimizer.clipped) == len(hard)
    assert int(optimizer.skipped) == skipped == 3
    assert int(optimizer.iterations) == 17
    np.testing.assert_allclose(float(optimizer.figures()["clip_factor"]), np.mean(hard), rtol=1e-4)


def test_gradient_whose_square_is_too_large_for_float32() -> None:
    w = keras.Variable([0.0, 0.0])
    optimizer = GradientClipping(keras.optimizers.SGD(1.0))
    optimizer.apply([ops.convert_to_tensor([3e30, 4e30])], [w])
    np.testing.assert_allclose(w.numpy(), [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("method", ["norm", "percentile"])
def test_norm_in_float64(method: str, float64: None) -> None:
    random = np.random.default_rng(0)
    weight, expected, norms = keras.Variable(np.zeros(100)), np.zeros(100), []
    optimizer = GradientClipping(keras.optimizers.SGD(1.0), method)
    for _ in range(5):
        gradient = random.normal(size=100)
        norms.append(norm([gradient]))
        limit = 1.0 if method == "norm" else np.percentile(norms, 10)
        expected -= gradient * min(1.0, limit / norms[-1])
        optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-13, atol=1e-14)


def test_gradient_of_zero_is_not_clipped() -> None:
    optimizer = GradientClipping(keras.optimizers.SGD(1.0))
    optimizer.apply([ops.zeros(2)], [keras.Variable([0.0, 0.0])])
    assert int(optimizer.clipped) == 0


def test_logs_of_fit(digits: tuple) -> None:
    optimizer = GradientClipping(keras.optimizers.SGD(0.1), threshold=0.5)
    history = dense_model(optimizer).fit(*digits, epochs=3, verbose=0).history
    steps = 3 * -(-len(digits[0]) // 32)
    assert history["clipped"][-1] == int(optimizer.clipped) <= steps
    assert history["clipped"] == sorted(history["clipped"])
    assert 0 < history["clip_factor"][-1] < 1
    assert history["skipped"] == [0, 0, 0]
    assert history["gradient_norm"][-1] > 0


def test_no_logs_without_history(digits: tuple) -> None:
    optimizer = GradientClipping(keras.optimizers.SGD(0.1), history=False)
    history = dense_model(optimizer).fit(*digits, epochs=1, verbose=0).history
    assert set(history) == {"accuracy", "loss"}


def not_numbers(y: Any, y_pred: Any) -> Any:
    """Return a loss that is not a number."""
    return ops.mean(y_pred) * float("nan")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_too_many_skipped_steps_end_the_training(jit_compile: bool, digits: tuple) -> None:
    optimizer = GradientClipping(Adam(), max_skipped=3)
    model = dense_model(optimizer, loss=not_numbers, metrics=[], jit_compile=jit_compile)
    before = model.get_weights()
    message = "not finite in `max_skipped`=3 steps in a row. The weights are those before"
    with pytest.raises(Exception, match=message) as caught:
        model.fit(*digits, epochs=1, verbose=0)
    names = {type(caught.value).__name__}
    assert names <= {"InvalidArgumentError", "FloatingPointError"}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_within_loss_scaling_and_around_an_average(digits: tuple) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = dense_model(GradientClipping(ScheduleFree(SGD(0.1)), threshold=0.1))
    history = model.fit(*digits, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["clipped"][-1] > 0


START = np.array([6.0, -2.0], "float32")


class Norms(keras.callbacks.Callback):
    """Notes the norm of the gradient in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note it."""
        self.seen.append(float((logs or {}).get("gradient_norm", 0.0)))


def train_at_the_cliff(optimizer: keras.optimizers.Optimizer) -> tuple[float, np.ndarray, Norms]:
    """Train a recurrent unit to be 0.7 after 50 steps, next to a cliff of its loss."""
    unit = keras.layers.SimpleRNN(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((50, 1)), unit])
    unit.set_weights([np.zeros((1, 1)), START[:1, None], START[1:]])  # of the input, state, offset
    model.compile(optimizer, "mse")
    x, y, norms = np.zeros((300, 50, 1), "float32"), np.full((300, 1), 0.7, "float32"), Norms()
    before = model.evaluate(x[:1], y[:1], verbose=0)
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[norms])
    after = model.evaluate(x[:1], y[:1], verbose=0)
    return after / before, np.concatenate([w.ravel() for w in unit.get_weights()[1:]]), norms


@pytest.mark.slow
def test_recurrent_network_at_a_cliff() -> None:
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 300, 0.0)
    gain, far, _ = train_at_the_cliff(keras.optimizers.SGD(schedule))
    assert gain > 5  # one step threw it where there is no gradient
    assert np.linalg.norm(far - START) > 10
    optimizer = GradientClipping(keras.optimizers.SGD(schedule), threshold=0.2)
    gain, near, norms = train_at_the_cliff(optimizer)
    assert gain < 0.01
    assert np.linalg.norm(near - START) < 3
    assert int(optimizer.clipped) == sum(norm > 0.2 for norm in norms.seen) > 0
