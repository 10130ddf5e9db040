"""L-BFGS in `fit`: batches, noise, what it leaves in the model."""

from typing import Any

import keras
import numpy as np
import pytest

from kerasopt.optimizers import LBFGS

layers = keras.layers


def classifier(optimizer: Any, dropout: float = 0.0, **arguments: Any) -> keras.Model:
    """Return a compiled classifier of digits, the same at each call."""
    keras.utils.set_random_seed(0)
    body = [layers.Flatten(), layers.Dense(16, "tanh"), layers.Dropout(dropout), layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **arguments)
    return model


def flat(model: keras.Model) -> np.ndarray:
    return np.concatenate([w.numpy().ravel() for w in model.trainable_weights])


# 50 leaves a batch of 28.
@pytest.mark.parametrize("batch_size", [pytest.param(32, marks=pytest.mark.slow), 50])
def test_batches_make_the_path_of_the_whole(batch_size: int, digits: tuple) -> None:
    whole = classifier(LBFGS())
    whole.fit(*digits, batch_size=128, epochs=12, verbose=0)
    count = -(-128 // batch_size)
    parts = classifier(LBFGS(steps_per_evaluation=count), steps_per_execution=2)
    parts.fit(*digits, batch_size=batch_size, epochs=12, verbose=0)
    assert parts.optimizer.evaluations == 12
    np.testing.assert_allclose(flat(parts), flat(whole), atol=1e-5)


def test_needs_few_evaluations(digits: tuple) -> None:
    model = classifier(LBFGS(), steps_per_execution=10)
    model.fit(*digits, batch_size=128, epochs=40, verbose=0)
    assert model.evaluate(*digits, verbose=0) < 1e-3


@pytest.mark.parametrize("line_search", [pytest.param("armijo", marks=pytest.mark.slow), None])
def test_other_line_searches(line_search: str | None, digits: tuple) -> None:
    model = classifier(LBFGS(line_search=line_search))
    history = model.fit(*digits, batch_size=128, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


def test_leaves_the_best_point(digits: tuple) -> None:
    model = classifier(LBFGS(learning_rate=20.0))  # trials that overshoot
    losses = []
    for _ in range(4):
        history = model.fit(*digits, batch_size=128, epochs=12, verbose=0).history["loss"]
        losses.append(model.evaluate(*digits, batch_size=128, verbose=0))
        assert losses[-1] <= min(history) * 1.001
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.slow), True])
def test_noise_is_said_once(jit_compile: bool, digits: tuple) -> None:
    model = classifier(LBFGS(), dropout=0.5, jit_compile=jit_compile)
    with pytest.warns(UserWarning, match=r"not the same at the same weights.*dropout"):
        model.fit(*digits, batch_size=128, epochs=4, verbose=0)
    model.fit(*digits, batch_size=128, epochs=4, verbose=0)  # says no more


def test_batches_that_change_are_noise(digits: tuple) -> None:
    with pytest.warns(UserWarning, match="not the same at the same weights"):
        classifier(LBFGS()).fit(*digits, epochs=1, verbose=0)


@pytest.mark.slow
def test_not_a_number_is_stepped_back_from(digits: tuple) -> None:
    model = classifier(LBFGS(learning_rate=1e30))
    model.fit(*digits, batch_size=128, epochs=80, verbose=0)
    assert model.evaluate(*digits, verbose=0) < 2.0


@pytest.mark.tensorflow
def test_within_a_loss_scale() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(LBFGS())
    model = keras.Sequential([layers.Dense(1)])
    model.compile(optimizer, "mse")
    with pytest.raises(ValueError, match=r"do not wrap the optimizer in `LossScaleOptimizer`\."):
        model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
