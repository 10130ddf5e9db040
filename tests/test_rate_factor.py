"""The rate of any optimizer is scaled in training, without a new trace, and saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from keras.optimizers.schedules import CosineDecay, ExponentialDecay, LearningRateSchedule

import kerasopt
from kerasopt._rate_factor import LearningRate
from tests.contract.cases import dense_model

DECAY = ExponentialDecay(0.1, 2, 0.5)


def multi(*rates: Any) -> keras.optimizers.Optimizer:
    first, second = map(keras.optimizers.SGD, rates)
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(first, {"bias": second}))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": keras.optimizers.SGD,
    "rule": kerasopt.optimizers.Momentum,
    "schedule_free": lambda rate: kerasopt.optimizers.ScheduleFree(keras.optimizers.SGD(rate)),
    "loss_scale": lambda rate: keras.optimizers.LossScaleOptimizer(
        kerasopt.optimizers.GradientClipping(keras.optimizers.SGD(rate), threshold=1e6)
    ),
    "accumulating": lambda rate: keras.optimizers.SGD(rate, gradient_accumulation_steps=2),
    "multi": lambda rate: multi(rate, rate),
    "second_order": lambda rate: kerasopt.optimizers.Sophia(rate, seed=1),
}


class Rates(LearningRateSchedule):
    """A rate for each step."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def __call__(self, step: Any) -> Any:
        return ops.take(ops.convert_to_tensor(self.rates), step)


class Scale(keras.callbacks.Callback):
    """Multiplies the rate before epochs."""

    def __init__(self, factors: dict[int, float]) -> None:
        super().__init__()
        self.factors = factors

    def on_train_begin(self, logs: Any = None) -> None:
        self.rate = LearningRate(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch in self.factors:
            self.rate.scale(self.factors[epoch])


def train(model: keras.Model, digits: tuple, factors: dict[int, float]) -> keras.Model:
    """Train three epochs of two steps, with these factors from these epochs on."""
    callbacks = [Scale(factors)]
    model.fit(*digits, epochs=3, batch_size=64, shuffle=False, verbose=0, callbacks=callbacks)
    return model


def assert_same_weights(model: keras.Model, other: keras.Model) -> None:
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "rate", "arguments"),
    [
        *((name, DECAY, {}) for name in OPTIMIZERS),
        *((name, 0.1, {}) for name in ("sgd", "loss_scale", "multi")),
        *(("sgd", DECAY, each) for each in ({"steps_per_execution": 2}, {"jit_compile": True})),
    ],
)
def test_steps_are_those_of_the_scaled_rates(
    name: str, rate: Any, arguments: dict, digits: tuple
) -> None:
    models = []
    rates = [float(DECAY(step)) if rate is DECAY else 0.1 for step in range(6)]
    scaled = list(np.repeat([1, 0.5, 2], 2).astype("float32") * rates)
    for each, factors in ((rate, {1: 0.5, 2: 4.0}), (Rates(scaled), {})):
        model = dense_model(OPTIMIZERS[name](each), name == "second_order", **arguments)
        models.append(train(model, digits, factors))
    assert_same_weights(*models)


@pytest.mark.parametrize("rate", [0.1, DECAY])
def test_scaling_does_not_trace_anew(rate: Any, digits: tuple) -> None:
    traces = []
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y: Any, y_pred: Any) -> Any:
        traces.append(1)
        return crossentropy(y, y_pred)

    model = dense_model(keras.optimizers.SGD(rate), loss=loss)
    train(model, digits, {})
    before = len(traces)
    train(model, digits, {1: 0.5, 2: 3.0})
    assert len(traces) == before


@pytest.mark.parametrize("name", ["sgd", "rule", "schedule_free"])
def test_saved_in_training_and_loaded(name: str, digits: tuple, tmp_path: Path) -> None:
    """A checkpoint of the scaled training goes on as the training itself does."""
    model = dense_model(OPTIMIZERS[name](DECAY))
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    arguments = {"batch_size": 64, "shuffle": False, "verbose": 0}
    model.fit(*digits, epochs=2, callbacks=[Scale({0: 0.5}), save], **arguments)
    loaded = keras.saving.load_model(tmp_path / "1.keras")
    loaded.fit(*digits, **arguments)
    assert_same_weights(loaded, model)


def test_stays_scaled_in_the_next_fit(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(CosineDecay(0.1, 1000)))
    for _ in range(2):
        train(model, digits, {0: 0.5})
    assert float(model.optimizer.learning_rate) == pytest.approx(0.25 * 0.1, rel=1e-3)


def test_limits_hold_for_each_optimizer() -> None:
    model = dense_model(multi(0.1, 0.01))
    rate = LearningRate(model)
    rate.scale(4, high=0.2)
    np.testing.assert_allclose(rate.values, [0.04, 0.2])
    rate.scale(0.1, low=0.01)
    np.testing.assert_allclose(rate.values, [0.01, 0.02])


def test_warm_up_from_zero_is_scaled() -> None:
    model = dense_model(
        keras.optimizers.SGD(CosineDecay(0.0, 10, name="decay", warmup_target=1.0, warmup_steps=10))
    )
    rate = LearningRate(model)
    rate.scale(0.5)
    model.optimizer.iterations.assign(10)
    assert rate.values == [0.5]


def test_function_cannot_be_scaled(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(lambda: ops.convert_to_tensor(0.1)))
    with pytest.raises(ValueError, match=r"must be a number or a .*Received: a function in SGD"):
        train(model, digits, {})


@pytest.mark.tensorflow
@pytest.mark.parametrize("rate", [0.1, DECAY])
def test_under_a_strategy(rate: Any, digits: tuple) -> None:
    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = dense_model(keras.optimizers.SGD(rate))
    alone = dense_model(keras.optimizers.SGD(rate))
    assert_same_weights(*(train(each, digits, {1: 0.5, 2: 4.0}) for each in (model, alone)))
