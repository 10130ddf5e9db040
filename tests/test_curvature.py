"""`kerasopt.curvature` against dense matrices by autodiff, quadratics and SciPy."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.sparse.linalg import cg, eigsh

import kerasopt
from kerasopt import curvature
from kerasopt.callbacks import CurvatureMonitor
from kerasopt.curvature import Curvature
from tests.contract.cases import dense_model

layers = keras.layers
TENSORFLOW = keras.backend.backend() == "tensorflow"
ROWS = 7


def entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(*body: Any) -> keras.Model:
    """Return a small classifier of vectors of six numbers, with a penalty."""
    keras.utils.set_random_seed(0)
    top = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.01), name="top")
    return keras.Sequential([keras.Input((6,)), *body, layers.Flatten(), top])


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "dense": lambda: network(layers.Dense(5, "tanh", name="bottom"), layers.Dropout(0.5)),
    "normalised": lambda: network(layers.Dense(5, "tanh"), layers.BatchNormalization()),
    "convolution": lambda: network(layers.Reshape((6, 1)), layers.Conv1D(2, 3, activation="gelu")),
    "recurrent": lambda: network(layers.Reshape((6, 1)), layers.GRU(3, unroll=True)),
}


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(ROWS, 6)), np.arange(ROWS) % 3, random.uniform(0.5, 2, ROWS)


def by_autodiff(model: keras.Model) -> np.ndarray:
    """Return the dense Hessian, by the backend's own means."""
    x, y, weights = data()
    variables = model.trainable_variables
    shapes = [tuple(v.shape) for v in variables]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])

    def loss(vector: Any) -> Any:
        spans = zip(ends[:-1], ends[1:], shapes, strict=True)
        parts = [keras.ops.reshape(vector[a:b], shape) for a, b, shape in spans]
        scope = zip(variables, parts, strict=True)
        with keras.StatelessScope(list(scope), collect_losses=True):
            z = model(keras.ops.cast(x, keras.config.floatx()), training=False)
            return entropy()(y, z, sample_weight=weights) + sum(model.losses)

    flat = np.concatenate([np.ravel(v.numpy()) for v in variables])
    if not TENSORFLOW:
        import jax

        return np.asarray(jax.jit(jax.hessian(loss))(flat))
    import tensorflow as tf

    @tf.function
    def twice(at: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(at)
            with tf.GradientTape() as inner:
                inner.watch(at)
                value = loss(at)
            gradient = inner.gradient(value, at)
        return outer.jacobian(gradient, at, experimental_use_pfor=False)

    return twice(tf.constant(flat)).numpy()


def options(**more: Any) -> dict[str, Any]:
    x, y, weights = data()
    return {"x": x, "y": y, "sample_weight": weights, "loss": entropy(), **more}


@pytest.fixture
def precise() -> Any:
    """Let Keras compute in float64 where it can; return the allowed relative error."""
    if not TENSORFLOW:
        yield 2e-5
        return
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield 1e-9
    keras.config.set_floatx("float32")


def near(actual: Any, expected: Any, tolerance: float) -> None:
    """Compare with an error that is relative to the largest element."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


on_tensorflow = pytest.mark.tensorflow


@pytest.mark.parametrize(
    "name",
    [
        "dense",
        pytest.param("normalised", marks=on_tensorflow),
        pytest.param("convolution", marks=on_tensorflow),
        pytest.param("recurrent", marks=[on_tensorflow, pytest.mark.slow]),
    ],
)
def test_all_against_the_dense_matrix(name: str, precise: float) -> None:
    model = NETWORKS[name]()
    expected = by_autodiff(model)
    c = Curvature(model, **options(batch_size=3))
    n, v = c.size, np.random.default_rng(1).normal(size=c.size)
    values = np.linalg.eigvalsh(expected)[::-1]
    near(curvature.hvp(c, v), expected @ v, precise)
    near(curvature.hessian(c), expected, precise)
    found = curvature.eigenvalues(c, k=3, which="both", vectors=True)
    near(found.values, values[[0, 1, 2, -3, -2, -1]], max(precise, 1e-7))
    near(expected @ found.vectors.T, found.vectors.T * found.values, 1e-3)
    near(float(curvature.trace(c, samples=n)), np.trace(expected), 10 * precise)
    near(c.join(curvature.diagonal(c, samples=n)), np.diag(expected), precise)


def linear(outputs: int = 1, **arguments: Any) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Return a linear network, inputs, and its Hessian for the mean square: a quadratic's."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(outputs, use_bias=False, **arguments)]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(20, 6)) * [3, 2, 1, 1, 0.5, 0.2]
    return model, x, np.kron(2 / (20 * outputs) * x.T @ x, np.eye(outputs))


def test_quadratic() -> None:
    model, x, expected = linear()
    c = Curvature(model, x, np.zeros((20, 1)))
    values = np.linalg.eigvalsh(expected)
    condition, rates = curvature.condition_number(c), curvature.optimal_learning_rate(c)
    assert float(condition) == pytest.approx(values[-1] / values[0], rel=1e-4)
    assert float(rates) == pytest.approx(1 / values[-1], rel=1e-5)
    assert rates.limit == 2 * rates.optimal
    near(curvature.hessian(c, kind="gauss_newton"), expected, 1e-6)


def test_eigenvalues_that_are_there_several_times() -> None:
    model, x, expected = linear(outputs=40)
    found = curvature.eigenvalues(model, x, np.zeros((20, 40)), k=16)
    assert found.converged
    assert found.products < len(expected)
    near(found.values, np.full(16, np.linalg.eigvalsh(expected)[-1]), 1e-6)
    assert str(found).endswith(f"\nconverged after {found.products} products")


def test_layers_as_in_training() -> None:
    c = Curvature(NETWORKS["dense"](), **options(training=True))
    v = np.ones((2, c.size))
    first = c.products(v)
    np.testing.assert_array_equal(c.products(v), first)  # the same units are dropped
    other = Curvature(NETWORKS["dense"](), **options()).products(v)
    assert np.abs(first - other).max() > 1e-3


def test_too_few_products() -> None:
    model, x, _ = linear()
    found = curvature.eigenvalues(model, x, np.zeros((20, 1)), k=2, max_products=3)
    assert not found.converged
    assert "NOT converged after 3 products" in str(found)


def test_gauss_newton_of_the_mean_square(precise: float) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    x, _, weights = data()
    c = Curvature(model, x, np.zeros((ROWS, 3)), "mse", weights)
    shift, v = 1e-5 if TENSORFLOW else 1e-2, np.random.default_rng(1).normal(size=c.size)
    start = model.get_weights()
    outputs = []
    for side in (1, -1):
        ahead = [w + side * shift * part for w, part in zip(start, c.split(v), strict=True)]
        model.set_weights(ahead)
        outputs.append(model.predict_on_batch(x))
    model.set_weights(start)
    change = (outputs[0] - outputs[1]) / (2 * shift)
    expected = np.sum(2 / change.size * weights[:, None] * change**2)
    assert v @ curvature.ggnvp(c, v) == pytest.approx(expected, rel=1e-7 if TENSORFLOW else 1e-3)
    parts = curvature.ggnvp(c, c.split(v))
    near(c.join(parts), curvature.ggnvp(c, v), 1e-6)


def as_pairs() -> Any:
    x, y, weights = data()
    return iter([(x[rows], y[rows], weights[rows]) for rows in (slice(0, 5), slice(5, 7))])


class Pairs(keras.utils.PyDataset):
    """The data in two batches."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return list(as_pairs())[index]


def as_dataset() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data()).batch(3)


@pytest.mark.parametrize("make", [as_pairs, Pairs, pytest.param(as_dataset, marks=on_tensorflow)])
def test_any_data_and_the_compiled_loss(make: Callable[[], Any]) -> None:
    model = NETWORKS["dense"]()
    model.compile("sgd", entropy())
    whole, batches = Curvature(model, **options(loss=None)), Curvature(model, make())
    x, y, weights = data()
    reported = model.evaluate(x, y, sample_weight=weights, verbose=0)
    assert whole.loss() == pytest.approx(reported, rel=1e-6)
    assert batches.loss() == pytest.approx(reported, rel=1e-6)
    near(batches.gradient(), whole.gradient(), 1e-6)


def test_layer() -> None:
    model = NETWORKS["dense"]()
    whole = curvature.hessian(model, **options())
    for layer in ("top", model.get_layer("top"), ["top"]):
        c = Curvature(model, **options(layer=layer))
        near(curvature.hessian(c), whole[-c.size :, -c.size :], 1e-5)
    both = Curvature(model, **options(layer=["top", "bottom"]))
    assert [w.path for w in both.weights] == [w.path for w in model.trainable_variables]
    rates = curvature.optimal_learning_rate(
        both, per_layer=True, per_weight=True, samples=both.size
    )
    highest = np.linalg.eigvalsh(whole[-c.size :, -c.size :])[-1]
    assert rates.layers["top"] == pytest.approx(1 / highest, rel=1e-4)
    h = np.diag(whole)
    expected = np.where(h > 0, 1 / np.where(h > 0, h, 1), np.inf)
    np.testing.assert_allclose(both.join(rates.weights), expected, rtol=1e-2)
    assert "top" in str(rates)


def test_it_follows_the_weights_and_leaves_the_model() -> None:
    model = NETWORKS["normalised"]()
    c = Curvature(model, **options())
    before = [v.numpy() for v in model.variables]
    first = c.products(np.eye(1, c.size))
    assert all(np.array_equal(v.numpy(), b) for v, b in zip(model.variables, before, strict=True))
    model.set_weights([0.9 * w for w in model.get_weights()])
    expected = Curvature(model, **options()).products(np.eye(1, c.size))
    assert np.abs(c.products(np.eye(1, c.size)) - first).max() > 1e-4
    near(c.products(np.eye(1, c.size)), expected, 1e-6)


def test_scipy() -> None:
    model = NETWORKS["dense"]()
    c = Curvature(model, **options())
    operator = curvature.linear_operator(c)
    top = eigsh(operator, k=2, which="LA", return_eigenvectors=False, tol=1e-6)[::-1]
    near(curvature.eigenvalues(c, k=2).values, top, 1e-5)
    near(operator @ np.eye(c.size, 3), curvature.hessian(c)[:, :3], 1e-5)
    g = c.gradient()
    positive = curvature.linear_operator(c, kind="gauss_newton")
    p, failed = cg(positive, g, rtol=1e-3)
    assert not failed
    assert np.linalg.norm(curvature.ggnvp(c, p) - g) < 2e-3 * np.linalg.norm(g)


def test_estimates() -> None:
    model = NETWORKS["dense"]()
    c = Curvature(model, **options())
    for kind, estimator in (("hessian", "hutchinson"), ("gauss_newton", "gauss_newton")):
        dense = curvature.hessian(c, kind=kind)
        found = curvature.trace(c, samples=40, kind=kind)
        assert abs(found.value - np.trace(dense)) < 4 * found.standard_error
        assert 0 < found.standard_error < 0.3 * np.trace(dense)
        spread = c.join(curvature.diagonal(c, samples=40, estimator=estimator)) - np.diag(dense)
        assert np.linalg.norm(spread) < 0.7 * np.linalg.norm(np.diag(dense))
    assert curvature.trace(c, samples=40).value == curvature.trace(c, samples=40).value


def test_spectral_density(tmp_path: Path) -> None:
    model = NETWORKS["dense"]()
    c = Curvature(model, **options())
    values = np.linalg.eigvalsh(curvature.hessian(c))
    whole = curvature.spectral_density(c, steps=c.size)
    assert whole.exact
    near(whole.values, values, 1e-5)
    moments = [curvature.spectral_density(c, steps=6, probes=3, seed=s) for s in range(12)]
    for power in (0, 1, 2, 4):
        estimates = [np.sum(d.weights * d.values**power) for d in moments]
        assert np.mean(estimates) == pytest.approx(np.mean(values**power), rel=0.35)
    grid, density = moments[0].curve()
    assert np.sum(density) * (grid[1] - grid[0]) == pytest.approx(1, rel=0.01)
    moments[0].plot(tmp_path / "density.png")
    assert (tmp_path / "density.png").stat().st_size > 5000


def product_of_two(first: float, second: float) -> keras.Model:
    """Return the network z = w2 w1 x, which has a saddle at zero."""
    dense = layers.Dense
    model = keras.Sequential(
        [keras.Input((1,)), dense(1, use_bias=False), dense(1, use_bias=False)]
    )
    model.set_weights([np.full((1, 1), first), np.full((1, 1), second)])
    return model


def negative_square(y: Any, z: Any) -> Any:
    return -keras.ops.square(y - z)


@pytest.mark.parametrize(
    ("kind", "weights", "loss", "eigenvalues"),
    [
        ("saddle", (0.0, 0.0), "mse", [-2, 2]),
        ("minimum", (1.0, 1.0), "mse", [0, 4]),
        ("not a critical point", (0.5, 1.0), "mse", [None, None]),
        ("maximum", (1.0, 1.0), negative_square, [-4, 0]),
        ("flat", (0.0, 0.0), lambda y, z: z * z, [0, 0]),
    ],
)
def test_critical_points(kind: str, weights: Any, loss: Any, eigenvalues: list) -> None:
    found = curvature.classify_critical_point(
        product_of_two(*weights), np.ones((4, 1)), np.ones((4, 1)), loss=loss
    )
    assert found.kind == kind
    assert str(found).startswith(f"{kind}: ‖∇J‖ = ")
    if None not in eigenvalues:
        np.testing.assert_allclose(found.eigenvalues, eigenvalues, atol=1e-5)
        assert found.gradient_norm < 1e-6
    assert found.positive + found.negative + found.flat == 2


def test_critical_point_of_a_larger_model() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((60,)), layers.Dense(40, "tanh"), layers.Dense(1)])
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    y = np.repeat([[1.0], [-1.0]], 2, axis=0)
    x = np.random.default_rng(0).normal(size=(4, 60))
    found = curvature.classify_critical_point(model, x, y, loss="mse", k=2)
    assert (found.kind, found.complete, len(found.eigenvalues)) == ("saddle", False, 4)


@on_tensorflow
def test_under_a_strategy() -> None:
    alone = NETWORKS["dense"]()
    start, expected = alone.get_weights(), curvature.hessian(alone, **options())
    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = NETWORKS["dense"]()
        model.compile("sgd", entropy())
        model.set_weights(start)
        inside = curvature.hessian(model, **options(loss=None))
    near(inside, expected, 1e-6)
    model.fit(*data()[:2], verbose=0)
    model.set_weights(start)
    near(curvature.hessian(model, **options(batch_size=3)), expected, 1e-6)


def test_mixed_precision_and_several_outputs() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, "tanh")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, name="a")(hidden), layers.Dense(1)(hidden)])
    model.compile("sgd", [entropy(), "mse"], loss_weights=[1.0, 0.5])
    x, y, _ = data()
    c = Curvature(model, x, [y, y[:, None].astype("float32")])
    near(c.loss(), model.evaluate(x, [y, y[:, None]], verbose=0)[0], 1e-2)
    assert np.isfinite(curvature.eigenvalues(c, k=1, tolerance=1e-2).values).all()


X, Y = np.zeros((4, 6)), np.zeros(4)
SUM = keras.losses.SparseCategoricalCrossentropy(reduction="sum")


def endless() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((X, Y)).repeat()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: Curvature("model", X, Y), "`model` must be a Keras model. Received: model='mod"),
        (lambda m: Curvature(m, X, Y), "`loss` must be given where the model is not compiled"),
        (
            lambda m: Curvature(m, X, Y, entropy(), layer="low"),
            "one of the layers .*'bottom', .*'low'",
        ),
        (lambda m: Curvature(m, X, Y, entropy(), layer=m.layers[1]), "must have trainable weights"),
        (
            lambda m: Curvature(m, X, Y, SUM, batch_size=2),
            r"mean over rows.*\['sum'\] with 2 batches",
        ),
        (lambda m: Curvature(m, X[:0], Y[:0], entropy()), "`x` must have at least one row"),
        (
            lambda m: Curvature(m, iter([(X, Y)]), Y, entropy()),
            "`y` and `sample_weight` must",
        ),
        (lambda m: Curvature(m, X, Y[:2], entropy()), "same number of rows. Received: \\[2, 4\\]"),
        (
            lambda m: Curvature(m, X, Y, entropy(), batch_size=0),
            "`batch_size` must be an integer ≥ 1",
        ),
        (lambda m: Curvature(m, X, Y, entropy(), training=1), "`training` must be True or False"),
        (
            lambda m: curvature.hvp(m, np.ones(3), X, Y, loss=entropy()),
            "`v` must be a vector of 53",
        ),
        (
            lambda m: curvature.trace(Curvature(m, X, Y, entropy()), X, Y),
            r"a `Curvature` has its own. Received: \['x', 'y'\]",
        ),
        (
            lambda m: curvature.eigenvalues(m, X, Y, k=0),
            "`k` must be an integer ≥ 1. Received: k=0",
        ),
        (lambda m: curvature.eigenvalues(m, X, Y, which="all"), r"`which` must be one of .*='all'"),
        (lambda m: curvature.eigenvalues(m, X, Y, kind="G"), "`kind` must be one of .*kind='G'"),
        (lambda m: curvature.eigenvalues(m, X, Y, tolerance=0), "`tolerance` must be a number in"),
        (lambda m: curvature.trace(m, X, Y, samples=1), "`samples` must be an integer ≥ 2"),
        (lambda m: curvature.diagonal(m, X, Y, estimator="exact"), "`estimator` must be one of"),
        (
            lambda m: curvature.spectral_density(m, X, Y, probes=0),
            "`probes` must be an integer ≥ 1",
        ),
        (lambda m: curvature.classify_critical_point(m, X, Y, k=0), "`k` must be an integer ≥ 1"),
        (
            lambda m: Curvature(m, iter([(X, Y)]), loss=entropy(), batch_size=2),
            "`batch_size` must be None where `x` is a dataset",
        ),
        (lambda m: Curvature(m, iter(()), loss=entropy()), "`x` must have at least one row"),
    ],
)
def test_errors(call: Callable, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(NETWORKS["dense"]())


@pytest.mark.parametrize(
    ("units", "message"),
    [(65, "at most 64 columns: use 'hutchinson'"), (None, "needs outputs with a last axis")],
)
def test_outputs_without_a_gauss_newton_diagonal(units: int | None, message: str) -> None:
    top = [layers.Reshape(())] if units is None else []
    model = keras.Sequential([keras.Input((6,)), layers.Dense(units or 1), *top])
    y = np.zeros((4, units) if units else 4)
    with pytest.raises(ValueError, match=message):
        curvature.diagonal(model, X, y, estimator="gauss_newton", samples=1, loss="mse")


@on_tensorflow
def test_data_without_an_end() -> None:
    with pytest.raises(ValueError, match=r"`x` must have an end.*`dataset.take\(10\)`"):
        Curvature(NETWORKS["dense"](), endless(), loss=entropy())


def test_dense_matrix_of_a_large_model(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.1), units=80)
    with pytest.raises(ValueError, match=r"at most 5,000 weights: take a `layer`.*: 6,010 weights"):
        curvature.hessian(model, *digits)


def quadratic_fit(*callbacks: Any, rate: float = 0.05, **arguments: Any) -> dict[str, list[float]]:
    """Train the linear network on all its data; return the logs."""
    model, x, _ = linear()
    model.compile(keras.optimizers.SGD(rate), "mse", steps_per_execution=arguments.pop("each", 1))
    arguments = {"epochs": 2, "batch_size": 4, "verbose": 0, **arguments}
    return model.fit(x, x[:, :1], callbacks=list(callbacks), **arguments).history


def test_monitor_of_a_quadratic() -> None:
    _, x, expected = linear()
    values = np.linalg.eigvalsh(expected)[::-1]
    monitor = CurvatureMonitor(every=4, k=2, x=x, y=x[:, :1], probes=40)
    logs = quadratic_fit(monitor)
    assert monitor.history["step"] == [4, 8]
    np.testing.assert_allclose(logs["lambda_max"], values[0], rtol=1e-2)
    np.testing.assert_allclose(logs["lambda_2"], values[1], rtol=1e-2)
    np.testing.assert_allclose(logs["hessian_trace"], values.sum(), rtol=0.05)
    np.testing.assert_allclose(logs["rate_over_limit"], 0.05 * values[0] / 2, rtol=1e-2)
    assert monitor.verdict.startswith("the rate 0.05 is 0.64 of the stable")
    assert monitor.history["lambda_max"][1] == pytest.approx(values[0], rel=1e-4)  # goes on


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.05, r"the rate 0.05 is 0\.\d+ of the stable limit"), (1.0, r"the rate 1 is past .*\d×$")],
)
def test_monitor_of_the_training_data(rate: float, words: str, capsys: Any, tmp_path: Path) -> None:
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    monitor = CurvatureMonitor(every=3, verbose=1)
    logs = quadratic_fit(monitor, log, rate=rate, each=2, epochs=1)
    printed = capsys.readouterr().out
    assert re.search(words, monitor.verdict)
    assert monitor.verdict in printed
    assert f"{logs['lambda_max'][0]}"[:6] in (tmp_path / "log.csv").read_text()
    _, x, _ = linear()
    rows = x[np.linspace(0, 19, 4).astype(int)]
    expected = np.linalg.eigvalsh(2 / 4 * rows.T @ rows)[-1]
    assert logs["lambda_max"][0] == pytest.approx(expected, rel=1e-2)


def test_monitor_before_it_has_looked() -> None:
    monitor = CurvatureMonitor(every=8)
    assert monitor.verdict == "not measured yet"
    logs = quadratic_fit(monitor)
    assert np.isnan(logs["lambda_max"]).tolist() == [True, False]


def test_monitor_of_a_maximum() -> None:
    model, x, _ = linear()
    model.compile(keras.optimizers.SGD(1e-3), negative_square)
    monitor = CurvatureMonitor(every=1)
    model.fit(x, x[:, :1], verbose=0, callbacks=[monitor])
    assert monitor.verdict == "the rate 0.001 has no limit: the curvature is nowhere positive"


def pairs_of_rows() -> Any:
    _, x, _ = linear()
    while True:
        yield x[:4], x[:4, :1]


def test_monitor_of_other_data() -> None:
    model, x, _ = linear()

    class Rows(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return x[:4], x[:4, :1]

    monitor = CurvatureMonitor(every=1)
    model.fit(Rows(), verbose=0, callbacks=[monitor])
    expected = np.linalg.eigvalsh(2 / 4 * x[:4].T @ x[:4])[-1]
    np.testing.assert_allclose(monitor.history["lambda_max"], expected, rtol=1e-2)
    with pytest.raises(
        ValueError, match=r"`x` must be given where the training data come from a g"
    ):
        model.fit(pairs_of_rows(), steps_per_epoch=2, shuffle=False, callbacks=[monitor])


@on_tensorflow
def test_monitor_under_a_strategy() -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model, x, expected = linear()
    monitor = CurvatureMonitor(every=2, x=x, y=x[:, :1])
    model.fit(x, x[:, :1], batch_size=8, verbose=0, callbacks=[monitor])
    assert monitor.history["lambda_max"][0] == pytest.approx(
        np.linalg.eigvalsh(expected)[-1], rel=1e-2
    )


def test_diverged() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(50.0), "mse")
    _, x, _ = linear()
    monitor = CurvatureMonitor(every=1)
    logs = model.fit(x, x[:, :1], epochs=20, verbose=0, callbacks=[monitor]).history
    assert np.isfinite(logs["lambda_max"][0])
    assert np.isnan([logs[name][-1] for name in ("lambda_max", "hessian_trace")]).all()
    assert monitor.verdict == "the curvature is not finite: training has diverged"
    with pytest.raises(FloatingPointError, match=r"must be finite at .* Received: .* loss of nan"):
        curvature.eigenvalues(model, x, x[:, :1])
