"""The planner: costs of models, times of steps, what is recommended, and the published tables."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt
from kerasopt.__main__ import main
from kerasopt.strategies import (
    Device,
    Link,
    calibrate,
    plan,
    simulated_straggler_factor,
    straggler_factor,
    validate_plan,
)
from kerasopt.strategies._calibrate import _line
from kerasopt.strategies._costs import Crossing, model_costs

GPU, LINK = Device(1e9, efficiency=1.0), Link(1e6)


def network(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *stack])


def dense(width: int = 8) -> keras.Model:
    return network((width,), layers.Dense(width, use_bias=False))


def residual() -> keras.Model:
    """Return a model in which two convolutions need the same maps, and one is called twice."""
    x = keras.Input((8, 8, 3))
    maps = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    same = layers.Conv2D(4, 3, padding="same", use_bias=False)
    other = layers.Conv2D(4, 1, use_bias=False)(maps)
    return keras.Model(x, layers.Add()([same(same(maps)), other]))


class Subclass(keras.Model):
    """The layers of `residual`, without a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Conv2D(4, 3, padding="same", use_bias=False)
        self.same = layers.Conv2D(4, 3, padding="same", use_bias=False)
        self.other = layers.Conv2D(4, 1, use_bias=False)
        self.sum = layers.Add()

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        for layer in (self.same, self.other):
            layer.build((*shape[:-1], 4))

    def call(self, x: Any) -> Any:
        maps = self.first(x)
        return self.sum([self.same(self.same(maps)), self.other(maps)])


# Multiplications and additions of the forward pass, counted by hand.
COUNTS = [
    ((5,), [layers.Dense(3)], 3 * (2 * 5 + 1)),
    ((6, 5), [layers.Dense(3, use_bias=False)], 6 * 3 * 2 * 5),
    ((6, 5), [layers.EinsumDense("abc,cde->abde", (None, 2, 4))], 6 * 2 * 4 * 2 * 5),
    ((10, 3), [layers.Conv1D(4, 3, dilation_rate=2)], 6 * 4 * (2 * 3 * 3 + 1)),
    ((8, 9, 6), [layers.Conv2D(4, (3, 2), strides=2)], 3 * 4 * 4 * (2 * 6 * 6 + 1)),
    ((8, 8, 6), [layers.Conv2D(4, 3, groups=2, padding="same")], 64 * 4 * (2 * 9 * 3 + 1)),
    ((5, 5, 5, 2), [layers.Conv3D(3, 3)], 27 * 3 * (2 * 27 * 2 + 1)),
    ((8, 8, 6), [layers.DepthwiseConv2D(3, depth_multiplier=2)], 36 * 12 * (2 * 9 + 1)),
    ((8, 6), [layers.SeparableConv1D(5, 3)], 6 * 6 * 2 * 3 + 6 * 5 * (2 * 6 + 1)),
    ((4, 4, 6), [layers.Conv2DTranspose(5, 3, strides=2)], 16 * 6 * 9 * 5 * 2 + 9 * 9 * 5),
    ((7, 4), [layers.SimpleRNN(5)], 7 * (2 * (4 + 5) * 5 + 5)),
    ((7, 4), [layers.LSTM(5)], 7 * (2 * (4 + 5) * 20 + 20)),
    ((7, 4), [layers.GRU(5, reset_after=False)], 7 * (2 * (4 + 5) * 15 + 15)),
    ((7, 4), [layers.Bidirectional(layers.LSTM(5))], 2 * 7 * (2 * (4 + 5) * 20 + 20)),
    ((7, 4), [layers.TimeDistributed(layers.Dense(3))], 7 * 3 * (2 * 4 + 1)),
    ((2, 6, 4), [layers.TimeDistributed(network((6, 4), layers.LSTM(5)))], 2 * 6 * 380),
    ((8, 8, 3), [layers.MaxPooling2D(2), layers.ReLU(), layers.Flatten()], 48 * 4 + 48),
    ((8, 8, 3), [layers.GlobalAveragePooling2D(), layers.BatchNormalization()], 192 + 3),
    ((6,), [layers.Embedding(10, 4), layers.Dense(3)], 6 * 3 * (2 * 4 + 1)),
]


def copy(layer: layers.Layer) -> layers.Layer:
    """Return a layer without weights yet, which it will not take long to draw."""
    zeros = dict.fromkeys((name for name in layer.get_config() if "initializer" in name), "zeros")
    return type(layer).from_config({**layer.get_config(), **zeros})


@pytest.mark.parametrize(("shape", "stack", "expected"), COUNTS)
def test_operations_of_layers(shape: tuple[int, ...], stack: list[Any], expected: int) -> None:
    model = network(shape, *map(copy, stack))
    assert model_costs(model).work == 3 * expected
    assert model_costs(network(shape, model)).work == 3 * expected  # nested


def test_operations_of_attention() -> None:
    query, value = keras.Input((6, 4)), keras.Input((5, 3))
    model = keras.Model([query, value], layers.MultiHeadAttention(2, 7)(query, value))
    projections = 6 * 14 * (2 * 4 + 1) + 5 * 14 * (2 * 3 + 1) + 5 * 14 * 7 + 6 * 4 * (2 * 14 + 1)
    assert model_costs(model).work == 3 * (projections + 2 * 6 * 5 * 2 * (7 + 7))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("shape", "stack"),
    [
        # Not groups: Keras compiles them, out of the profiler's sight.
        ((9, 9, 4), [layers.Conv2D(6, 3), layers.DepthwiseConv2D(3), layers.Flatten()]),
        ((9, 9, 4), [layers.Conv2D(6, 3, strides=2), layers.MaxPooling2D(), layers.Flatten()]),
        ((30,), [layers.Dense(20), layers.Dense(10)]),
    ],
)
def test_operations_are_those_of_tensorflows_profiler(
    shape: tuple[int, ...], stack: list[Any]
) -> None:
    import tensorflow as tf

    model = network(shape, *stack)
    function = tf.function(model).get_concrete_function(tf.TensorSpec((1, *shape)))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    profile = tf.compat.v1.profiler.profile(function.graph, options=options)
    assert model_costs(model).work == 3 * profile.total_float_ops


def test_what_columns_exchange() -> None:
    maps = Crossing(4 * 8 * 8 * 4)  # bytes
    expected = [maps, maps, maps]  # of the first layer, of the one called twice, and the outputs
    assert list(model_costs(residual()).crossings) == expected
    model = Subclass()
    model.build((None, 8, 8, 3))
    assert model_costs(model) == model_costs(residual())


def test_groups_do_not_cross() -> None:
    convolution = layers.Conv2D(4, 3, groups=2, padding="same")
    costs = model_costs(network((8, 8, 3), layers.Conv2D(4, 1), convolution, layers.Rescaling(2)))
    crossing, outputs = costs.crossings
    assert outputs == Crossing(crossing.size)
    assert crossing.among(2) == (0, 0)
    assert crossing.among(4) == (4 * 8 * 8 * 4 * 3 / 4, 3)


def test_columns_exchange_at_cross_connections_only() -> None:
    x = keras.Input((8, 8, 3))
    columns = [
        kerasopt.layers.Column([layers.Conv2D(4, 1), layers.Conv2D(4, 3)], column)(x)
        for column in range(2)
    ]
    crossed = kerasopt.layers.CrossConnection()(columns)
    costs = model_costs(keras.Model(x, layers.GlobalMaxPooling2D()(crossed[0])))
    assert costs.crossings == (Crossing(4 * 6 * 6 * 4),) * 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_bytes(optimizer: str) -> None:
    model = network((8,), layers.Dense(8), layers.BatchNormalization())
    model.compile(optimizer, "mse")
    costs = model_costs(model)
    trainable, slots = 4 * (72 + 16), {"sgd": 0}.get(optimizer, 2)
    assert costs.gradients == trainable
    assert costs.state == (2 + slots) * trainable + 4 * 16
    assert costs.activations == 4 * (8 + 8)
    model.optimizer.build(model.trainable_variables)
    assert model_costs(model).state == pytest.approx(costs.state, abs=20)  # iterations, rate


def test_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    costs = model_costs(dense())
    assert (costs.activations, costs.gradients, costs.half) == (2 * 8, 4 * 64, True)
    full, half = (
        plan(dense(), 64, 1, LINK, Device(1e9, half=f)).predictions[0] for f in (1e9, 2e9)
    )
    assert full.step_time == pytest.approx(2 * half.step_time)


def times(model: keras.Model, n: int, link: Link, **arguments: Any) -> dict[Any, Any]:
    """Return the predictions for n devices by their form."""
    predictions = plan(model, 64, n, link, GPU, **arguments).predictions
    return {(p.form, p.grid): p for p in predictions if p.devices == n}


def test_step_times() -> None:
    model = network((8,), layers.Dense(16, use_bias=False), layers.Dense(4, use_bias=False))
    work, weights, maps = 6 * (128 + 64) * 64 / 1e9, 4 * (128 + 64), 4 * (16 + 4) * 64
    found = times(model, 4, Link(1e6, 1e-3))
    expected = {
        ("data", (4, 1)): (1.5 * weights / 1e6 + 6e-3, 1.5 * weights),
        ("columns", (1, 4)): (1.5 * maps / 1e6 + 12e-3, 1.5 * maps),
        ("hybrid", (2, 2)): ((weights + maps) / 2e6 + 6e-3, (weights + maps) / 2),
        ("parameter server", (4, 1)): (4 * weights / 1e6 - work / 4, 2 * weights),
    }
    for key, (exchange, received) in expected.items():
        assert found[key].bytes_per_step == received
        if key[0] != "parameter server":
            assert found[key].step_time == pytest.approx(work / 4 + exchange)
            assert found[key].communication_share == pytest.approx(exchange / (work / 4 + exchange))
    assert len(found) == len(expected)


def test_servers_limit_many_workers() -> None:
    few, many, more = (
        times(dense(), n, LINK, servers=s)["parameter server", (n, 1)].step_time
        for n, s in ((2, 1), (32, 1), (32, 4))
    )
    weights, work = 4 * 64 / 1e6, 6 * 64 * 64 / 1e9
    assert few == pytest.approx(work / 2 + 2 * weights)
    assert many == pytest.approx(32 * weights)
    assert more == pytest.approx(8 * weights)


def test_shared_bus() -> None:
    weights = 4 * 64
    data = times(dense(), 4, Link(1e6, shared=True))["data", (4, 1)]
    work = 6 * 64 * 64 / 1e9 / 4
    assert data.step_time == pytest.approx(work + 2 * 4 * 1.5 * weights / 1e6)


def test_memory_of_each_form() -> None:
    costs, found = model_costs(residual()), times(residual(), 4, LINK)
    state, maps = costs.state, costs.activations * 64 / 4
    assert found["data", (4, 1)].memory == state + maps
    assert found["columns", (1, 4)].memory == state / 4 + maps
    assert found["hybrid", (2, 2)].memory == state / 2 + maps


@pytest.mark.parametrize(
    ("model", "link", "memory", "form"),
    [
        (residual(), 1e12, 1e12, "data"),
        (dense(512), 1e3, 1e12, "one device"),
        (dense(512), 1e12, 7e5, "columns"),
        (dense(512), 1e12, 1.0, "columns"),
    ],
)
def test_recommendation(model: keras.Model, link: float, memory: float, form: str) -> None:
    result = plan(model, 64, 4, link, Device(1e9, memory))
    assert result.recommended.form == form
    assert ("Nothing fits" in result.reason) == (memory == 1.0)
    assert f"{result.speedup(result.recommended):.2f} times as fast" in result.reason
    assert "←" in str(result)


def test_speedup_falls_past_a_number_of_devices() -> None:
    result = plan(dense(256), 64, 32, Link(1e9, 2e-4), GPU, variation=0.3)
    best = result.best("data")
    assert 2 < best.devices < 32
    assert result.speedup(best) > result.speedup(result.best("data", 32))
    alike = plan(dense(256), 64, 32, Link(1e9, 2e-4), GPU)
    assert alike.best("data").step_time < best.step_time


@pytest.mark.parametrize(
    ("workers", "variation", "backups"), [(1, 0.5, 0), (2, 0.3, 0), (64, 0.2, 4), (81, 0.7, 0)]
)
def test_stragglers(workers: int, variation: float, backups: int) -> None:
    closed = straggler_factor(workers, variation, backups)
    simulated = simulated_straggler_factor(workers, variation, backups, steps=40_000)
    assert closed == pytest.approx(simulated, rel=0.01)


def test_stragglers_that_are_known() -> None:
    assert straggler_factor(1, 2.0) == pytest.approx(1)
    assert straggler_factor(100, 0.0) == pytest.approx(1)
    assert straggler_factor(2, 0.5) == pytest.approx(1.2763263902)  # 2 Φ(0.5 / √2)
    factors = [straggler_factor(50, 0.5, backups) for backups in range(6)]
    assert all(more > fewer for more, fewer in itertools.pairwise(factors))


@pytest.fixture(scope="module")
def speedups() -> dict[str, list[float]]:
    rows, _ = validate_plan.dean()
    return {name: [row.ours for row in some] for name, some in rows.items()}


def test_table_of_yadan() -> None:
    rows, _ = validate_plan.yadan()
    assert [row.published for row in rows] == [10.5, 6.6, 7.0, 7.2, 4.8]
    assert max(abs(row.error) for row in rows) < 0.12


def test_table_of_dean(speedups: dict[str, list[float]]) -> None:
    shown = validate_plan.SHOWN
    speech, images = (dict(zip(shown, speedups[name], strict=True)) for name in speedups)
    assert max(speech, key=speech.__getitem__) == 8
    assert speech[8] == pytest.approx(2.2, rel=0.25)
    assert images[81] == pytest.approx(12, rel=0.25)
    assert np.all(np.diff(list(images.values())) > 0)


def test_networks_of_the_tables() -> None:
    assert validate_plan.alexnet().count_params() == pytest.approx(61e6, rel=0.01)
    assert validate_plan.speech().gradients / 4 == pytest.approx(42e6, rel=0.01)
    assert validate_plan.images().gradients / 4 == pytest.approx(1.7e9, rel=0.05)


class Unknown(layers.Layer):
    """A layer of somebody's own."""

    def call(self, x: Any) -> Any:
        return x @ keras.ops.transpose(x)


@pytest.mark.parametrize(
    ("layer", "name"),
    [(Unknown(name="mine"), r"mine \(Unknown\)"), (layers.Lambda(lambda x: x), "lambda")],
)
def test_unknown_layers_are_named(layer: layers.Layer, name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name}.* not known: they are counted as zero"):
        costs = model_costs(network((8,), layers.Dense(8, use_bias=False), layer))
    assert costs.work == 6 * 64


def test_unknown_cells_and_products_are_named() -> None:
    x = keras.Input((4, 3))
    model = keras.Model(x, keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))))
    with pytest.warns(UserWarning, match="Matmul"):
        assert model_costs(model).work == 0
    with pytest.warns(UserWarning, match="ConvLSTM1D"):
        model_costs(network((4, 5, 3), layers.ConvLSTM1D(2, 3)))


class Own(layers.Dense):
    """A layer that is counted as the one that it extends."""


def test_subclasses_are_counted() -> None:
    assert model_costs(network((8,), Own(8))).work == 3 * 8 * 17


ERRORS = [
    ({"model": "m"}, TypeError, "`model` must be a Keras model. Received: model='m'"),
    ({"model": keras.Sequential([layers.Dense(1)])}, ValueError, "`model` must be built"),
    ({"model": network((None, 3), layers.Dense(1))}, ValueError, "known but for the batch"),
    ({"batch_size": 0}, ValueError, "`batch_size` must be an integer ≥ 1"),
    ({"devices": 1.5}, TypeError, "`devices` must be an integer ≥ 1"),
    ({"servers": 0}, ValueError, "`servers` must be an integer ≥ 1"),
    ({"variation": -1}, ValueError, r"`variation` must be a number in \[0, 3\]"),
    ({"interconnect": "string"}, ValueError, "`interconnect` must be one of .*'nvlink'"),
    ({"interconnect": 0}, ValueError, r"`interconnect` must be a number in \(0, inf\)"),
    ({"throughput": "gpu"}, ValueError, "`throughput` must be one of .*'a100'"),
    ({"throughput": None}, TypeError, "`throughput` must be a number"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), ERRORS)
def test_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {
        "model": dense(),
        "batch_size": 8,
        "devices": 2,
        "interconnect": 1.0,
        "throughput": 1.0,
    }
    with pytest.raises(error, match=message):
        plan(**{**given, **arguments})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Device(0.0), "`throughput` must be a number in"),
        (lambda: Device(1.0, 0.0), "`memory` must be a number in"),
        (lambda: Device(1.0, efficiency=1.1), "`efficiency` must be a number in"),
        (lambda: Device(1.0, overhead=-1.0), "`overhead` must be a number in"),
        (lambda: Device(1.0, half=0.0), "`half` must be a number in"),
        (lambda: Link(-1.0), "`bandwidth` must be a number in"),
        (lambda: Link(1.0, -1.0), "`latency` must be a number in"),
        (lambda: Link(1.0, 1.0, 2), "`shared` must be True or False"),
        (lambda: straggler_factor(0, 1.0), "`workers` must be an integer"),
        (lambda: straggler_factor(1, 9.0), "`variation` must be a number in"),
        (lambda: straggler_factor(1, 1.0, -1), "`backups` must be an integer"),
        (lambda: simulated_straggler_factor(1, 1.0, steps=0), "`steps` must be an integer"),
        (lambda: simulated_straggler_factor(1, 1.0, seed=-1), "`seed` must be an integer"),
        (lambda: plan(dense(), 8, 2, 1.0, 1.0).draw("plan.txt"), "`path` must end in one of"),
        (lambda: _line([1, 4], [0.2, 0.1], "A batch"), "A batch took no longer than a smaller one"),
        (lambda: calibrate(dense(), 2), "`batch_size` must be an integer ≥ 4"),
        (lambda: calibrate(dense(), 8, 1), "`workers` must be an integer ≥ 2"),
        (lambda: calibrate(dense(), 8, 9999), "`workers` must have a core each"),
    ],
)
def test_errors_of_parts(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        make()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense().save(tmp_path / "model.keras")
    picture = tmp_path / "plan.svg"
    words = ["plan", str(tmp_path / "model.keras"), "--devices", "8", "--gpu", "a100"]
    assert main([*words, "--link", "nvlink", "--output", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "| hybrid 4 × 2 | 8 |" in out
    assert "Use one device:" in out
    assert "</svg>" in picture.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.keras"], "none.keras"),
        (["MODEL", "--gpu", "abacus"], "`throughput` must be one of"),
        (["MODEL", "--devices", "0"], "`devices` must be an integer"),
        (["MODEL", "--output", "plan.txt"], "`path` must end in one of"),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "model.keras")
    dense().save(path)
    with pytest.raises(SystemExit, match="2"):
        main(["plan", *(path if word == "MODEL" else word for word in words)])
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.tensorflow
def test_calibration() -> None:
    machine = calibrate(network((512,), layers.Dense(512), layers.Dense(512)), 1024)
    assert 1e6 < machine.device.throughput < 1e13
    assert 1e6 < machine.link.bandwidth < 1e12
    assert plan(dense(), 8, 2, machine.link, machine.device).recommended
    with pytest.raises(OSError, match="A worker that was to be measured ended with status 1"):
        calibrate(network((8,), Own(8)), 8)  # which another process cannot load
