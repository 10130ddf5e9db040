"""`predict_ensemble`: moments over networks with their own random numbers, and nothing else."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasopt
from kerasopt import predict_ensemble

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def dropout_model(**arguments: Any) -> keras.Model:
    """A linear model after dropout; `dtype` is that of its layers."""
    kept = layers.Dropout(0.25, **arguments)
    return keras.Sequential([keras.Input((4,)), kept, layers.Dense(3, use_bias=False, **arguments)])


def expected(model: keras.Model, x: np.ndarray = X) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: y = Σ w x m / (1 - p) has the mean w·x and the variance p / (1 - p) Σ (w x)²."""
    kernel = model.layers[-1].get_weights()[0]
    return x @ kernel, np.sqrt(0.25 / 0.75 * x**2 @ kernel**2)


def test_mean_and_deviation_of_dropout() -> None:
    model = dropout_model()
    mean, deviation = predict_ensemble(model, X, samples=4000, batch_size=4, seed=0)
    np.testing.assert_allclose(mean, expected(model)[0], atol=0.1)  # 5 standard errors
    np.testing.assert_allclose(deviation, expected(model)[1], rtol=0.1)


def test_moments_are_those_of_the_samples() -> None:
    """Of k outputs 2 among n: mean 2 k / n, and variance mean (2 - mean)."""
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5)])
    mean, deviation = predict_ensemble(model, np.ones((50, 4)), samples=8, seed=1)
    np.testing.assert_allclose(deviation**2, mean * (2 - mean), atol=1e-6)
    np.testing.assert_allclose(mean * 4, np.round(mean * 4), atol=1e-5)
    assert len(np.unique(mean)) > 5


def test_batch_normalisation_and_augmentation_as_in_inference() -> None:
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            kerasopt.layers.RandomGaussianNoise((9, 9)),
            layers.RandomFlip(),
            layers.BatchNormalization(epsilon=0),
            layers.SpatialDropout2D(0.5),
        ]
    )
    model.layers[2].set_weights([np.array([v], "float32") for v in (2, 1, 3, 4)])
    mean, deviation = predict_ensemble(model, X[:, :, None].reshape(6, 2, 2, 1), 2000, seed=0)
    normalised = (X.reshape(6, 2, 2, 1) - 3) / 2 * 2 + 1
    np.testing.assert_allclose(mean, normalised, atol=0.6)
    np.testing.assert_allclose(deviation, np.abs(normalised), rtol=0.1)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_model_as_it_was(fails: bool) -> None:
    model = keras.Sequential([keras.Input((4,)), dropout_model(), layers.BatchNormalization()])
    model.compile("sgd", "mse")
    before = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
    if fails:
        with pytest.raises((ValueError, TypeError)):
            predict_ensemble(model, np.ones((2, 5)))
    else:
        predict_ensemble(model, X)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, ops.convert_to_numpy(variable))
    np.testing.assert_array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_same_seed_same_networks_but_other_rows_other_ones() -> None:
    model, alike = dropout_model(), np.repeat(X[:1], 8, axis=0)
    first, second, other = (
        predict_ensemble(model, alike, batch_size=4, seed=seed)[0] for seed in (1, 1, None)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert len(np.unique(first[:, 0])) == 8


def nested() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), dropout_model(), layers.Dense(2)])


class Subclassed(keras.Model):
    """A subclassed model."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = layers.GaussianNoise(1.0)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.noise(x, training=training)


class Sampling(keras.layers.Layer):
    """A layer that draws, training or not."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(ops.shape(x), seed=self.generator)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X)
    return model


def sequence(layer: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Reshape((4, 1)), layer, layers.Flatten()])


def shared() -> keras.Model:
    dropout, inputs = layers.Dropout(0.5), keras.Input((4,))
    return keras.Model(inputs, layers.Add()([dropout(inputs), dropout(dropout(inputs))]))


def attention() -> keras.Model:
    inputs = keras.Input((4,))
    steps = layers.Reshape((2, 2))(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2, dropout=0.5)(steps, steps))


@pytest.mark.parametrize(
    "make",
    [
        nested,
        subclassed,
        shared,
        attention,
        lambda: keras.Sequential([keras.Input((4,)), Sampling()]),
        lambda: sequence(layers.LSTM(3, dropout=0.5)),
        lambda: sequence(layers.GRU(3, recurrent_dropout=0.5)),
        lambda: sequence(layers.RNN([layers.LSTMCell(3), layers.LSTMCell(3, dropout=0.5)])),
        lambda: sequence(layers.Bidirectional(layers.SimpleRNN(3, dropout=0.5))),
        lambda: sequence(layers.TimeDistributed(layers.AlphaDropout(0.5))),
    ],
    ids=[
        *("nested", "subclassed", "shared", "attention", "sampling"),
        *("input", "recurrent", "stacked", "bidirectional", "distributed"),
    ],
)
def test_finds_what_draws(make: Callable[[], keras.Model]) -> None:
    mean, deviation = predict_ensemble(make(), X, samples=12, seed=0)
    assert np.isfinite(mean).all()
    assert (deviation.max(axis=tuple(range(1, deviation.ndim))) > 1e-3).all()


def test_structure_of_outputs() -> None:
    inputs = keras.Input((4,))
    hidden = layers.GaussianDropout(0.5)(inputs)
    outputs = {"one": layers.Dense(2)(hidden), "many": [inputs, layers.Dense(3)(hidden)]}
    mean, deviation = predict_ensemble(keras.Model(inputs, outputs), X, batch_size=4)
    assert {name: np.shape(mean[name]) for name in ("one",)} == {"one": (6, 2)}
    np.testing.assert_allclose(mean["many"][0], X, rtol=1e-6)
    assert deviation["many"][0].max() < 1e-6
    assert deviation["many"][1].shape == (6, 3)


def test_activation_comes_before_the_average() -> None:
    model = dropout_model()
    mean, _ = predict_ensemble(model, X * 9, seed=0, activation="softmax")
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-5)
    of_logits = ops.softmax(predict_ensemble(model, X * 9, seed=0)[0])
    assert np.abs(ops.convert_to_numpy(of_logits) - mean).max() > 0.01


class Batches(keras.utils.PyDataset):
    """The rows of X in two batches."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return X[3 * index : 3 * index + 3], np.zeros(3)


def tf_data() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, np.zeros(6))).batch(3)


@pytest.mark.parametrize("data", [Batches, pytest.param(tf_data, marks=pytest.mark.tensorflow)])
def test_data_in_batches(data: Callable[[], Any]) -> None:
    model = dropout_model()
    mean, _ = predict_ensemble(model, data(), seed=0)
    np.testing.assert_array_equal(mean, predict_ensemble(model, X, batch_size=3, seed=0)[0])


@pytest.mark.parametrize("dtype", ["mixed_float16", "bfloat16", "float64"])
def test_precision(dtype: str) -> None:
    if keras.backend.backend() == "jax" and dtype == "float64":
        pytest.skip("JAX has no float64 by default")
    model = dropout_model(dtype=dtype)
    mean, deviation = predict_ensemble(model, X, samples=400, seed=0)
    assert mean.dtype == deviation.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(deviation, expected(model)[1], rtol=0.25)


@pytest.mark.tensorflow  # on JAX all is compiled
@pytest.mark.parametrize("arguments", [{"jit_compile": False}, {"run_eagerly": True}])
def test_as_the_model_is_compiled(arguments: dict) -> None:
    model = dropout_model()
    mean, _ = predict_ensemble(model, X, seed=0)
    model.compile(**arguments)
    np.testing.assert_allclose(predict_ensemble(model, X, seed=0)[0], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_model_of_a_strategy() -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model = dropout_model()
    mean, _ = predict_ensemble(model, X, samples=400, seed=0)
    np.testing.assert_allclose(mean, expected(model)[0], atol=0.35)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "examples" / "ensemble.py"
    return runpy.run_path(str(path))


def gains(example: dict[str, Any], model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return both figures of calibration of the ensemble over those of one pass."""
    many = predict_ensemble(model, x, batch_size=500, seed=0)[0]
    one = model.predict(x, batch_size=500, verbose=0)
    return np.divide(example["calibration"](many, y), example["calibration"](one, y))


def test_calibration_of_known_probabilities(example: dict[str, Any]) -> None:
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4)
    likelihood, error = example["calibration"](probabilities, np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    assert likelihood == pytest.approx(-np.log([0.9] * 3 + [0.1] + [0.6] * 4).mean())
    assert error == pytest.approx((abs(0.9 - 0.75) + abs(0.6 - 1)) / 2)


@pytest.mark.slow
def test_better_calibrated_than_one_pass_on_digits(example: dict[str, Any]) -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    hidden = [f for _ in range(2) for f in (layers.Dense(64, "relu"), layers.Dropout(0.5))]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    often = np.tile(np.arange(200), 50)  # it becomes too sure of itself
    model.fit(x[often] / 16, y[often], batch_size=50, epochs=5, verbose=0)
    assert gains(example, model, x[200:] / 16, y[200:]).max() < 0.9


@pytest.mark.slow
def test_better_calibrated_than_one_pass_on_fashion_mnist(
    example: dict[str, Any], shared_tfds: Path
) -> None:
    (x, y), test = example["data"]()
    likelihood, error = gains(example, example["train"](x, y, verbose=0), *test)
    assert likelihood < 0.97
    assert error < 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "`model` must be a Keras model. Received: model=3"),
        ({"model": keras.Sequential([layers.Dropout(0.5)])}, "`model` must be built.*not built"),
        ({"samples": 1}, "`samples` must be an integer ≥ 2. Received: samples=1"),
        ({"samples": 2.5}, "`samples` must be an integer ≥ 2. Received: samples=2.5"),
        ({"seed": -1}, "`seed` must be an integer ≥ 0. Received: seed=-1"),
        ({"activation": "no"}, "no"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        predict_ensemble(**{"model": dropout_model(), "x": X, **arguments})


@pytest.mark.parametrize("layer", [layers.Dense(2), layers.Dropout(0), layers.RandomRotation(0.1)])
def test_without_random_layers(layer: keras.layers.Layer) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layer], name="plain")
    with pytest.raises(ValueError, match=r"must have layers that draw.*`model.predict`.*: plain"):
        predict_ensemble(model, np.ones((2, 4, 4, 1)))
