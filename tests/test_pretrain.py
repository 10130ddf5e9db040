"""`pretrain`: each hidden layer learns to keep what the layers below it tell."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasopt
from kerasopt import pretrain
from kerasopt._pretrain import _transposed

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def network() -> keras.Model:
    """Two hidden layers, with others between; compiled."""
    between = [layers.BatchNormalization(name="n"), layers.Dropout(0.5)]
    hidden = [layers.Dense(5, "tanh", name="a"), *between, layers.Dense(4, "sigmoid", name="b")]
    top = [layers.Dense(3, name="c"), layers.Softmax()]
    model = keras.Sequential([keras.Input((6,)), *hidden, *top])
    model.compile("adam", "mse")
    return model


def changed(model: keras.Model, train: Callable[[], Any]) -> list[str]:
    """Return the names of the layers whose state changes."""
    before = [[np.array(ops.convert_to_numpy(v)) for v in each.variables] for each in model.layers]
    train()
    return [
        layer.name
        for layer, old in zip(model.layers, before, strict=True)
        if any((a != ops.convert_to_numpy(b)).any() for a, b in zip(old, layer.variables, strict=1))
    ]


@pytest.mark.slow
def test_linear_layer_finds_the_principal_components() -> None:
    """The oracle: what two components lose is the share of the other eigenvalues."""
    x = X * [3, 2, 1, 0.5, 0.3, 0.1] + 1
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.T))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, name="a"), layers.Dense(1)])
    losses = pretrain(model, x, epochs=400, batch_size=64, verbose=0)["a"]
    assert losses[-1] == pytest.approx(eigenvalues[:4].sum() / eigenvalues.sum(), rel=0.02)
    kernel = model.layers[0].get_weights()[0]
    np.testing.assert_allclose(kernel @ kernel.T, vectors[:, 4:] @ vectors[:, 4:].T, atol=0.1)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(3, "sigmoid"), (5, 6)),
        (layers.Conv1D(3, 3, strides=2, activation="tanh"), (8, 2)),
        (layers.Conv1D(3, 3, padding="causal", dilation_rate=2), (7, 2)),
        (layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"), (7, 6, 2)),
        (layers.Conv2D(4, (2, 3), strides=(3, 1)), (9, 7, 2)),
        (layers.Conv2D(4, 3, padding="same", groups=2), (5, 5, 2)),
        (layers.Conv3D(3, 2, strides=2), (5, 4, 4, 2)),
    ],
)
def test_decoder_is_the_transposed_layer(layer: keras.layers.Layer, shape: tuple) -> None:
    """The oracle: (W h) · y = h · (Wᵀ y) for all h and y."""
    draw = np.random.default_rng(0).normal
    h = draw(size=(2, *shape)).astype("float32")
    y = draw(size=layer(h).shape).astype("float32")
    activation, layer.activation = layer.activation, None
    forward = ops.convert_to_numpy(layer(h))
    layer.activation = activation
    back = ops.convert_to_numpy(_transposed(layer, y, h))
    assert back.shape == h.shape
    assert np.sum(forward * y) == pytest.approx(np.sum(h * back), rel=1e-4, abs=1e-4)
    assert layer.activation is activation


def test_convolutions() -> None:
    convolutions = [
        layers.Conv2D(8, 3, strides=2, activation="relu", name="a"),
        layers.MaxPooling2D(),
        layers.Conv2D(6, 3, padding="same", activation="elu", name="b"),
        layers.Flatten(),
        layers.Dense(9, "sigmoid", name="c"),
    ]
    model = keras.Sequential([keras.Input((9, 9, 1)), *convolutions, layers.Dense(2)])
    x = np.random.default_rng(0).uniform(size=(64, 9, 9, 1)).astype("float32")
    losses = pretrain(model, np.tile(x, (20, 1, 1, 1)), epochs=5, verbose=0)
    assert [*losses] == ["a", "b", "c"]
    assert all(each[-1] < 0.7 * each[0] and each[-1] < 0.9 for each in losses.values())


def test_changes_hidden_layers_alone() -> None:
    model = network()
    flags = [layer.trainable for layer in model.layers]
    assert changed(model, lambda: pretrain(model, X, epochs=2, verbose=0)) == ["a", "b"]
    assert flags == [layer.trainable for layer in model.layers]
    assert model.compiled
    assert not model.optimizer.built
    assert model.loss == "mse"
    model.fit(X, X[:, :3], verbose=0)
    pretrain(model, X, epochs=1, verbose=0)  # once more
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize(
    ("which", "trained"),
    [(["b"], ["b"]), (["c", "a"], ["a", "c"]), (None, ["a", "b"])],
)
def test_which_layers(which: Any, trained: list[str]) -> None:
    model = network()
    given = which and [model.get_layer(name) for name in which]
    for names in (which, given):
        assert [*pretrain(model, X, epochs=1, layers=names, verbose=0)] == trained


def test_functional_model_with_two_inputs_and_outputs() -> None:
    inputs = {"one": keras.Input((6,), name="one"), "two": keras.Input((3,), name="two")}
    one = layers.Dense(4, "tanh", name="a")(inputs["one"])
    two = layers.Dense(4, "tanh", name="b", trainable=False)(inputs["two"])
    both = layers.Dense(4, "tanh", name="c")(layers.Add()([one, two]))
    outputs = [layers.Dense(2, name="d")(both), layers.Dense(2, name="e")(one)]
    model = keras.Model(inputs, outputs)
    losses = pretrain(model, {"one": X, "two": X[:, :3]}, epochs=1, verbose=0)
    assert [*losses] == ["a", "c"]


class Batches(keras.utils.PyDataset):
    """The rows of X in four batches, with targets."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return X[16 * index : 16 * index + 16], np.zeros(16)


def tf_data() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, np.zeros(64))).batch(16)


@pytest.mark.parametrize("data", [Batches, pytest.param(tf_data, marks=pytest.mark.tensorflow)])
def test_data_in_batches(data: Callable[[], Any]) -> None:
    losses = pretrain(network(), data(), epochs=20, verbose=0)
    assert losses["a"][-1] < 0.5 * losses["a"][0]


def test_denoising_tells_elements_from_the_others() -> None:
    """Of one number in six places, a masked one is known; of six numbers it is not."""
    found = []
    for x in (np.repeat(X[:, :1], 6, axis=1), X):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="a"), layers.Dense(1)])
        options = {"kind": "denoising", "corruption": 0.5, "epochs": 5, "seed": 0, "verbose": 0}
        found.append(pretrain(model, np.tile(x, (20, 1)), **options)["a"][-1])
    assert found[0] < 0.2  # the mean of those left, of variance 1 / 5 where none is: 1 / 64
    assert found[1] == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_seed() -> None:
    def losses(seed: int) -> list[float]:
        keras.utils.set_random_seed(0)
        return pretrain(network(), X, "denoising", epochs=2, seed=seed, verbose=0)["b"]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_reduced_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    losses = pretrain(network(), X, epochs=20, verbose=0)
    assert losses["a"][-1] < 0.5 * losses["a"][0]


@pytest.mark.tensorflow
def test_model_of_a_strategy() -> None:
    weights = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        keras.utils.set_random_seed(0)
        with kerasopt.strategies.DataParallel(devices).scope():
            model = network()
        pretrain(model, X, epochs=3, optimizer="sgd", verbose=0)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_lines(capsys: pytest.CaptureFixture) -> None:
    losses = pretrain(network(), X, epochs=2)["a"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"a (1/2): loss {losses[0]:.4g} → {losses[1]:.4g}"
    assert len(lines) == 2


@pytest.mark.slow
def test_ten_sigmoid_layers_learn_digits() -> None:
    """From random weights, they stay at chance; `examples/deep_sigmoid.py` at full size."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    accuracies = []
    for pretrained in (False, True):
        keras.utils.set_random_seed(0)
        hidden = [layers.Dense(48, "sigmoid") for _ in range(10)]
        model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        if pretrained:
            pretrain(model, x / 16, epochs=3, verbose=0)
        history = model.fit(x / 16, y, epochs=6, verbose=0).history
        accuracies.append(history["accuracy"][-1])
    assert accuracies[0] < 0.15
    assert accuracies[1] > 0.85


@pytest.mark.slow
def test_example_on_fashion_mnist(shared_tfds: Path) -> None:
    path = Path(__file__).parent.parent / "examples" / "deep_sigmoid.py"
    example = runpy.run_path(str(path))
    assert example["accuracy"]("fashion_mnist", pretrained=False, verbose=0) < 0.12
    assert example["accuracy"]("fashion_mnist", pretrained=True, verbose=0) > 0.82


class Subclassed(keras.Model):
    """A model without a graph of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X)
    return model


def softmax() -> keras.Model:
    hidden = layers.Dense(3, "softmax", name="s")
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(2)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "`model` must be a Keras model. Received: model=3"),
        ({"model": keras.Sequential([layers.Dense(2)])}, "`model` must be built.*not built"),
        ({"model": subclassed}, "must be a `Sequential` or functional model.*: Subclassed"),
        ({"model": softmax}, "must have activations that rise .* Received: 's' with .*softmax"),
        (
            {"model": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(2, name="z")])},
            r"must have a trainable `Dense`.* before the output layer. Received: \['z'\]",
        ),
        ({"kind": "rbm"}, r"`kind` must be one of \['autoencoder', 'denoising'\]"),
        ({"epochs": 0}, "`epochs` must be an integer ≥ 1. Received: epochs=0"),
        ({"kind": "denoising", "corruption": 1}, r"`corruption` must be a number in \(0, 1\)"),
        ({"seed": 1.5}, "`seed` must be an integer ≥ 0. Received: seed=1.5"),
        ({"verbose": -1}, "`verbose` must be an integer ≥ 0"),
        ({"layers": ["d"]}, r"`layers` must be .*, or their names. Received: \['d'\]; .*'a', 'b"),
        ({"layers": ["n"]}, r"`layers` must be trainable `Dense`.* Received: \['n'\]"),
        ({"layers": []}, r"`layers` must be trainable .* Received: \[\]"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    model = arguments.get("model", network)
    model = model() if callable(model) and not isinstance(model, keras.Model) else model
    with pytest.raises((TypeError, ValueError), match=message):
        pretrain(**{"x": X, "verbose": 0, **arguments, "model": model})
