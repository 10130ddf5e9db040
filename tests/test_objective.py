"""The loss as a function of the weights, and the models that show it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kerasopt
from kerasopt.optimizers import SAM, NewtonCG, ObjectiveOptimizer, StochasticDiagonalLM

layers = keras.layers
random = np.random.default_rng(0)
TENSORFLOW = keras.backend.backend() == "tensorflow"
BODIES: dict[str, Callable[[], list]] = {
    "dense": lambda: [layers.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))],
    "convolution": lambda: [layers.Reshape((6, 1)), layers.Conv1D(3, 3, activation="softplus")],
    "recurrent": lambda: [layers.Reshape((6, 1)), layers.GRU(3)],
    "attention": lambda: [layers.Reshape((3, 2)), attention()],
    "batch normalisation": lambda: [layers.Dense(4), layers.BatchNormalization()],
    "group normalisation": lambda: [layers.Dense(4), layers.GroupNormalization(2)],
    "layer normalisation": lambda: [layers.Dense(4), layers.LayerNormalization()],
    "dropout": lambda: [layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=1)],
    "activity": lambda: [layers.Dense(4, "tanh", activity_regularizer=keras.regularizers.L2(0.1))],
}


def attention() -> keras.Model:
    """Return self-attention over three places."""
    inputs = keras.Input((3, 2))
    return keras.Model(inputs, layers.MultiHeadAttention(1, 2)(inputs, inputs))


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Let each test draw the same numbers, whichever went before it."""
    random.bit_generator.state = np.random.default_rng(0).bit_generator.state


class Probe(ObjectiveOptimizer):
    """Keeps what a function of the objective and the gradient returns."""

    def __init__(self, function: Callable = lambda objective, gradients: [], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.seen: Any = None

    def step(self, objective: Any, gradients: Any) -> Any:
        self.seen = self.function(objective, gradients)
        return [ops.zeros_like(g) for g in gradients]


def two_outputs(body: list) -> keras.Model:
    """Return a model with two outputs of different losses."""
    inputs = x = keras.Input((6,))
    for layer in body:
        x = layer(x)
    x = layers.Flatten()(x)
    return kerasopt.Model(inputs, [layers.Dense(3)(x), layers.Dense(1, "tanh")(x)])


def probe(model: keras.Model, function: Callable) -> tuple[Any, float]:
    """Return what a function of the objective returns in a step, and the loss of that step."""
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Probe(function), [entropy, "mse"], loss_weights=[1.0, 0.5], run_eagerly=True)
    x, weights = random.normal(size=(7, 6)), random.uniform(0.5, 2.0, 7)
    y = [np.arange(7) % 3, random.normal(size=(7, 1))]
    logs = model.train_on_batch(x, y, sample_weight=[weights, weights])
    return model.optimizer.seen, logs[0]


def product(a: list, b: list) -> float:
    return float(sum(np.sum(np.asarray(x) * np.asarray(y)) for x, y in zip(a, b, strict=True)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("body", BODIES)
def test_derivatives(body: str, float64: None) -> None:
    model = two_outputs(BODIES[body]())
    v = [random.normal(size=w.shape) for w in model.trainable_variables]

    def derivatives(objective: Any, gradients: list) -> tuple:
        def shifted(by: float) -> list:
            return [w + by * each for w, each in zip(objective.values, v, strict=True)]

        loss, gradient = objective.loss_and_gradient()
        ahead, behind = objective.gradient(shifted(1e-5)), objective.gradient(shifted(-1e-5))
        difference = [(a - b) / 2e-5 for a, b in zip(ahead, behind, strict=True)]
        slope = (objective.loss(shifted(1e-5)) - objective.loss(shifted(-1e-5))) / 2e-5
        return loss, gradient, gradients, objective.hvp(v), difference, slope

    (loss, gradient, given, curved, difference, slope), reported = probe(model, derivatives)
    assert float(loss) == pytest.approx(reported, rel=1e-6)  # the same dropout, all penalties
    for ours, theirs in zip(gradient, given, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert product(gradient, v) == pytest.approx(float(slope), rel=1e-6)
    for ours, theirs in zip(curved, difference, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("body", BODIES)
def test_gauss_newton_product(body: str, float64: None) -> None:
    model = two_outputs(BODIES[body]())
    v = [random.normal(size=w.shape) for w in model.trainable_variables]

    def products(objective: Any, gradients: list) -> tuple:
        u = [random.normal(size=w.shape) for w in v]
        return objective.gnvp(v), objective.gnvp(u), u

    (of_v, of_u, u), _ = probe(model, products)
    assert product(of_v, u) == pytest.approx(product(of_u, v), rel=1e-9)  # symmetric
    assert product(of_v, v) > 0


@pytest.mark.tensorflow
def test_gauss_newton_of_the_mean_square(float64: None) -> None:
    model = kerasopt.Sequential([layers.Dense(5, "tanh"), layers.Dense(2)])
    x, y = random.normal(size=(8, 3)), random.normal(size=(8, 2))
    model(x)
    v = [random.normal(size=w.shape) for w in model.trainable_variables]
    start = model.get_weights()

    def outputs(by: float) -> np.ndarray:
        model.set_weights([w + by * each for w, each in zip(start, v, strict=True)])
        return model.predict_on_batch(x)

    change = (outputs(1e-5) - outputs(-1e-5)) / 2e-5
    model.set_weights(start)
    probe_it = Probe(lambda objective, gradients: objective.gnvp(v))
    model.compile(probe_it, "mse", run_eagerly=True)
    model.train_on_batch(x, y)
    expected = 2 * np.sum(change**2) / y.size  # vᵀ Jᵀ (2/n) J v
    assert product(probe_it.seen, v) == pytest.approx(expected, rel=1e-7)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_gauss_newton_diagonal(float64: None) -> None:
    model = two_outputs(BODIES["dense"]())
    generator = np.random.default_rng(1)

    def draw(shape: Any) -> np.ndarray:
        return generator.choice([-1.0, 1.0], [int(size) for size in shape])

    def estimates(objective: Any, gradients: list) -> tuple:
        sizes = [int(np.prod(w.shape)) for w in gradients]
        exact = []
        for unit in np.eye(sum(sizes)):
            parts = np.split(unit, np.cumsum(sizes)[:-1])
            v = [part.reshape(w.shape) for part, w in zip(parts, gradients, strict=True)]
            exact.append(product(objective.gnvp(v), v))
        drawn = [objective.gauss_newton_diagonal(draw) for _ in range(400)]
        flat = [np.concatenate([np.asarray(d).ravel() for d in each]) for each in drawn]
        return np.array(exact), np.array(flat)

    (exact, drawn), _ = probe(model, estimates)
    assert drawn.min() >= 0
    assert (drawn.std(axis=0) < 1.7 * exact).all()
    np.testing.assert_allclose(drawn.mean(axis=0), exact, rtol=0.3)
    np.testing.assert_allclose(drawn.mean(axis=0).sum(), exact.sum(), rtol=0.1)


def test_wide_outputs_are_refused() -> None:
    model = kerasopt.Sequential([layers.Dense(65)])
    model.compile(StochasticDiagonalLM(), "mse")
    message = r"at most 64 columns: use 'hutchinson'\. Received: outputs of shape"
    with pytest.raises(ValueError, match=message):
        model.fit(X, np.ones((16, 65)), verbose=0)


def test_moving_statistics_and_seeds_move_once_a_step(digits: tuple) -> None:
    states = []
    for optimizer in (SAM("sgd"), keras.optimizers.SGD()):
        keras.utils.set_random_seed(0)
        body = [layers.Flatten(), layers.BatchNormalization(), layers.Dropout(0.5)]
        model = kerasopt.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        model.train_on_batch(*digits)
        states.append([v.numpy() for v in model.non_trainable_variables])
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Subclassed(kerasopt.Model):
    """A model that is built by its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)


X, Y = random.normal(size=(16, 3)).astype("float32"), np.ones((16, 1), "float32")


def functional() -> keras.Model:
    inputs = keras.Input((3,))
    return kerasopt.Model(inputs, layers.Dense(1)(inputs))


@pytest.mark.parametrize(
    "make",
    [
        functional,
        Subclassed,
        lambda: kerasopt.Sequential([layers.Dense(1)]),
        lambda: kerasopt.prepare(keras.Sequential([layers.Dense(1)])),
    ],
)
def test_models_that_show_their_loss(make: Callable) -> None:
    model = make()
    model.compile(NewtonCG(damping=1e-4), "mse")
    assert model.fit(X, Y, epochs=5, batch_size=16, verbose=0).history["loss"][-1] < 1e-5


@pytest.mark.parametrize("make", [functional, lambda: kerasopt.Sequential([layers.Dense(1)])])
def test_models_are_saved_and_cloned(make: Callable, tmp_path: Path) -> None:
    model = make()
    model.compile(NewtonCG(), "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert type(loaded) is type(model)
    for each in (model, loaded):
        each.fit(X, Y, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_prepared_after_training() -> None:
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.compile(NewtonCG(damping=1e-4), "mse")
    assert kerasopt.prepare(model) is model
    assert model.fit(X, Y, batch_size=16, epochs=5, verbose=0).history["loss"][-1] < 1e-5


def test_not_prepared() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(NewtonCG(), "mse")
    message = r"`NewtonCG` needs the loss function, not only its gradient\. Build the model with `k"
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0)


def test_what_is_not_a_model() -> None:
    with pytest.raises(TypeError, match=r"`model` must be a Keras model\. Received: model=3"):
        kerasopt.prepare(3)


def test_gauss_newton_needs_outputs() -> None:
    w = keras.Variable([1.0])
    objective = kerasopt.Objective(lambda: ops.sum(w * w), [w])
    with pytest.raises(ValueError, match="`outputs` must be given for the Gauss-Newton matrix"):
        objective.gnvp([ops.ones(1)])


def test_a_step_must_be_defined() -> None:
    w = keras.Variable([1.0])
    with (
        kerasopt.Objective(lambda: ops.sum(w * w), [w]) as objective,
        pytest.raises(NotImplementedError, match="`ObjectiveOptimizer` defines no `step`"),
    ):
        ObjectiveOptimizer().apply(objective.gradient(), [w])


@pytest.mark.tensorflow
def test_stock_strategies_are_refused() -> None:
    import tensorflow as tf

    reduction = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduction)
    with strategy.scope():
        model = functional()
        model.compile(SAM("sgd"), "mse")
    with pytest.raises(ValueError, match=r"use those of `kerasopt.strategies`. Received: Mirrored"):
        model.fit(X, Y, verbose=0)


def alternating(shape: Any) -> Any:
    """Return signs that are random enough."""
    places = ops.reshape(ops.arange(math.prod(shape)), shape)
    return ops.where(places * places % 7 < 3, 1.0, -1.0)


class Step(ObjectiveOptimizer):
    """Steps along a product."""

    def __init__(self, method: str) -> None:
        super().__init__(0.01)
        self.method = method

    def step(self, objective: Any, gradients: Any) -> Any:
        if self.method == "gauss_newton_diagonal":
            return objective.gauss_newton_diagonal(alternating)
        ahead = objective.gradient([w + 0.1 for w in objective.values])
        return getattr(objective, self.method)([a * objective.loss() for a in ahead])


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("method", ["hvp", "gnvp", "gauss_newton_diagonal"])
def test_products_are_of_the_whole_batch(method: str, float64: None) -> None:
    import contextlib

    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1", "CPU:2"])
    x, y = random.normal(size=(11, 6)), random.normal(size=(11, 1))
    ends = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        keras.utils.set_random_seed(0)
        with scope:
            body = [layer for name in ("dense", "batch normalisation") for layer in BODIES[name]()]
            body += [layers.Dropout(0.3), layers.ActivityRegularization(0.1), layers.Dense(1)]
            model = kerasopt.Sequential([keras.Input((6,)), *body])
            model.compile(Step(method), "mse", steps_per_execution=2)
        weights = np.linspace(0.5, 2.0, 11)
        model.fit(x, y, 4, sample_weight=weights, epochs=2, shuffle=False, verbose=0)
        ends.append(np.concatenate([w.numpy().ravel() for w in model.weights]))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-10)


def test_a_step_of_ones_own_is_refused() -> None:
    class Own(kerasopt.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.dense = layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, *arguments: Any) -> Any:
            return super().train_step(*arguments)

    model = Own()
    model.compile(kerasopt.optimizers.SAM("sgd"), "mse")
    with pytest.raises(TypeError, match=r"must keep Keras' `train_step` .* Received: Own, which"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)


def test_classes_that_hand_inputs_on_are_refused() -> None:
    class Own(kerasopt.Model):
        def __init__(self) -> None:
            inputs = keras.Input((2,))
            super().__init__(inputs, layers.Dense(1)(inputs))

    with pytest.raises(TypeError, match=r"derived from `kerasopt.Model` .* Received: Own"):
        Own()


def test_gauss_newton_diagonal_needs_columns() -> None:
    outputs = layers.Reshape(())(layers.Dense(1)(inputs := keras.Input((3,))))
    model = kerasopt.Model(inputs, outputs)
    model.compile(kerasopt.optimizers.StochasticDiagonalLM(), "mse")
    with pytest.raises(ValueError, match=r"needs outputs with a last axis .* Received: outputs of"):
        model.fit(np.ones((4, 3)), np.ones(4), verbose=0)


def test_newton_cg_can_go_on_where_it_has_converged() -> None:
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    model = kerasopt.Sequential([keras.layers.Dense(1)])
    model.compile(NewtonCG(), "mse")
    model.fit(x, x @ [[1.0], [2.0], [3.0]], batch_size=32, epochs=60, verbose=0)
    again = model.fit(x, x @ [[-3.0], [1.0], [0.0]], batch_size=32, epochs=20, verbose=0)
    assert again.history["loss"][-1] < 1e-6 * again.history["loss"][0]


def test_sam_takes_a_scaled_loss_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    ends = []
    for scale in (None, 8.0):
        keras.utils.set_random_seed(0)
        model = kerasopt.Sequential([keras.layers.Dense(1)])
        model.compile(SAM(keras.optimizers.SGD(0.1, loss_scale_factor=scale)), "mse")
        model.fit(x, x @ [[1.0], [2.0], [3.0]], shuffle=False, epochs=3, verbose=0)
        ends.append(model.get_weights())
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-5)
