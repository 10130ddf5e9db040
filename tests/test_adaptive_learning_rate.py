"""`AdaptiveLearningRate` from rates that are far too low and too high."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay

import kerasopt
from kerasopt.callbacks import AdaptiveLearningRate
from kerasopt.callbacks._direction import cosines
from kerasopt.callbacks._pace import Pace
from tests.contract.cases import dense_model

TOLERANCE = 1e-6  # of the loss, times the first


class Quadratic:
    """J(w) = ‖X w‖² / n with a Hessian of eigenvalues from 2 to 2 κ, and where it starts."""

    def __init__(self, kappa: float, rotated: bool = False, dimension: int = 8) -> None:
        random = np.random.default_rng(0)
        self.eigenvalues = np.geomspace(1, kappa, dimension)
        basis = np.eye(dimension)
        if rotated:
            basis = np.linalg.qr(random.normal(size=(dimension, dimension)))[0]
        x = np.sqrt(dimension * self.eigenvalues)[:, None] * basis
        self.x, self.y = x.astype("float32"), np.zeros((dimension, 1), "float32")
        self.start = random.normal(size=(dimension, 1)).astype("float32")

    def model(self, rate: Any, wrap: Any = lambda optimizer: optimizer) -> keras.Model:
        layers = [keras.Input(self.y.shape[:1]), keras.layers.Dense(1, use_bias=False)]
        model = keras.Sequential(layers)
        model.set_weights([self.start])
        model.compile(wrap(keras.optimizers.SGD(rate)), "mse")
        return model

    def loss(self, w: np.ndarray) -> float:
        return float(np.mean(np.square(self.x @ w)))

    def best_rate(self) -> tuple[float, int]:
        """Return the best constant rate and its number of steps."""
        rates = np.linspace(0.3, 1, 71) / self.eigenvalues.max()
        steps = [self.steps(rate) for rate in rates]
        return float(rates[np.argmin(steps)]), min(steps)

    def steps(self, rate: float) -> int:
        w, count = self.start.astype("float64"), 0
        while self.loss(w) > TOLERANCE * self.loss(self.start) and count < 9999:
            w, count = w - rate * 2 * self.x.T @ (self.x @ w) / len(self.x), count + 1
        return count


class Until(keras.callbacks.Callback):
    """Stops where the loss is low enough."""

    def __init__(self, loss: float) -> None:
        super().__init__()
        self.loss = loss

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.model.stop_training = logs["loss"] < self.loss


def fit(problem: Quadratic, model: keras.Model, *callbacks: Any, epochs: int = 1) -> dict:
    arguments = {"batch_size": len(problem.x), "shuffle": False, "verbose": 0}
    return model.fit(
        problem.x, problem.y, epochs=epochs, callbacks=list(callbacks), **arguments
    ).history


@pytest.mark.parametrize("factor", [0.01, 1, 10])
@pytest.mark.parametrize(
    ("mode", "kappa", "rotated"),
    [("weights", 10, True), ("weights", 100, False), ("loss", 10, True)],
)
def test_quadratic(mode: str, kappa: float, rotated: bool, factor: float) -> None:
    """From any of these rates in less than twice the steps of the best constant rate."""
    problem = Quadratic(kappa, rotated)
    rate, steps = problem.best_rate()
    callbacks = [AdaptiveLearningRate(mode), Until(TOLERANCE * problem.loss(problem.start))]
    losses = fit(problem, problem.model(factor * rate), *callbacks, epochs=2 * steps)["loss"]
    assert losses[-1] < TOLERANCE * losses[0]


@pytest.mark.parametrize("mode", ["weights", "loss"])
def test_survives_divergence_within_an_epoch(mode: str) -> None:
    problem = Quadratic(10)
    rate, _ = problem.best_rate()
    model = problem.model(10 * rate)
    many = np.tile(problem.x, (100, 1)), np.tile(problem.y, (100, 1))
    adaptive = AdaptiveLearningRate(mode)
    arguments = {"batch_size": 8, "shuffle": False, "epochs": 12, "verbose": 0}
    losses = model.fit(*many, callbacks=[adaptive], **arguments).history["loss"]
    assert not np.isfinite(losses[0])
    assert losses[-1] < TOLERANCE * problem.loss(problem.start)
    assert adaptive.events[0] == (1, "back, rate × 0.7")


@pytest.mark.parametrize("rate", [1e30, CosineDecay(1e30, 100)])
def test_goes_back_to_the_bit(rate: Any, digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(rate, momentum=0.9))
    before = model.get_weights()
    model.fit(*digits, verbose=0, callbacks=[AdaptiveLearningRate()])
    for ours, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert model.optimizer.iterations.numpy() == 0
    assert all(not np.any(m.numpy()) for m in model.optimizer.momentums)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.7e30)


def test_pace() -> None:
    pace = Pace(up=1.05, down=0.7, acceleration=3)
    rises = np.log([pace.rise() for _ in range(4)]) / np.log(1.05)
    falls = np.log([pace.fall() for _ in range(4)]) / np.log(0.7)
    again = np.log([pace.rise() for _ in range(10)]) / np.log(1.05)
    np.testing.assert_allclose(rises, [1, 2, 3, 3])
    np.testing.assert_allclose(falls, [1, 2, 3, 3])
    np.testing.assert_allclose(again, [1] * 9 + [2])  # 1.05⁸ > 1 / 0.7


def test_cosines_by_hand() -> None:
    random = np.random.default_rng(0)
    shapes = ((3, 2), (2,), (2, 4))
    update, last = ([random.normal(size=shape).astype("float32") for shape in shapes] for _ in "ab")
    joined = [[np.concatenate([a.ravel(), b.ravel()]), c.ravel()] for a, b, c in (update, last)]
    expected = [
        new @ old / np.linalg.norm(new) / np.linalg.norm(old)
        for new, old in zip(*joined, strict=True)
    ]
    tensors = [[keras.ops.convert_to_tensor(each) for each in part] for part in (update, last)]
    np.testing.assert_allclose(cosines(*tensors, np.array([0, 0, 1])), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rate", "factors"),
    [(0.1, [1, 1.05, 1.05**2, 1.05**3]), (0.9, [1, 0.7, 1, 0.7**2]), (0.6, [1, 0.7, 1, 1.05])],
)
def test_steady_and_oscillating(rate: float, factors: list[float]) -> None:
    """Along one axis, w ← (1 - 2 η) w; after a fall the next way is compared with none."""
    problem = Quadratic(1, dimension=1)
    rates = fit(problem, problem.model(rate), AdaptiveLearningRate(), epochs=5)["learning_rate"]
    np.testing.assert_allclose(np.divide(rates[1:], rates[:-1]), factors, rtol=1e-5)


@pytest.mark.parametrize("mode", ["weights", "loss"])
def test_a_first_batch_that_is_easy(mode: str) -> None:
    """Its loss is below that of any epoch: the rate does not fall for ever."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = np.concatenate([np.zeros((8, 1)), x[8:].sum(axis=1, keepdims=True) + 1])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    arguments = {"batch_size": 8, "epochs": 40, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, callbacks=[AdaptiveLearningRate(mode)], **arguments).history
    assert history["learning_rate"][-1] > 0.01
    assert history["loss"][-1] < 0.2 * history["loss"][0]


@pytest.mark.parametrize("seed", range(5))
def test_first_epoch_at_a_low_rate_is_kept(seed: int) -> None:
    """Its loss is above that of its first batch for some orders of the rows."""
    keras.utils.set_random_seed(seed)
    x = np.random.default_rng(0).normal(size=(44, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
    adaptive = AdaptiveLearningRate()
    model.fit(x, 2 * x[:, :1] + 1, batch_size=8, verbose=0, callbacks=[adaptive])
    assert adaptive.events == []


def test_limits_and_schedule() -> None:
    problem = Quadratic(10)
    limits = {"min_learning_rate": 0.01, "max_learning_rate": 0.02}
    model = problem.model(CosineDecay(0.015, 10**6))
    rates = fit(problem, model, AdaptiveLearningRate(**limits), epochs=12)["learning_rate"]
    assert max(rates) == pytest.approx(0.02, rel=1e-3)
    rates = fit(problem, problem.model(0.2), AdaptiveLearningRate(**limits), epochs=12)
    assert rates["learning_rate"][-1] >= 0.01 * (1 - 1e-6)


def test_every_so_many_batches(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(1e-3), steps_per_execution=2)
    adaptive = AdaptiveLearningRate(every=4, acceleration=1)
    same = [np.concatenate([part[:8]] * 16) for part in digits]
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    rates = model.fit(*same, callbacks=[adaptive], **arguments).history["learning_rate"]
    np.testing.assert_allclose(rates, [1e-3 * 1.05**3, 1e-3 * 1.05**7], rtol=1e-5)


@pytest.mark.parametrize(("execution", "epochs"), [(1, [2.4, 4.8, 7.2]), (4, [2.8, 4.8, 7.8])])
def test_batches_are_counted_over_short_epochs(execution: int, epochs: list[float]) -> None:
    model = dense_model(keras.optimizers.SGD(0.0), steps_per_execution=execution)
    x, y = np.zeros((40, 8, 8, 1)), np.zeros(40)
    hopeless = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: logs.update(given=np.inf)
    )
    adaptive = AdaptiveLearningRate(every=12, monitor="given")
    model.fit(x, y, batch_size=8, epochs=8, verbose=0, callbacks=[hopeless, adaptive])
    assert [event.epoch for event in adaptive.events] == pytest.approx(epochs)


class TwoSpeeds(keras.Model):
    """Two layers of one weight, whose second derivatives differ by a hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.steep = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        self.flat = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")

    def build(self, shape: Any) -> None:
        self.steep.build((None, 1))
        self.flat.build((None, 1))

    def call(self, x: Any) -> Any:
        return keras.ops.concatenate([10 * self.steep(x), self.flat(x)], axis=-1)


def test_each_layer_finds_its_rate() -> None:
    """J = (100 w² + v²) / 2: the layers oscillate beyond 1 / 100 and 1."""
    model = TwoSpeeds()
    model.build((None, 1))
    inner = keras.optimizers.SGD(0.018)
    model.compile(kerasopt.optimizers.LayerwiseLearningRate(inner), "mse")
    x, y = np.ones((2, 1)), np.zeros((2, 2))
    adaptive = AdaptiveLearningRate(per_layer=True)
    losses = model.fit(x, y, epochs=60, verbose=0, callbacks=[adaptive]).history["loss"]
    steep, flat = model.optimizer.multipliers.values()
    assert steep < 1 < 20 < flat
    assert losses[-1] < 1e-6
    assert float(inner.learning_rate) == pytest.approx(0.018)


@pytest.mark.parametrize("mode", ["weights", "loss"])
def test_resumed_as_if_not_broken_off(mode: str) -> None:
    problem = Quadratic(10)
    rates, weights = [], []
    for parts in ((20,), (9, 11)):
        model, state, log = problem.model(0.01), None, []
        for epochs in parts:
            adaptive = AdaptiveLearningRate(mode)
            if state:
                adaptive.set_state(state)
                model.optimizer.learning_rate = 0.5  # what a new process may find
            log += fit(problem, model, adaptive, epochs=epochs)["learning_rate"]
            state = adaptive.get_state()
        rates.append(log)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(*rates, rtol=1e-6)
    np.testing.assert_allclose(*weights, rtol=1e-5)


def test_goes_on_with_its_model_and_begins_anew_with_another() -> None:
    problem, adaptive = Quadratic(10), AdaptiveLearningRate()
    model = problem.model(1e-3)
    for epochs in (5, 1, 1):
        rates = fit(problem, model, adaptive, epochs=epochs)["learning_rate"]
    assert rates[0] == pytest.approx(1e-3 * 1.05 ** (1 + 2 + 3 + 4 + 5))
    other = fit(problem, problem.model(1e-3), adaptive, epochs=3)["learning_rate"]
    np.testing.assert_allclose(other, [1e-3, 1e-3, 1.05e-3], rtol=1e-5)


def test_prints_falls(capsys: pytest.CaptureFixture) -> None:
    problem = Quadratic(10)
    fit(problem, problem.model(1.0), AdaptiveLearningRate(verbose=1), epochs=2)
    assert "Epoch 2: back, rate × 0.7" in capsys.readouterr().out


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["weights", "loss"])
def test_under_a_strategy(mode: str) -> None:
    problem, losses = Quadratic(10), []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        with kerasopt.strategies.DataParallel(devices).scope():
            model = problem.model(0.5)
        losses.append(fit(problem, model, AdaptiveLearningRate(mode), epochs=15)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_refused_when_training_begins(digits: tuple) -> None:
    plain = dense_model("sgd")
    cases = (
        (plain, AdaptiveLearningRate(per_layer=True), "`per_layer=True` needs an optimizer that"),
        (plain, AdaptiveLearningRate(monitor="val_loss"), "`monitor` must be a value that `fit`"),
        (dense_model(keras.optimizers.SGD(lambda: 0.1)), AdaptiveLearningRate(), "a function in"),
    )
    for model, adaptive, message in cases:
        with pytest.raises(ValueError, match=message):
            model.fit(*digits, verbose=0, callbacks=[adaptive])
    both = [AdaptiveLearningRate(), keras.callbacks.ReduceLROnPlateau()]
    with pytest.raises(ValueError, match="one callback that sets the learning rate"):
        plain.fit(*digits, verbose=0, callbacks=both)
    lazy = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    lazy.compile("sgd", plain.loss)
    adaptive = AdaptiveLearningRate()
    adaptive.set_model(lazy)
    with pytest.raises(ValueError, match="must be built before `fit` with `AdaptiveLearningRate`"):
        adaptive.on_train_begin()


@pytest.fixture(scope="module")
def clothes(shared_tfds: Path) -> tuple[Any, Any]:
    """10,000 images of Fashion-MNIST to train on, and its test set."""
    import tensorflow_datasets as tfds

    splits = ("train[:10000]", "test")
    arguments = {"batch_size": -1, "as_supervised": True, "data_dir": shared_tfds}
    return tuple(
        (np.asarray(images, "float32") / 255, np.asarray(labels))
        for images, labels in tfds.load("fashion_mnist", split=splits, **arguments)
    )


@pytest.mark.slow
@pytest.mark.tensorflow
def test_fashion_mnist(clothes: tuple) -> None:
    """A network of 64 units with Adam, whose rate is tuned on 3e-4, 1e-3 and 3e-3."""
    accuracies = []
    for rate, callbacks in (
        *((rate, []) for rate in (3e-4, 1e-3, 3e-3)),
        *((factor * 1e-3, [AdaptiveLearningRate()]) for factor in (0.01, 10)),
    ):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(*clothes[0], batch_size=64, epochs=25, verbose=0, callbacks=callbacks)
        accuracies.append(model.evaluate(*clothes[1], verbose=0)[1])
    assert min(accuracies[3:]) > max(accuracies[:3]) - 0.01
