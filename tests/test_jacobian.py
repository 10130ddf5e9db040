"""Singular values of Jacobians, against products of matrices."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.image import imread

import kerasopt
from kerasopt.callbacks import JacobianMonitor
from kerasopt.curvature import jacobian_singular_values
from kerasopt.curvature._jacobian_spectrum import JacobianSpectrum

X = np.random.default_rng(0).normal(size=(10, 5)).astype("float32")


def array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value), "float64")


def tanh_net(widths: tuple[int, ...] = (6, 7, 3), activation: str = "tanh") -> keras.Model:
    hidden = [layers.Dense(width, activation, name=f"layer_{width}") for width in widths]
    return keras.Sequential([keras.Input((5,)), *hidden])


def jacobians(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """Return diag(1 - tanh²) Wᵀ of each layer, by samples."""
    found, h = [], x.astype("float64")
    for layer in model.layers:
        h = np.tanh(h @ array(layer.kernel) + array(layer.bias))
        found.append((1 - h**2)[:, :, None] * array(layer.kernel).T)
    return found


def products(stages: list[np.ndarray]) -> list[np.ndarray]:
    """Return f_T' … f_{t+1}' for each t."""
    found = [stages[-1]]
    for stage in stages[-2::-1]:
        found.insert(0, found[0] @ stage)
    return found


def agree(found: Any, matrices: list[np.ndarray], rtol: float = 2e-5, most: int = 99) -> None:
    assert len(found) == len(matrices)
    for values, matrix in zip(found, matrices, strict=True):
        expected = np.linalg.svd(matrix, compute_uv=False)[:, :most]
        np.testing.assert_allclose(values, expected, rtol=rtol, atol=rtol * expected.max())


class Batches(keras.utils.PyDataset):
    """Batches of three rows and their targets."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return X[3 * index : 3 * index + 3], np.zeros(10)[3 * index : 3 * index + 3]


@pytest.mark.parametrize("data", [X, X.astype("float64"), Batches()])
def test_network_is_a_product_of_matrices(data: Any) -> None:
    model = tanh_net()
    found = jacobian_singular_values(model, data, batch_size=4)
    expected = jacobians(model, X)
    assert found.names == ("input", "layer_6", "layer_7", "layer_3")
    agree(found.stages, expected)
    agree(found.products, products(expected))
    logs = np.log([np.linalg.norm(p, 2, axis=(1, 2)) for p in products(expected)])
    np.testing.assert_allclose(found.mean_log_norm, logs.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.variance_log_norm, logs.var(axis=1), rtol=1e-4)


def test_largest_value_alone_where_there_are_many() -> None:
    model = tanh_net((60, 50, 40))
    found = jacobian_singular_values(model, X, exact=45)
    expected = jacobians(model, X)
    assert [values.shape[1] for values in (*found.stages, *found.products)] == [1, 1, 40, 5, 40, 40]
    top = jacobian_singular_values(model, X, exact=0)
    agree(top.stages, expected, most=1)
    agree(top.products, products(expected), most=1)


def test_float64(float64: None) -> None:
    model = tanh_net()
    found = jacobian_singular_values(model, X)
    agree(found.stages, jacobians(model, X), rtol=1e-13)
    agree(found.products, products(jacobians(model, X)), rtol=1e-13)


def test_graph_is_cut_where_all_must_pass() -> None:
    inputs = keras.Input((5,))
    lower = layers.Dense(4, name="lower")(inputs)
    branch = layers.Dense(4, use_bias=False, name="branch")(layers.Dropout(0.5)(lower))
    outputs = layers.Dense(2, name="upper")(layers.Add(name="sum")([lower, branch]) * 2.0)
    model = keras.Model(inputs, outputs)
    kernel = {name: array(model.get_layer(name).kernel).T for name in ("lower", "branch", "upper")}
    block, twice = np.eye(4) + kernel["branch"], 2 * np.eye(4)
    matrices = [kernel["lower"], block, twice, kernel["upper"]]
    stages = [np.tile(matrix, (10, 1, 1)) for matrix in matrices]
    found = jacobian_singular_values(model, X)
    assert found.names == ("input", "lower", "sum", found.names[3], "upper")
    agree(found.stages, stages)
    agree(found.products, products(stages))


def test_convolution_within_a_nested_model() -> None:
    convolution = layers.Conv2D(2, 3, padding="same", strides=2, name="conv")
    body = keras.Sequential(name="body")  # built layer by layer, so that it has many graphs
    for layer in (keras.Input((6, 6, 1)), convolution, layers.BatchNormalization(name="norm")):
        body.add(layer)
    model = keras.Sequential([keras.Input((6, 6, 1)), body, layers.Flatten(name="flat")])
    matrix = array(convolution(np.eye(36).reshape(36, 6, 6, 1))).reshape(36, 18).T
    stages = [np.tile(m, (2, 1, 1)) for m in (matrix, np.eye(18) / np.sqrt(1.001), np.eye(18))]
    for exact, most in ((128, 18), (0, 1)):
        found = jacobian_singular_values(model, np.ones((2, 6, 6, 1)), exact=exact)
        assert found.names == ("input", "body/conv", "body/norm", "flat")
        agree(found.stages, stages, most=most)
        agree(found.products, products(stages), most=most)


def test_integers_and_masks() -> None:
    embedding = layers.Embedding(6, 3, mask_zero=True, name="words")
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), embedding, layers.GlobalAveragePooling1D()]
    )
    padded = jacobian_singular_values(model, np.array([[1, 2, 0, 0]]))
    short = jacobian_singular_values(model, np.array([[1, 2]]))
    assert padded.names[0] == "words"
    for found, expected in zip(padded.products, short.products, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_inputs() -> None:
    inputs = [keras.Input((2,)), keras.Input((3,))]
    joined = layers.Concatenate(name="joined")(inputs)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(joined))
    found = jacobian_singular_values(model, [X[:, :2], X[:, 2:]])
    assert found.names[0] == "joined"
    agree(found.products, [np.tile(array(model.layers[-1].kernel).T, (10, 1, 1))])


def test_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tanh_net()
    agree(jacobian_singular_values(model, X).products, products(jacobians(model, X)), rtol=0.05)


def test_nothing_gets_through_dead_units() -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu"), layers.Dense(2)])
    model.layers[0].set_weights([np.zeros((5, 4)), -np.ones(4)])
    found = jacobian_singular_values(model, X)
    assert np.isneginf(found.log_norms[:, 0]).all()
    assert np.isnan(found.mean_log_norm[0])
    assert np.isfinite(found.mean_log_norm[1])


@pytest.mark.tensorflow
def test_under_a_strategy() -> None:
    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = tanh_net()
        found = jacobian_singular_values(model, X)
    agree(found.products, products(jacobians(model, X)))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"jacobians{suffix}"
    jacobian_singular_values(tanh_net(), X, path=path)
    assert path.stat().st_size > 5000
    if suffix == ".png":
        assert imread(path).shape[:2] == (400, 1200)


def two_outputs() -> keras.Model:
    inputs = keras.Input((5,))
    return keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (lambda: "net", {}, TypeError, "`model` must be a Keras model. Received: model='net'"),
        (keras.Sequential, {}, ValueError, "`model` must be a built `Sequential` or functional"),
        (two_outputs, {}, ValueError, "`model` must be .* with one output"),
        (tanh_net, {"batch_size": 0}, ValueError, "`batch_size` must be an integer ≥ 1"),
        (tanh_net, {"exact": -1}, ValueError, "`exact` must be an integer ≥ 0"),
        (tanh_net, {"seed": 0.5}, TypeError, "`seed` must be an integer ≥ 0"),
        (tanh_net, {"path": "j.gif"}, ValueError, "`path` must end in one of"),
        (tanh_net, {"path": "/dev/null/j.png"}, OSError, "`path` must be a file that can be"),
    ],
)
def test_errors(model: Any, arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        jacobian_singular_values(model(), X, **arguments)


def fit(model: keras.Model, monitor: JacobianMonitor, epochs: int = 2, **arguments: Any) -> Any:
    """Train for five steps an epoch."""
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.01), "mse", **arguments)
    y = np.ones((10, model.output_shape[-1]))
    return model.fit(X, y, batch_size=2, epochs=epochs, verbose=0, callbacks=[monitor])


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [({}, [0, 2, 4, 6, 8, 10]), ({"steps_per_execution": 5}, [0, 5, 10])],
)
def test_monitor_in_fit(arguments: dict, steps: list[int]) -> None:
    model, monitor = tanh_net(), JacobianMonitor(2, X, samples=4)
    before = jacobian_singular_values(model, X[:4]).products
    history = fit(model, monitor, **arguments).history
    after = jacobian_singular_values(model, X[:4]).products
    assert monitor.history["step"] == steps
    for place, depth in enumerate(("input", "layer_6", "layer_7")):
        values = monitor.history[f"jacobian_norm/{depth}"]
        for value, expected in ((values[0], before), (values[-1], after)):
            assert value == pytest.approx(np.median(expected[place][:, 0]), rel=1e-5)
        assert history[f"jacobian_norm/{depth}"][-1] == values[-1]
        assert values[0] != values[-1]


def test_monitor_takes_rows_of_the_training() -> None:
    taken, given = JacobianMonitor(), JacobianMonitor(x=X[[0, -1]])  # a batch is two rows
    for monitor in (taken, given):
        keras.utils.set_random_seed(0)
        model = tanh_net()
        fit(model, monitor, epochs=1)
    assert taken.history == given.history
    batches = ((X, X[:, :3]) for _ in range(2))
    with pytest.raises(ValueError, match="`x` must be given where the training data come from a g"):
        model.fit(batches, shuffle=False, verbose=0, callbacks=[JacobianMonitor()])


def test_monitor_warns_once_of_vanishing() -> None:
    model = tanh_net(tuple(range(4, 13)), "sigmoid")
    found = jacobian_singular_values(model, X)
    sizes = [np.median(values[:, 0]) for values in found.products]
    limit = 1e-3 * min(1, sizes[-1])  # as sigmoid units saturate
    worst = [name for name, size in zip(found.names, sizes, strict=False) if size < limit][-1]
    with pytest.warns(UserWarning, match=f"Jacobian vanishes: at step 0 .*{worst!r}") as caught:
        fit(model, JacobianMonitor(5, X))
    assert len(caught) == 1
    assert "`kerasopt.pretrain`" in str(caught[0].message)


def test_monitor_warns_once_of_exploding() -> None:
    model = tanh_net((6, 7, 3), "linear")
    model.set_weights([40 * weight for weight in model.get_weights()])
    message = "The Jacobian explodes: at step 0 .*'layer_6' .*`kerasopt.optimizers.GradientClip"
    with pytest.warns(UserWarning, match=message) as caught:
        fit(model, JacobianMonitor(x=X), epochs=1)
    assert len(caught) == 1


def test_monitor_does_not_warn_where_the_output_is_sure() -> None:
    hidden = layers.Dense(4, name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, layers.Dense(3, "softmax")])
    model.layers[-1].bias.assign([20, 0, 0])
    monitor = JacobianMonitor(x=X)
    fit(model, monitor, epochs=1)
    assert max(monitor.history["jacobian_norm/hidden"]) < 1e-3


def test_monitor_goes_on_from_its_state() -> None:
    model, first = tanh_net(), JacobianMonitor(2, X)
    fit(model, first, epochs=1)
    second = JacobianMonitor(2, X)
    second.set_state(first.get_state())
    fit(model, second, epochs=1)
    assert second.history["step"] == [0, 2, 4, 6, 8, 10]
    assert first.history["step"] == [0, 2, 4]


@pytest.mark.tensorflow
def test_monitor_under_a_strategy() -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model, monitor = tanh_net(), JacobianMonitor(5, X)
        model.compile(keras.optimizers.SGD(0.01), "mse")
    fit(model, monitor)
    expected = jacobian_singular_values(model, X).products[1][:, 0]
    assert monitor.history["jacobian_norm/layer_6"][-1] == pytest.approx(np.median(expected))


def test_result_is_frozen() -> None:
    found = jacobian_singular_values(tanh_net((3,)), X)
    assert isinstance(found, JacobianSpectrum)
    with pytest.raises(AttributeError, match="cannot assign"):
        found.names = ()
