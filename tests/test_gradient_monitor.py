"""`kerasopt.callbacks.GradientMonitor` and `StopOnGradientNorm` in a real `fit`."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import ExponentialDecay
from matplotlib.image import imread

import kerasopt
from kerasopt.callbacks import (
    AdaptiveLearningRate,
    GradientMonitor,
    LearningRateFinder,
    StopOnGradientNorm,
)
from kerasopt.callbacks._gradient_diagnosis import exploded, vanished
from kerasopt.callbacks._gradient_statistics import STATISTICS
from tests.contract.cases import dense_model
from tests.workers import launch

LAYERS = ("bottom", "top")


def linear_model(optimizer: Any = None, **compile_arguments: Any) -> keras.Model:
    """Return two dense layers without activation, whose gradients are easily written down."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [keras.Input((3,)), dense(4, name="bottom"), dense(2, name="top")]
    model = keras.Sequential(layers)
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    return model


def data(rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.RandomState(0).normal
    x = draw(size=(rows, 3)).astype("float32")
    x[:, 2] = 0  # a row of the kernel's gradient is zero
    return x, draw(size=(rows, 2)).astype("float32")


def descent(steps: int, batch: int, rate: float = 0.1) -> list[dict[str, float]]:
    """Return the figures of each step of gradient descent on the linear model, in NumPy."""
    w1, b1, w2, b2 = (w.astype("float64") for w in linear_model().get_weights())
    x, y = data()
    seen = []
    for step in range(steps):
        part = slice(step * batch % len(x), step * batch % len(x) + batch)
        hidden = x[part] @ w1 + b1
        slope = 2 * (hidden @ w2 + b2 - y[part]) / y[part].size
        back = slope @ w2.T
        gradients = [x[part].T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)]
        layers = {"bottom": ([w1, b1], gradients[:2]), "top": ([w2, b2], gradients[2:])}
        figures = {}
        for name, (weights, parts) in layers.items():
            w, g = (np.concatenate([np.ravel(each) for each in many]) for many in (weights, parts))
            figures |= {
                f"gradient_norm/{name}": np.linalg.norm(g),
                f"gradient_mean/{name}": g.mean(),
                f"gradient_std/{name}": g.std(),
                f"gradient_zero_fraction/{name}": np.mean(g == 0),
                f"update_ratio/{name}": rate * np.linalg.norm(g) / np.linalg.norm(w),
            }
        seen.append(figures)
        for w, g in zip((w1, b1, w2, b2), gradients, strict=True):
            w -= rate * g
    return seen


def fit(model: keras.Model, *callbacks: Any, **arguments: Any) -> dict[str, list[float]]:
    arguments = {"batch_size": 2, "epochs": 3, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(*data(), callbacks=list(callbacks), **arguments).history


def close_to(expected: list[dict[str, float]], monitor: GradientMonitor, rel: float = 1e-4) -> None:
    assert len(monitor.history["step"]) == len(expected) > 0
    for name in expected[0]:
        values = [figures[name] for figures in expected]
        np.testing.assert_allclose(monitor.history[name], values, rtol=rel, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"steps_per_execution": 3}, {"jit_compile": True}, {"run_eagerly": True}],
    ids=str,
)
def test_figures_are_those_of_numpy(arguments: dict) -> None:
    monitor = GradientMonitor(every=3)
    logs = fit(linear_model(**arguments), monitor)
    expected = descent(12, 2)
    assert monitor.history["step"] == [1, 4, 7, 10]
    close_to(expected[::3], monitor)
    means = [[expected[0], expected[3]], [expected[6]], [expected[9]]]
    for name in expected[0]:
        values = [np.mean([figures[name] for figures in some]) for some in means]
        np.testing.assert_allclose(logs[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("every", [2, 5, 7])
def test_executions_of_several_steps_that_are_not_all_looked_at(every: int) -> None:
    x, y = (np.tile(each, (8, 1)) for each in data())
    monitor = GradientMonitor(every)
    model = linear_model(steps_per_execution=3)
    model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
    close_to(descent(64, 2)[::every], monitor)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["DataParallel", "MirroredStrategy"])
def test_gradient_of_all_replicas(kind: str) -> None:
    import tensorflow as tf

    devices = ["CPU:0", "CPU:1"]
    if kind == "DataParallel":
        strategy: Any = kerasopt.strategies.DataParallel(devices)
    else:
        ops = tf.distribute.ReductionToOneDevice()
        strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=ops)
    with strategy.scope():
        model = linear_model()
    monitor = GradientMonitor(every=2)
    fit(model, monitor, stop := StopOnGradientNorm(1e-9), batch_size=4)
    close_to(descent(6, 4)[::2], monitor)
    assert stop.events == []


def scaled_loss() -> keras.optimizers.Optimizer:
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=64.0)


OPTIMIZERS = {
    "Adam": keras.optimizers.Adam,
    "EMA": lambda: keras.optimizers.SGD(0.1, use_ema=True),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=1e-3),
    "loss_scale_factor": lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0),
    "LossScaleOptimizer": scaled_loss,
    "GradientClipping": lambda: kerasopt.optimizers.GradientClipping("sgd", threshold=1e-3),
    "Lookahead": lambda: kerasopt.optimizers.Lookahead(keras.optimizers.SGD(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_trains_as_without(name: str) -> None:
    expected = descent(1, 2)
    weights = []
    for callbacks in ([], [monitor := GradientMonitor(every=5), StopOnGradientNorm(1e-9)]):
        model = linear_model(OPTIMIZERS[name]())
        fit(model, *callbacks)
        weights.append([*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)])
    for value, other in zip(*weights, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-7)
    assert monitor.history["step"] == [1, 6, 11]
    for figure in ("norm", "mean", "std"):
        for layer in LAYERS:
            value = monitor.history[f"gradient_{figure}/{layer}"][0]
            assert value == pytest.approx(expected[0][f"gradient_{figure}/{layer}"], rel=1e-4)


def test_step_is_as_it_was_when_training_ends(tmp_path: Path) -> None:
    model = linear_model()
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    for _ in range(2):
        fit(model, GradientMonitor(), StopOnGradientNorm(1e-9), keep)
    assert "train_step" not in vars(model)
    assert not {"apply", "stateless_apply"} & {*vars(model.optimizer)}
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    fit(model)


def test_training_that_was_broken_off() -> None:
    def interrupt(epoch: int, logs: Any) -> None:
        raise KeyboardInterrupt

    model, monitor = linear_model(), GradientMonitor(every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras.callbacks.LambdaCallback(on_epoch_end=interrupt), monitor)
    fit(model, monitor, epochs=2)
    assert monitor.history["step"] == list(range(5, 13))
    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, keras.callbacks.LambdaCallback(on_epoch_end=interrupt))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    before, logs = model.get_weights(), fit(model, monitor, epochs=1)
    assert monitor.history["step"][12:] == [1, 2, 3, 4]
    assert logs["update_ratio/top"] == [0]
    np.testing.assert_array_equal(
        np.concatenate(before, None), np.concatenate(model.get_weights(), None)
    )
    assert not {"apply", "stateless_apply"} & {*vars(model.optimizer)}


def test_epoch_without_a_step_and_state() -> None:
    first, second = (GradientMonitor(every=5, statistics=["std"], histograms=True) for _ in "ab")
    model = linear_model()
    logs = fit(model, first, epochs=4, batch_size=4)
    assert first.history["step"] == [1, 6]
    assert np.isnan(logs["gradient_std/top"]).tolist() == [False, True, False, True]
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert second.get_state() == first.get_state()
    fit(model, second, epochs=2)
    assert second.history["step"] == [1, 6, 11, 16]
    assert first.history["step"] == [1, 6]


def test_steps_that_the_optimizer_goes_back_to() -> None:
    model = linear_model(keras.optimizers.SGD(ExponentialDecay(30.0, 100, 0.9)))
    monitor, adaptive = GradientMonitor(every=1, statistics=["mean"]), AdaptiveLearningRate()
    fit(model, monitor, adaptive, stop := StopOnGradientNorm(1e-9), epochs=4)  # of four steps
    assert adaptive.events[0] == (1, "back, rate × 0.7")
    assert monitor.history["step"][:8] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert len(monitor.history["step"]) == 16
    assert stop.events == []


def test_step_goes_on_with_the_optimizer() -> None:
    """Its count is another one after the callback has begun, such as that of a checkpoint."""
    model, monitor = linear_model(), GradientMonitor(every=3, statistics=["std"])
    restore = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: model.optimizer.iterations.assign(7)
    )
    fit(model, monitor, restore)
    assert monitor.history["step"] == [10, 13, 16, 19]


def test_accumulated_gradients() -> None:
    """Steps are those in which the weights change."""
    model = linear_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    monitor = GradientMonitor(every=2)
    fit(model, monitor, epochs=6)  # of four batches
    assert monitor.history["step"] == [1, 3, 5, 7]
    assert min(monitor.history["update_ratio/top"]) > 0


@pytest.mark.parametrize("first", [True, False])
def test_beside_the_test_of_the_rate(first: bool) -> None:
    """Whichever takes the schedule in hand first; the steps of the test are not looked at."""
    model = linear_model(keras.optimizers.SGD(ExponentialDecay(0.1, 100, 0.9)))
    monitor, finder = GradientMonitor(every=2), LearningRateFinder(*data(), steps=5, batch_size=2)
    stop = StopOnGradientNorm(1e-9)
    fit(model, *([monitor, stop, finder] if first else [finder, monitor, stop]))
    assert monitor.history["step"] == [1, 3, 5, 7, 9, 11]
    assert "make_train_function" not in vars(model)


def test_weights_without_a_gradient() -> None:
    model = linear_model()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    fit(model, monitor := GradientMonitor(every=4, statistics=["norm"]))
    assert [*monitor.history] == ["step", "gradient_norm/top"]


@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}], ids=str)
def test_histograms_and_sparse_gradients(arguments: dict) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(50, 4, name="table"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1, name="top")])
    model.compile("sgd", "mse", **arguments)
    monitor = GradientMonitor(every=1, histograms=True)
    x = np.array([[0, 1], [1, 2]])
    model.fit(x, np.ones(2), batch_size=2, verbose=0, callbacks=[monitor])
    counts = np.array(monitor.histograms["table"][0])
    assert counts.sum() == 200
    assert counts[0] == 188  # the rows of the table that the batch does not name
    assert monitor.history["gradient_zero_fraction/table"] == [pytest.approx(0.94)]
    mean = np.log10(monitor.history["gradient_norm/table"][0] / 12**0.5)
    assert abs(np.average(np.arange(32)[1:] / 2 - 12, weights=counts[1:]) - mean) < 1


def deep_model(activation: str, scale: float) -> keras.Model:
    keras.utils.set_random_seed(0)
    kernel = keras.initializers.RandomNormal(stddev=scale)
    layers = [
        keras.layers.Dense(8, activation, kernel_initializer=kernel, name=f"dense_{index}")
        for index in range(8)
    ]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, name="top")])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model


def test_vanishing_gradient_is_warned_of_once() -> None:
    words = r"The gradient vanishes in layer 'dense_0': at step 1 its norm is .* top layer 'top'"
    with pytest.warns(UserWarning, match=words) as seen:
        fit(deep_model("sigmoid", 0.1), GradientMonitor(every=4))
    assert len(seen) == 1


def test_gradient_that_is_not_finite_is_warned_of_once() -> None:
    words = r"The gradient explodes in layer '.*': at step \d+ its norm is (inf|nan), its median"
    with pytest.warns(UserWarning, match=words) as seen:
        fit(linear_model(keras.optimizers.SGD(1e6)), GradientMonitor(every=1), epochs=9)
    assert len(seen) == 1


@pytest.mark.slow
def test_loss_scale_that_is_still_too_large() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=3e38)
    x, y = data()
    monitor = GradientMonitor(every=1)  # any warning is an error here
    linear_model(optimizer).fit(x, 100 * y, epochs=20, verbose=0, callbacks=[monitor])
    finite = np.isfinite(monitor.history["gradient_norm/top"])
    assert not finite[0]
    assert finite[-1]


STEPS = np.arange(1, 6)
STEADY = np.array([[1.0, 2.0]] * 5)


@pytest.mark.parametrize(
    ("norms", "what"),
    [
        (STEADY, (False, False)),
        (STEADY * [1e-2, 1], (False, False)),
        (STEADY * [1.9e-3, 1], (True, False)),
        (STEADY * [0, 1], (True, False)),
        (STEADY * 0, (False, False)),
        (np.where(np.eye(5, 2, k=-3) > 0, 1001.0, STEADY), (False, True)),
        (np.where(np.eye(5, 2) > 0, 0.0, STEADY), (False, False)),  # a layer that begins with zeros
        (np.where(np.eye(5, 2) > 0, np.nan, STEADY), (False, True)),
    ],
)
def test_rules_of_the_warnings(norms: np.ndarray, what: tuple[bool, bool]) -> None:
    earlier = STEADY[:0]
    texts = vanished(LAYERS, STEPS, norms), exploded(LAYERS, STEPS, norms, earlier, False)
    assert tuple(text is not None for text in texts) == what


def test_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "norms.png"
    fit(deep_model("relu", 0.5), GradientMonitor(every=4, path=path))
    assert [file.name for file in path.parent.iterdir()] == ["norms.png"]
    assert np.ptp(imread(path)) > 0.5


def test_unwritable_picture() -> None:
    with pytest.raises(OSError, match="`path` must be a file that can be written"):
        fit(linear_model(), GradientMonitor(path="/proc/norms.png"))


CLUSTER = """
with kerasopt.strategies.MultiWorker().scope():
    model = build()
looks = [
    kerasopt.callbacks.GradientMonitor(1, ["norm"], path=here / "n.png", log_dir=here / "tb"),
    kerasopt.callbacks.LearningRateFinder(x, y, steps=3, path=here / "r.png"),
    kerasopt.callbacks.LearningCurve(here / "c.png", monitor="loss"),
]
model.fit(x, y, epochs=3, verbose=0, callbacks=looks)
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.tensorflow
def test_the_chief_writes_the_files(tmp_path: Path) -> None:
    status, output = launch(tmp_path, CLUSTER)
    assert status == 0, output
    assert {"n.png", "r.png", "c.png"} <= {path.name for path in tmp_path.iterdir()}
    assert len([*(tmp_path / "tb").iterdir()]) == 1


@pytest.mark.tensorflow
def test_files_for_tensorboard(tmp_path: Path) -> None:
    import tensorflow as tf

    fit(linear_model(), monitor := GradientMonitor(every=4, histograms=True, log_dir=tmp_path))
    found: dict[str, list[Any]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(next(tmp_path.iterdir()))):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    assert len(found) == 2 * len(STATISTICS) + 2
    assert [step for step, _ in found["gradient_norm/top"]] == monitor.history["step"] == [1, 5, 9]
    values = [value.item() for _, value in found["gradient_norm/top"]]
    assert values == pytest.approx(monitor.history["gradient_norm/top"])
    assert found["gradient/top"][0][1][:, 2].tolist() == monitor.histograms["top"][0]


@pytest.mark.parametrize(
    "arguments", [{}, {"steps_per_execution": 2}, {"jit_compile": True}], ids=str
)
def test_stops_where_the_gradient_is_short(arguments: dict) -> None:
    norms = [
        np.hypot(figures["gradient_norm/bottom"], figures["gradient_norm/top"])
        for figures in descent(80, 8)
    ]
    threshold = norms[30]
    expected = next(step for step, norm in enumerate(norms, start=1) if norm < threshold * 1.001)
    stop = StopOnGradientNorm(threshold * 1.001)
    logs = fit(linear_model(**arguments), stop, batch_size=8, epochs=80)
    assert len(logs["loss"]) == expected
    assert stop.events == [(expected, f"stop: ‖∇J‖ < {stop.threshold:g}")]


def test_stops_within_an_epoch(digits: tuple) -> None:
    model = dense_model(keras.optimizers.SGD(0.1))
    stop = StopOnGradientNorm(1e3)
    for _ in range(2):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[stop])
        assert len(model.history.epoch) == 1
    assert [event.epoch for event in stop.events] == [0.25, 0.25]


def test_keras_distribution_on_jax_is_refused() -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("needs the JAX backend")
    with (
        keras.distribution.DataParallel().scope(),
        pytest.raises(ValueError, match=r"on JAX without `keras.distribution` only.* Received: "),
    ):
        fit(linear_model(), GradientMonitor())
