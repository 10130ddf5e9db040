"""The layers that make columns, with and without a strategy."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt
from kerasopt.layers import Column, CrossConnection, split_columns
from tests.columns import compiled, images, two_columns

IMAGES = images(5)[0]


def columns_on(*names: str) -> Any:
    return kerasopt.strategies.ModelParallelColumns(names)


def test_a_column_is_its_layers() -> None:
    inner = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D()]
    column = Column(inner, column=1)
    out = column(IMAGES)
    assert out.shape == column.compute_output_shape(IMAGES.shape) == (5, 3, 3, 4)
    np.testing.assert_array_equal(out, inner[1](inner[0](IMAGES)))
    assert [w.path for w in column.weights] == [w.path for w in inner[0].weights]


def test_split_layer_has_the_function_of_the_whole() -> None:
    whole = layers.Conv2D(6, 3, name="whole")
    expected = whole(IMAGES)
    parts = split_columns(layers.Conv2D(6, 3, name="whole"), 3)
    for i, part in enumerate(parts):
        part.build(IMAGES.shape)
        part.set_weights([w[..., 2 * i : 2 * i + 2] for w in whole.get_weights()])
    joined = keras.ops.concatenate([part(IMAGES) for part in parts], axis=-1)
    np.testing.assert_allclose(joined, expected, atol=1e-6)
    assert [part.column for part in parts] == [0, 1, 2]


def test_split_columns_start_from_different_weights() -> None:
    for seed in (None, 7):
        initializer = keras.initializers.GlorotUniform(seed)
        first, second = split_columns(layers.Dense(6, kernel_initializer=initializer))
        for part in (first, second):
            part.build((None, 4))
        assert np.abs(first.get_weights()[0] - second.get_weights()[0]).min() > 0


def test_groups_are_split_as_well() -> None:
    parts = split_columns(layers.Conv2D(8, 3, groups=4), 2)
    assert [part.layers[0].groups for part in parts] == [2, 2]


@pytest.mark.parametrize("axis", [-1, 1])
def test_cross_connection_joins_for_every_column(axis: int) -> None:
    parts = [IMAGES, 2 * IMAGES, 3 * IMAGES]
    outputs = CrossConnection(axis)(parts)
    shapes = CrossConnection(axis).compute_output_shape([part.shape for part in parts])
    assert len(outputs) == 3
    for output, shape in zip(outputs, shapes, strict=True):
        np.testing.assert_array_equal(output, np.concatenate(parts, axis))
        assert tuple(output.shape) == shape


def test_layers_of_several_inputs_and_masks() -> None:
    words = keras.Input((7,))
    embedded = Column(layers.Embedding(9, 4, mask_zero=True), 1)(words)
    joined = Column(layers.Add(), 0)([embedded, embedded])
    alike = keras.Model(words, Column(layers.LSTM(3), 1)(joined))
    random = np.random.default_rng(0).integers(1, 9, (4, 7))
    ended = np.where(np.arange(7) < 5, random, 0)
    changed = np.where(np.arange(7) < 5, random, 0).copy()
    short = keras.Model(words, alike(words))
    np.testing.assert_array_equal(short(ended), alike(changed))
    shorter = np.concatenate([ended[:, :5], np.zeros((4, 2), int)], axis=1)
    np.testing.assert_allclose(alike(shorter), alike(ended))
    unmasked = alike.layers[-1].layers[0](joined_values(alike, ended))
    assert np.abs(unmasked - alike(ended)).max() > 1e-4


def joined_values(model: keras.Model, words: np.ndarray) -> Any:
    """Return the doubled embeddings without their mask."""
    return keras.ops.convert_to_tensor(2 * np.asarray(model.layers[1].get_weights()[0])[words])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "float32"])
def test_trains_and_loads_on_one_device(precision: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(precision)
    make = (layers.BatchNormalization, lambda: layers.Dropout(0.2))
    model = compiled(None, lambda: keras.optimizers.Adam(0.01), lambda: two_columns(*make))
    losses = model.fit(*images(64), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        model.predict(IMAGES, verbose=0), loaded.predict(IMAGES, verbose=0)
    )


def test_three_columns_compiled() -> None:
    model = compiled(
        None, lambda: keras.optimizers.SGD(0.1), lambda: two_columns(columns=3), jit_compile=True
    )
    losses = model.fit(*images(32), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Column(layers.Dense(1), -1),
            "`column` must be an integer ≥ 0. Received: column=-1",
        ),
        (lambda: Column(layers.Dense(1), 0.5), "`column` must be an integer ≥ 0"),
        (lambda: Column("dense"), "`layers` must be a layer or a list. Received: layers='dense'"),
        (lambda: Column([]), "`layers` must hold at least one layer. Received"),
        (lambda: CrossConnection(1.5), "`axis` must be an integer"),
        (lambda: CrossConnection()(IMAGES), "`inputs` must be a list of tensors, one for each col"),
        (lambda: CrossConnection()([IMAGES]), "`inputs` must be a list of tensors"),
        (lambda: CrossConnection()([IMAGES, IMAGES[0]]), "`inputs` must have the same rank"),
        (
            lambda: CrossConnection(5)([IMAGES, IMAGES]),
            "rank, which has `axis`. Received: .*axis=5",
        ),
        (
            lambda: CrossConnection()([IMAGES, IMAGES[:, 1:]]),
            r"`inputs` must have the same shape but along `axis`: pool or pad .* \(5, 7, 8, 1\)",
        ),
        (lambda: split_columns(layers.Flatten()), "`layer` must have `filters` or `units`. Receiv"),
        (
            lambda: split_columns("conv"),
            "`layer` must have `filters` or `units`. Received: layer='",
        ),
        (lambda: split_columns(layers.Dense(4), 1), "`columns` must be an integer ≥ 2"),
        (
            lambda: split_columns(layers.Dense(5)),
            "width that `columns` divides. Received: columns=2",
        ),
        (
            lambda: split_columns(layers.Conv2D(8, 3, groups=1), 3),
            "`layer` must have no weights yet",
        ),
        (lambda: split_columns(built()), "`layer` must have no weights yet, .*built=True"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def built() -> keras.Layer:
    layer = layers.Dense(4)
    layer.build((None, 2))
    return layer


def test_other_backends_are_refused() -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("for the other backends")
    with pytest.raises(RuntimeError, match="`ModelParallelColumns` needs Keras' TensorFlow"):
        columns_on("CPU:0", "CPU:1")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "`devices` must name at least one of"),
        ("CPU:0", "`devices` must be a list of device names"),
        (["CPU:0", "cpu:0"], "`devices` must name each device once. Received"),
        (["CPU:0", "CPU:9"], r"`devices` must be devices of this machine.*'/device:CPU:9'\] are"),
    ],
)
def test_bad_devices(devices: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.ModelParallelColumns(devices)


@pytest.mark.tensorflow
def test_column_out_of_range() -> None:
    with (
        columns_on("CPU:0", "CPU:1").scope(),
        pytest.raises(ValueError, match=r"`column` must be less than 2.* Received: column=2"),
    ):
        two_columns(columns=3)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jit_compile": True}, "`jit_compile` must be False or 'auto' with several columns: XLA"),
        ({"run_eagerly": True}, "`run_eagerly` must be False with several columns"),
    ],
)
def test_what_loses_the_place_is_refused(arguments: dict[str, Any], message: str) -> None:
    strategy = columns_on("CPU:0", "CPU:1")
    model = compiled(strategy, keras.optimizers.SGD, **arguments)
    with pytest.raises(ValueError, match=message):
        model.fit(*images(8), verbose=0)


@pytest.mark.tensorflow
def test_optimizers_that_ask_for_the_loss_are_refused() -> None:
    model = compiled(columns_on("CPU:0", "CPU:1"), lambda: kerasopt.optimizers.SAM("sgd"))
    with pytest.raises(ValueError, match=r"act on the gradient alone with several columns.*'sam'"):
        model.fit(*images(8), verbose=0)


@pytest.mark.tensorflow
def test_weights_that_keras_builds_too_late_are_refused() -> None:
    class Late(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.flat = Column(layers.Dense(10), 1), layers.Flatten()

        def call(self, x: Any) -> Any:
            return self.first(self.flat(x))

    model = compiled(columns_on("CPU:0", "CPU:1"), keras.optimizers.SGD, Late)
    with pytest.raises(ValueError, match=r"`Column` must be built .*kernel on \['CPU:0'\], not on"):
        model.fit(*images(8), verbose=0)


@pytest.mark.tensorflow
def test_layers_with_weights_are_copied_to_the_column() -> None:
    with columns_on("CPU:0", "CPU:1").scope():
        keras.utils.set_random_seed(0)
        inner = keras.Sequential([keras.Input((64,)), layers.Dense(3), layers.Dropout(0.5)])
        inner.set_weights([np.full((64, 3), 2.0), np.ones(3)])
        column = Column(inner, 1)
        after = keras.random.uniform((2,))
    assert {v.value.values[0].device[-5:] for v in column.variables} == {"CPU:1"}
    np.testing.assert_array_equal(column.get_weights()[1], np.ones(3))
    for copied, given in zip(column.variables, inner.variables, strict=True):
        np.testing.assert_array_equal(copied.numpy(), given.numpy())
    keras.utils.set_random_seed(0)
    Column(keras.Sequential([keras.Input((64,)), layers.Dense(3), layers.Dropout(0.5)]), 1)
    np.testing.assert_array_equal(keras.random.uniform((2,)), after)  # no seed was spent
