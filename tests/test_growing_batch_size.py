"""`GrowingBatchSize`: every sample once an epoch, in batches of the size that it is time for."""

import json
import re
from itertools import islice
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.callbacks import GrowingBatchSize
from kerasopt.callbacks._gradient_noise import noise_scale
from kerasopt.callbacks._growing_batches import Rows
from tests.contract.cases import dense_model

NUMBERS = np.arange(50, dtype="float32")[:, None]


class Witness(keras.layers.Layer):
    """Counts how often it has seen each number, and in how many batches."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", initializer="ones")
        self.seen = self.add_weight((50,), "zeros", trainable=False, name="seen")
        self.batches = self.add_weight((), "zeros", trainable=False, name="batches")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.seen.assign_add(keras.ops.sum(keras.ops.one_hot(x[:, 0], 50), axis=0))
            self.batches.assign_add(1.0)
        return self.scale * keras.ops.cast(x, "float32")


class Epochs(keras.callbacks.Callback):
    """Takes down what a witness saw in each epoch."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self.witness, self.sizes, self.seen = witness, [], []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert self.model.built
        self.seen.append(self.witness.seen.numpy().copy())
        self.sizes.append(int(self.witness.batches.numpy()))


def watched_model(rate: Any = 1e-9, **arguments: Any) -> tuple[keras.Model, Epochs]:
    witness = Witness()
    model = keras.Sequential([keras.Input((1,), dtype="int32"), witness])
    model.compile(keras.optimizers.SGD(rate), "mse", **arguments)
    return model, Epochs(witness)


def integers() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(50)[:, None], NUMBERS


def tf_data() -> tuple[Any]:
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices(integers()).shuffle(50),)


@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 3}, {"jit_compile": True}])
@pytest.mark.parametrize("data", [integers, pytest.param(tf_data, marks=pytest.mark.tensorflow)])
def test_every_sample_once_at_each_size(data: Any, arguments: dict) -> None:
    model, epochs = watched_model(**arguments)
    growing = GrowingBatchSize(start=4, factor=2, every=2)
    model.fit(growing.batches(*data()), epochs=8, verbose=0, callbacks=[growing, epochs])
    np.testing.assert_array_equal(epochs.seen, np.arange(1, 9)[:, None] * np.ones(50))
    assert list(np.diff([0, *epochs.sizes])) == [13, 13, 7, 7, 4, 4, 2, 2]
    assert growing.size == 50
    assert [tuple(event) for event in growing.events] == [
        (2, "batch 8"), (4, "batch 16"), (6, "batch 32"), (8, "batch 50"),
    ]  # fmt: skip


@pytest.mark.tensorflow
def test_no_new_trace(digits: tuple) -> None:
    traces = []

    def loss(y: Any, y_pred: Any) -> Any:
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)

    counts = []
    for every in (5, 1):
        growing = GrowingBatchSize(start=8, every=every)
        model, before = dense_model("sgd", loss=loss), len(traces)
        model.fit(growing.batches(*digits), epochs=4, verbose=0, callbacks=[growing])
        counts.append(len(traces) - before)
    assert counts[0] == counts[1]


def test_progress_bar(capsys: pytest.CaptureFixture) -> None:
    model, _ = watched_model()
    growing = GrowingBatchSize(start=5, every=1)
    model.fit(growing.batches(*integers()), epochs=3, verbose=1, callbacks=[growing])
    shown = re.findall(r"(\d+)/(\d+)", capsys.readouterr().out)
    counts = [(int(now), int(total)) for now, total in shown]
    for epoch in ((10, 10), (5, 5), (3, 3)):
        assert epoch in counts
    assert {total for _, total in counts} == {10, 5, 3}


def test_as_with_a_fit_for_each_size(digits: tuple) -> None:
    """The oracle: batches cut by hand, with one optimizer."""
    growing = GrowingBatchSize(start=16, every=1, scale_learning_rate="linear")
    model = dense_model(keras.optimizers.SGD(0.01, momentum=0.9))
    model.fit(growing.batches(*digits, seed=None), epochs=3, verbose=0, callbacks=[growing])
    by_hand = dense_model(keras.optimizers.SGD(0.01, momentum=0.9))
    for size, rate in ((16, 0.01), (32, 0.02), (64, 0.04)):
        by_hand.optimizer.learning_rate = rate
        by_hand.fit(*digits, batch_size=size, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rule", "rate"), [(None, 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_learning_rate(rule: str | None, rate: float) -> None:
    model, _ = watched_model(0.1)
    growing = GrowingBatchSize(start=10, factor=4, every=1, max_size=40, scale_learning_rate=rule)
    model.fit(
        growing.batches(0 * integers()[0], NUMBERS * 0), epochs=3, verbose=0, callbacks=[growing]
    )
    assert growing.size == 40
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)


class Losses(keras.callbacks.Callback):
    """Logs a given value in each epoch."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["given"] = self.values[epoch]


def test_plateau() -> None:
    model, _ = watched_model()
    growing = GrowingBatchSize(start=4, every=2, trigger="plateau", monitor="given", min_delta=0.1)
    losses = Losses([1.0, 0.95, 0.8, 0.75, 0.75, 0.5, 0.45, 0.6, 0.6, 0.6])
    model.fit(growing.batches(*integers()), epochs=10, verbose=0, callbacks=[losses, growing])
    assert [event.epoch for event in growing.events] == [5, 8, 10]


def linear(noise: float) -> tuple[keras.Model, np.ndarray, np.ndarray, float]:
    """Return a linear model at w = 0, data y = x + noise, and tr Σ / ‖∇J‖² of its squared error."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4096, 3)).astype("float32")
    y = (x @ np.ones((3, 1)) + noise * random.normal(size=(4096, 1))).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((3, 1))])
    model.compile(keras.optimizers.SGD(1e-9), "mse")
    gradients = -2 * x * y
    return model, x, y, gradients.var(axis=0).sum() / np.square(gradients.mean(axis=0)).sum()


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_noise_scale(noise: float) -> None:
    model, x, y, expected = linear(noise)
    batches = islice(Rows(x, y, None, 0).batches(64), 64)
    assert noise_scale(model, batches) == pytest.approx(expected, rel=0.1)


def test_noise_scale_of_pure_noise_and_of_none() -> None:
    model, x, y, _ = linear(1.0)
    signs = np.array([[1.0], [-1.0]] * 4, "float32")
    assert noise_scale(model, [(x[:8] * 0 + 1, signs)] * 2) == np.inf
    assert noise_scale(model, [(x[:8], y[:8])] * 2) == pytest.approx(0, abs=1e-5)


def test_grows_with_the_noise() -> None:
    model, x, y, scale = linear(3.0)
    growing = GrowingBatchSize(start=4, trigger="gradient_noise")
    model.fit(growing.batches(x[:512], y[:512]), epochs=6, verbose=0, callbacks=[growing])
    assert scale / 3 < growing.size < 4 * scale


def test_state_round_trip() -> None:
    """Broken off after three epochs and taken up, it sees the same batches."""
    losses = []
    for parts in ((5,), (3, 5)):
        model, _ = watched_model(1e-4)
        begin, state, history = 0, None, []
        for end in parts:
            growing = GrowingBatchSize(start=4, every=2)
            if state:
                growing.set_state(json.loads(json.dumps(state)))
            fit = {"initial_epoch": begin, "epochs": end, "verbose": 0, "callbacks": [growing]}
            history += model.fit(growing.batches(*integers()), **fit).history["loss"]
            begin, state = end, growing.get_state()
        losses.append(history)
    assert losses[0] == losses[1]


@pytest.mark.tensorflow
def test_under_a_strategy(digits: tuple) -> None:
    weights = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        with kerasopt.strategies.DataParallel(devices).scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        growing = GrowingBatchSize(start=24, every=1)
        model.fit(growing.batches(*digits), epochs=3, verbose=0, callbacks=[growing])
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_refused_when_training_begins(digits: tuple) -> None:
    model = dense_model("sgd")
    with pytest.raises(ValueError, match=r"must hand out the data.*growing.batches\(x, y\)"):
        model.fit(*digits, verbose=0, callbacks=[GrowingBatchSize()])
    growing = GrowingBatchSize(scale_learning_rate="sqrt")
    both = [growing, keras.callbacks.ReduceLROnPlateau()]
    with pytest.raises(ValueError, match="one callback that sets the learning rate"):
        model.fit(growing.batches(*digits), verbose=0, callbacks=both)
    growing = GrowingBatchSize(trigger="plateau", monitor="val_loss")
    with pytest.raises(ValueError, match=r"`monitor` must be a value that `fit` logs.*'val_loss'"):
        model.fit(growing.batches(*digits), verbose=0, callbacks=[growing])


def test_refused_data(digits: tuple) -> None:
    growing = GrowingBatchSize()
    with pytest.raises(TypeError, match=r"`x` must be arrays, or a `tf.data.Dataset` that is not"):
        growing.batches(iter([1]))
    with pytest.raises(ValueError, match=r"the same number of rows. Received: \[100, 128\]"):
        growing.batches(digits[0], digits[1][:100])


@pytest.mark.tensorflow
def test_dataset_of_unknown_size() -> None:
    dataset = tf_data()[0].filter(lambda x, y: True)
    with pytest.raises(ValueError, match=r"known number of elements. Received: .*-2.*assert_card"):
        GrowingBatchSize().batches(dataset)
