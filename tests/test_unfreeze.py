"""`Unfreeze`: frozen layers stay to the last bit, others go on as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasopt
from kerasopt.callbacks import AdaptiveLearningRate, GradientMonitor, Resume, Unfreeze
from tests.contract.cases import A_FEW, OPTIMIZERS, Case, rows

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :2] ** 2


class Weights(keras.callbacks.Callback):
    """Takes down the weights of each layer before each epoch, and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        every = self.model._flatten_layers(include_self=False)
        inner = [each for each in every if not any(each._flatten_layers(include_self=False))]
        self.seen.append([(each.name, each.get_weights()) for each in inner if each.weights])

    def on_train_end(self, logs: Any = None) -> None:
        self.on_epoch_begin(0)

    @property
    def trained(self) -> list[str]:
        """The names of the layers that changed, of each epoch, in order of the alphabet."""
        return [
            " ".join(
                sorted(
                    name
                    for (name, old), (_, new) in zip(before, after, strict=True)
                    if any((a != b).any() for a, b in zip(old, new, strict=True))
                )
            )
            for before, after in zip(self.seen, self.seen[1:], strict=False)
        ]


def network(optimizer: Any = None, **arguments: Any) -> keras.Model:
    """Three layers: a, b, c; the upper two in a nested model."""
    keras.utils.set_random_seed(0)
    dense = [layers.Dense(4, "tanh", name=name) for name in "ab"]
    upper = keras.Sequential([keras.Input((4,)), dense[1], layers.Dense(2, name="c")], name="upper")
    model = keras.Sequential([keras.Input((4,)), dense[0], upper])
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), "mse", **arguments)
    return model


def train(model: keras.Model, schedule: dict, epochs: int = 3, **arguments: Any) -> list[str]:
    """Return what was trained in each epoch."""
    weights = Weights()
    callbacks = [weights, Unfreeze(schedule)]
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)
    return weights.trained


@pytest.mark.parametrize(
    ("schedule", "trained"),
    [
        ({1: "b", 2: "a"}, ["c", "b c", "a b c"]),
        ({2: "a|b"}, ["c", "c", "a b c"]),
        ({1: ["c", "a"]}, ["b", "a b c", "a b c"]),
        ({2: "upper"}, ["a", "a", "a b c"]),
        ({2: ["upper", "a"], 1: "c"}, ["", "c", "a b c"]),
        ({0: 1, 1: 2, 2: 3}, ["c", "b c", "a b c"]),
        ({0: "a"}, ["a b c"] * 3),
    ],
)
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_which_layers_are_trained(schedule: dict, trained: list[str]) -> None:
    assert train(network(), schedule) == trained


def test_layers_themselves_and_events() -> None:
    model = network()
    unfreeze, weights = Unfreeze({0: "c", 1: [model.layers[0]], 3: model.layers[1]}), Weights()
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[unfreeze, weights])
    assert weights.trained == ["c", "a c", "a c", "a b c"]
    assert [tuple(event) for event in unfreeze.events] == [(1, "unfreeze a"), (3, "unfreeze upper")]


def momentum_by_hand(starts: list[int], epochs: int) -> list[np.ndarray]:
    """The oracle: w ← w + v, v ← 0.9 v - 0.1 g, of two factors of y = x a b, from their epochs."""
    a, b, v = np.float64(0.5), np.float64(-0.5), np.zeros(2)
    for epoch in range(epochs):
        error = 2 * (X[:, 0] * a * b - Y[:, 0]) * X[:, 0]
        gradients = (error * b).mean(), (error * a).mean()
        on = np.array([epoch >= start for start in starts])
        v = np.where(on, 0.9 * v - 0.1 * np.array(gradients), v)
        a, b = np.array([a, b]) + on * v
    return [a, b]


@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 2}])
def test_momentum_is_kept(arguments: dict) -> None:
    factors = [layers.Dense(1, use_bias=False, name=name) for name in "ab"]
    model = keras.Sequential([keras.Input((1,)), *factors])
    model.set_weights([np.full((1, 1), 0.5), np.full((1, 1), -0.5)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", **arguments)
    callbacks = [Unfreeze({4: "a"})]
    model.fit(X[:, :1], Y[:, :1], batch_size=16, epochs=9, verbose=0, callbacks=callbacks)
    found = [weight.ravel()[0] for weight in model.get_weights()]
    np.testing.assert_allclose(found, momentum_by_hand([4, 0], 9), rtol=1e-5)


REFUSED = ("StochasticDiagonalLM", "AdaHessian", "Sophia", "Newton", "NewtonCG", "LBFGS")


@rows(
    *(case for case in OPTIMIZERS if case.constructor.__name__ not in REFUSED),
    quick=(*A_FEW, "SAM"),
)
def test_every_optimizer_that_treats_weights_by_themselves(case: Case) -> None:
    model = network(case.make())
    if case.objective:
        kerasopt.prepare(model)
    assert train(model, {1: "b", 2: "a"}) == ["c", "b c", "a b c"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_reduced_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    assert train(network(), {1: "b", 2: "a"}) == ["c", "b c", "a b c"]


@pytest.mark.parametrize("arguments", [{"gradient_accumulation_steps": 2}, {"weight_decay": 0.1}])
def test_what_keras_adds_to_optimizers(arguments: dict) -> None:
    optimizer = keras.optimizers.Adam(0.01, **arguments)
    assert train(network(optimizer), {1: "b", 2: "a"}) == ["c", "b c", "a b c"]


@pytest.mark.tensorflow
def test_under_a_strategy() -> None:
    weights = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        with kerasopt.strategies.DataParallel(devices).scope():
            model = network()
        assert train(model, {1: "b", 2: "a"}) == ["c", "b c", "a b c"]
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_batch_normalisation_is_frozen_too() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(name="n"), layers.Dense(2, name="c")]
    )
    model.compile("sgd", "mse")
    assert train(model, {1: "n"}, 2) == ["c", "c n"]


def test_validation_sees_the_weights_that_are_there() -> None:
    """On JAX, Keras' functions know the weights by their places."""
    model, seen = network(), []
    model.evaluate(X, Y, verbose=0)  # compiled with all layers trainable
    loss = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            (logs["val_loss"], float(np.mean((ops.convert_to_numpy(model(X)) - Y) ** 2)))
        )
    )
    model.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[
        Unfreeze({1: "c", 2: "a"}), loss,
    ])  # fmt: skip
    ours, by_hand = np.transpose(seen)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X), rtol=1e-5, atol=1e-6)


def test_trainable_afterwards_and_trains_on() -> None:
    model = network()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 0)
    )
    model.fit(X, Y, epochs=5, verbose=0, callbacks=[Unfreeze({3: "a"}), stop])
    assert all(layer.trainable for layer in model._flatten_layers())
    weights = Weights()
    model.fit(X, Y, verbose=0, callbacks=[weights])
    assert weights.trained == ["a b c"]
    assert train(model, {1: "a"}) == ["b c", "a b c", "a b c"]  # again, by the same optimizer


@pytest.mark.parametrize("end", [1, 2])
def test_goes_on_where_it_was(end: int, tmp_path: Any) -> None:
    class Killed(BaseException):
        pass

    def kill(epoch: int, logs: Any) -> None:
        if epoch == end:
            raise Killed

    weights = []
    for folder, breaks in (("whole", [False]), ("broken", [True, False])):
        for broken in breaks:
            callbacks = [Unfreeze({2: "a"}), Resume(tmp_path / folder)]
            if broken:
                callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=kill))
            model = network()
            try:
                model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
            except Killed:
                continue
        weights.append(model.get_weights())
    for whole, broken in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, broken)


def test_initial_epoch() -> None:
    assert train(network(), {1: "b", 3: "a"}, 4, initial_epoch=2) == ["b c", "a b c"]


def frozen() -> keras.Model:
    model = network()
    model.layers[0].trainable = False
    model.fit(X, Y, verbose=0)
    return model


def unbuilt() -> keras.Model:
    model = keras.Sequential([layers.Dense(2, name="a")])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("make", "schedule", "message"),
    [
        (network, {1: "d.*"}, r"`schedule` must have layers .* Received: 'd.\*'; there are \['"),
        (network, {1: 4}, r"must have layers of the model that have weights. Received: 4; there"),
        (network, {1: layers.Dense(1, name="e")}, "must have layers .* Received: 'e'"),
        (network, {3: "a"}, r"`schedule` must have epochs that `fit` .*: 3, where epochs=3"),
        (frozen, {1: "a"}, "must be built for all layers .*SGD, built without '.*a/kernel'.*`comp"),
        (lambda: network(keras.optimizers.Adam(use_ema=True)), {1: "a"}, "must not average"),
        (lambda: network(kerasopt.optimizers.LBFGS()), {1: "a"}, "by itself .* Received: LBFGS"),
        (lambda: network(kerasopt.optimizers.NewtonCG()), {1: "a"}, "by itself .*: NewtonCG"),
    ],
)
def test_refused_when_training_begins(
    make: Callable[[], keras.Model], schedule: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(make(), schedule)


@pytest.mark.tensorflow  # on JAX `fit` builds it
def test_model_that_is_not_built() -> None:
    with pytest.raises(ValueError, match="must be built before `fit` with `Unfreeze`"):
        train(unbuilt(), {1: "a"})


@pytest.mark.parametrize("other", [GradientMonitor, AdaptiveLearningRate])
def test_callbacks_that_compare_all_weights(other: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=f"compares all weights .* Received: {other.__name__}"):
        network().fit(X, Y, epochs=3, verbose=0, callbacks=[Unfreeze({1: "a"}), other()])
