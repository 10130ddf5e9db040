"""Proof of placement: what ran where, and what crossed between devices."""

import math
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from tests.columns import apart, compiled, images, two_columns

pytestmark = pytest.mark.tensorflow

BATCH, FLOAT = 20, 4
# What one column has of the two_columns network, for one image.
FIRST, SECOND, TOP = 6 * 6 * 6, 4 * 4 * 6, 6
LISTS = ("forward", "backward")


@pytest.fixture(scope="module")
def placed() -> tuple[keras.Model, Any]:
    strategy = kerasopt.strategies.ModelParallelColumns(["CPU:0", "CPU:1"])
    model = compiled(strategy, lambda: keras.optimizers.Adam(0.01))
    model.fit(*images(2 * BATCH), batch_size=BATCH, verbose=0)
    before = [w.numpy() for w in (*model.variables, *model.optimizer.variables)]
    placement = strategy.placement(model, images(BATCH))
    for value, w in zip(before, (*model.variables, *model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(w.numpy(), value)
    return model, placement


def kinds(placement: Any, device: str, phase: str, column: int) -> list[str]:
    """Return the kinds of the convolutions and products of a column that ran on a device."""
    return [
        each.type
        for each in placement.devices[device].operations
        if f"column_{column}" in each.name
        and each.phase == phase
        and ("Conv2D" in each.type or "MatMul" in each.type)
    ]


@pytest.mark.parametrize("column", [0, 1])
def test_all_work_of_a_column_is_on_its_device(placed: tuple, column: int) -> None:
    _, placement = placed
    here, other = f"CPU:{column}", f"CPU:{1 - column}"
    forward, backward = (kinds(placement, here, phase, column) for phase in LISTS)
    assert len(forward) == 3
    assert sum("BackpropFilter" in kind for kind in backward) == 2
    assert len(backward) == 5  # the first convolution needs no gradient of the images
    assert [kinds(placement, other, phase, column) for phase in LISTS] == [[], []]


@pytest.mark.parametrize("column", [0, 1])
def test_slots_live_with_their_variable(placed: tuple, column: int) -> None:
    model, placement = placed
    own = [v.path for v in model.optimizer.variables if f"column_{column}" in v.path]
    own += [v.path for v in model.weights if f"column_{column}" in v.path]
    assert len(own) == 6 * 3
    assert {*own} <= {*placement.devices[f"CPU:{column}"].variables}
    assert not {*own} & {*placement.devices[f"CPU:{1 - column}"].variables}


def test_each_state_crosses_once_each_way(placed: tuple) -> None:
    _, placement = placed
    crossings = {
        ("CPU:0", "CPU:1"): [
            64,
            FIRST,
            SECOND,
            FIRST,
            SECOND,
            TOP,
        ],  # images, 2 states, 3 gradients
        ("CPU:1", "CPU:0"): [FIRST, SECOND, TOP, FIRST, SECOND],
    }
    for (source, target), sizes in crossings.items():
        sent = [t for t in placement.transfers if (t.source, t.target) == (source, target)]
        states = [t for t in sent if t.shape not in ((), (0,))]
        assert sorted(t.bytes for t in states) == sorted(BATCH * FLOAT * n for n in sizes)
        assert all(t.bytes == math.prod(t.shape) * FLOAT for t in states)
        # Adam reads rate and step for each of the 6 weights of column 1; the 0 is an order.
        scalars = [t.bytes for t in sent if t not in states]
        assert sorted(scalars) == ([4] * 6 + [8] * 6 if target == "CPU:1" else [0])


def test_half_of_the_bytes_are_on_each_device(placed: tuple) -> None:
    model, placement = placed
    sizes = [sum(device.variables.values()) for device in placement.devices.values()]
    variables = {id(v): v for v in (*model.variables, *model.optimizer.variables)}
    variables |= {id(v): v for v in model.metrics_variables}
    expected = sum(np.prod(v.shape, dtype=int) * v.value.dtype.size for v in variables.values())
    assert sum(sizes) == expected
    classes = 3 * FLOAT * model.get_layer("classes").count_params()  # in no column
    assert sizes[1] == pytest.approx((expected - classes) / 2, rel=0.01)


def test_peak_on_each_of_two_devices_is_about_half() -> None:
    peaks = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = kerasopt.strategies.ModelParallelColumns(devices)
        model = compiled(strategy, lambda: keras.optimizers.Adam(0.01), apart)
        placement = strategy.placement(model, images(64))
        assert not any(device.peak_is_measured for device in placement.devices.values())
        peaks.append([device.peak_bytes for device in placement.devices.values()])
    whole, halves = peaks
    assert 0.45 * whole[0] < min(halves) <= max(halves) < 0.55 * whole[0]


def test_gradients_of_a_column_stay_within_it() -> None:
    strategy = kerasopt.strategies.HybridParallel(data=2, model=2)
    model = compiled(strategy, lambda: kerasopt.optimizers.Momentum(0.01))
    model.fit(*images(8), verbose=0)
    placement = strategy.placement(model, images(8))
    across = [t for t in placement.transfers if (t.source, t.target) == ("CPU:3", "CPU:1")]
    weights = [w for w in model.weights if "column_1" in w.path]
    size = FLOAT * sum(math.prod(w.shape) for w in weights)
    assert [t.bytes for t in across if t.bytes] == [size]
    across = [t for t in placement.transfers if (t.source, t.target) == ("CPU:0", "CPU:3")]
    assert sorted(t.bytes for t in across) == [4, 4 * 64 * FLOAT]  # the rate, and its images
    assert len(kinds(placement, "CPU:3", "backward", 1)) == 5
    copies = 3  # of each weight: itself, its last step, and what the fused update moves
    assert sum(placement.devices["CPU:3"].variables.values()) == copies * size


def test_regularisers_and_clipping_send_scalars_only(placed: tuple) -> None:
    strategy = kerasopt.strategies.ModelParallelColumns(["CPU:0", "CPU:1"])
    make = lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5, weight_decay=0.1)  # noqa: E731
    build = lambda: two_columns(kernel_regularizer="l2")  # noqa: E731
    model = compiled(strategy, make, build)
    placement = strategy.placement(model, images(BATCH))
    plain = sorted(t.bytes for t in placed[1].transfers if len(t.shape) > 1)
    assert sorted(t.bytes for t in placement.transfers if len(t.shape) > 1) == plain
    assert all(t.bytes <= 8 for t in placement.transfers if len(t.shape) < 2)


def test_batch_of_the_last_step_by_default(placed: tuple) -> None:
    model, _ = placed
    strategy = model.distribute_strategy
    lines = str(strategy.placement(model)).splitlines()
    assert lines[0].split()[:3] == ["device", "variables", "bytes"]
    assert lines[1].startswith("CPU:0")
    assert lines[-1].split()[:2] in (["CPU:0", "CPU:1"], ["CPU:1", "CPU:0"])


def test_model_that_was_not_trained_needs_a_batch() -> None:
    strategy = kerasopt.strategies.ModelParallelColumns(["CPU:0", "CPU:1"])
    model = compiled(strategy, keras.optimizers.SGD)
    with pytest.raises(ValueError, match="`batch` must be given for a model that has not been tr"):
        strategy.placement(model)


def test_tensorflow_still_records_what_it_runs() -> None:
    import tensorflow as tf

    from kerasopt.strategies._executed import Executed

    @tf.function
    def step(x: Any) -> Any:
        with tf.device("CPU:1"):
            return tf.tanh(x)

    x = tf.zeros((3, 5))
    executed = Executed(step.get_concrete_function(x), lambda: step(x))
    message = f"TensorFlow {tf.__version__} has changed what strategies/_executed.py reads"
    assert [(t.bytes, t.target[-5:]) for t in executed.transfers()] == [(60, "CPU:1")] * 1, message
    assert "Tanh" in [operation.type for operation in executed.operations()], message
