"""`kerasopt.callbacks.EvaluateEvery` in a real `fit`."""

import json
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.callbacks import EvaluateEvery


class NoisyAlways(keras.layers.Layer):
    """Adds noise in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def noisy_model(steps: int = 1, noise: bool = True) -> keras.Model:
    """Return a model with all that an evaluation could disturb."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.3)]
    layers += [NoisyAlways()] if noise else []
    layers += [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=steps)
    return model


def train(digits: tuple, *callbacks: Any, steps: int = 1, **arguments: Any) -> tuple[Any, Any]:
    """Return the model and its logs."""
    model = noisy_model(steps)
    arguments = {"epochs": 3, "batch_size": 16, "verbose": 0, **arguments}
    return model, model.fit(*digits, callbacks=list(callbacks), **arguments).history


def values(model: keras.Model) -> list[np.ndarray]:
    everything = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in everything]


@pytest.mark.parametrize(
    ("steps", "validation_split"),
    [
        (1, 0.25),
        (2, 0.0),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(1, 0.0), (2, 0.25)]),
    ],
)
def test_training_is_as_without(digits: tuple, steps: int, validation_split: float) -> None:
    arguments: dict[str, Any] = {"steps": steps, "validation_split": validation_split}
    model, logs = train(digits, **arguments)
    evaluated, more = train(digits, EvaluateEvery(3, digits, 32), **arguments)
    assert {name: more[name] for name in logs} == logs
    for value, expected in zip(values(evaluated), values(model), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_training_is_as_without_under_a_strategy(digits: tuple, count: int) -> None:
    runs = []
    for callbacks in ([], [EvaluateEvery(3, digits, 32)]):
        devices = [f"CPU:{index}" for index in range(count)]
        with kerasopt.strategies.DataParallel(devices).scope():
            model = noisy_model(noise=False)
        history = model.fit(*digits, epochs=2, batch_size=16, verbose=0, callbacks=callbacks)
        runs.append((values(model), history.history["loss"], history.history["accuracy"]))
    for value, expected in zip(runs[1][0], runs[0][0], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert runs[1][1:] == runs[0][1:]


@pytest.mark.parametrize("steps", [1, 4])
def test_values_are_those_of_evaluate(digits: tuple, steps: int) -> None:
    model, seen = noisy_model(steps, noise=False), []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append({"batch": batch, **logs})
    )
    evaluate = EvaluateEvery(4, digits)
    logs = model.fit(*digits, batch_size=16, epochs=2, verbose=0, callbacks=[evaluate, look])
    assert evaluate.history["step"] == [4, 8, 12, 16]
    last = model.evaluate(*digits, verbose=0, return_dict=True)
    assert {f"val_{name}": value for name, value in last.items()} == {
        name: values[-1] for name, values in evaluate.history.items() if name != "step"
    }
    assert logs.history["val_loss"] == evaluate.history["val_loss"][1::2]
    assert [each["batch"] for each in seen if "val_loss" in each] == [3, 7, 3, 7]


def test_steps_are_counted_over_epochs(digits: tuple) -> None:
    evaluate = EvaluateEvery(6, digits)
    _, logs = train(digits, evaluate, epochs=2, batch_size=32)  # epochs of four batches
    assert evaluate.history["step"] == [6]
    assert logs["val_loss"] == evaluate.history["val_loss"]


def test_each_fit_counts_anew(digits: tuple) -> None:
    evaluate = EvaluateEvery(6, digits)
    for _ in range(2):
        train(digits, evaluate, epochs=2, batch_size=32)
    assert evaluate.history["step"] == [6, 14]  # 8 are done in the first


def test_values_of_fit_stay(digits: tuple) -> None:
    _, expected = train(digits, validation_split=0.25)
    _, logs = train(digits, EvaluateEvery(2, digits), validation_split=0.25)
    assert logs["val_loss"] == expected["val_loss"]


@pytest.mark.parametrize("weighted", [True, False])
def test_dataset_and_sample_weights(digits: tuple, weighted: bool) -> None:
    x, y = digits
    weights = np.linspace(0, 1, len(x)).astype("float32")
    arrays = (x, y, weights) if weighted else (x, y)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple:
            return tuple(part[32 * index : 32 * (index + 1)] for part in arrays)

    histories = []
    for data in (arrays, Batches()):
        evaluate = EvaluateEvery(8, data)
        train(digits, evaluate)
        histories.append(evaluate.history)
    assert histories[0] == histories[1]
    assert histories[0]["step"] == [8, 16, 24]


def test_state_goes_on(digits: tuple) -> None:
    first, second = (EvaluateEvery(3, digits) for _ in range(2))
    train(digits, first, epochs=1)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert second.get_state() == first.get_state()
    train(digits, second, epochs=1)
    assert second.history["step"] == [3, 6, 9, 12, 15]
    assert first.history["step"] == [3, 6]
