"""`kerasopt.strategies.DataParallel` on logical CPUs."""

import contextlib
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from tests.contract.cases import dense_model


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], r"`devices` must name at least one of \['/device:CPU:0'"),
        ("CPU:0", r"`devices` must be a list of device names .* Received: devices='CPU:0'"),
        (2, "`devices` must be a list of device names"),
        (["CPU:0", 1], "`devices` must hold names such as 'GPU:0'. Received: 1"),
        (["CPU:0", "first"], "`devices` must hold names such as 'GPU:0'. Received: 'first'"),
        (["CPU:0", "cpu:0"], "`devices` must name each device once. Received"),
        (["CPU:0", "CPU:9"], r"`devices` must be devices of this machine.*'/device:CPU:9'\] are"),
        (["GPU:0"], "`devices` must be devices of this machine"),
    ],
)
def test_bad_devices(devices: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.DataParallel(devices)


@pytest.mark.tensorflow
def test_mixed_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    named = [tf.config.LogicalDevice(f"/device:{kind}:0", kind) for kind in ("CPU", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: named)
    with pytest.raises(ValueError, match="`devices` must all be of one kind"):
        kerasopt.strategies.DataParallel(["CPU:0", "GPU:0"])


@pytest.mark.tensorflow
def test_all_devices_by_default() -> None:
    strategy = kerasopt.strategies.DataParallel()
    assert strategy.num_replicas_in_sync == 4
    assert strategy.extended.worker_devices[0].endswith("CPU:0")


@pytest.mark.tensorflow
def test_several_sizes_in_one_process(digits: tuple) -> None:
    for names in (["CPU:0"], ["CPU:0", "CPU:1"], ["cpu:1", "/device:CPU:2", "CPU:3"], ["CPU:3"]):
        with kerasopt.strategies.DataParallel(names).scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        images, labels = (part[:120] for part in digits)
        losses = model.fit(images, labels, batch_size=12, epochs=2, verbose=0).history["loss"]
        assert losses[1] < losses[0]


@pytest.mark.tensorflow
def test_saved_model_opens_without_a_strategy(digits: tuple, tmp_path: Any) -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model = dense_model(kerasopt.optimizers.Momentum(0.1))
    model.fit(*digits, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(digits[0], verbose=0), model.predict(digits[0], verbose=0), atol=1e-6
    )


def test_other_backends_are_refused() -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("for the other backends")
    with pytest.raises(RuntimeError, match="`DataParallel` needs Keras' TensorFlow backend"):
        kerasopt.strategies.DataParallel()


@pytest.fixture
def two() -> Any:
    return kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": "ring"}, r"`reduction` must be one of \['auto', 'nccl', 'hierarchical', "),
        ({"reduction": "nccl"}, "`reduction` 'nccl' needs GPUs; use 'one_device'. Received: "),
        ({"devices": ["CPU:0", "CPU:1", "CPU:2"], "reduction": "hierarchical"}, "an even number"),
    ],
)
def test_bad_reduction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kerasopt.strategies.DataParallel(**arguments)


@pytest.mark.tensorflow
def test_hierarchical_reduction_of_an_even_number(digits: tuple) -> None:
    weights = []
    for reduction in ("one_device", "hierarchical"):
        strategy = kerasopt.strategies.DataParallel(reduction=reduction)
        with strategy.scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        model.fit(*digits, shuffle=False, verbose=0)
        weights.append(np.concatenate([w.numpy().ravel() for w in model.weights]))
    np.testing.assert_allclose(*weights, atol=1e-6)


@pytest.mark.tensorflow
def test_overridden_step_is_refused(two: Any, digits: tuple) -> None:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    with two.scope():
        model = Own([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(TypeError, match=r"`train_step`.*Received: Own.*`compute_loss`"):
        model.fit(*digits, verbose=0)


@pytest.mark.tensorflow
def test_fit_within_the_scope_is_refused(two: Any, digits: tuple) -> None:
    with two.scope():
        model = dense_model(keras.optimizers.SGD(0.1))
        with pytest.raises(RuntimeError, match=r"outside of `with strategy.scope\(\):`"):
            model.fit(*digits, verbose=0)


@pytest.mark.tensorflow
def test_compilation_for_several_replicas_is_refused(two: Any, digits: tuple) -> None:
    with two.scope():
        model = dense_model(keras.optimizers.SGD(0.1), jit_compile=True)
    with pytest.raises(ValueError, match=r"`jit_compile` must be False .* 2 replicas"):
        model.fit(*digits, verbose=0)


@pytest.mark.tensorflow
def test_weights_built_outside_are_refused(two: Any, digits: tuple) -> None:
    outside = keras.layers.Dense(10, name="outside")
    outside.build((None, 64))
    with two.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), outside])
        model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"All weights must be built within .*outside/kernel"):
        model.fit(*digits, verbose=0)


@pytest.mark.tensorflow
def test_layer_with_a_state_of_its_own_is_named_once(two: Any, digits: tuple) -> None:
    class Counting(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.count = self.add_weight(name="count", trainable=False, initializer="zeros")

        def call(self, inputs: Any) -> Any:
            return inputs

    with two.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), Counting(name="counting")])
        model.add(keras.layers.Flatten())
        model.add(keras.layers.Dense(10))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match=r"\['counting'\].*not exact"):
        model.fit(*digits, verbose=0)
    model.evaluate(*digits, verbose=0)  # a second warning would be an error


@pytest.mark.tensorflow
def test_replicas_draw_different_noise(two: Any) -> None:
    with two.scope():
        noise = keras.Sequential([keras.Input((1000,)), keras.layers.GaussianNoise(1.0)])
        noise.compile("sgd", NoiseCorrelation())
    zeros = np.zeros((8, 1000), "float32")
    assert abs(noise.train_on_batch(zeros, zeros)) < 0.05


class NoiseCorrelation(keras.losses.Loss):
    """The correlation of the first half of a batch with the second, as a loss."""

    def call(self, y: Any, y_pred: Any) -> Any:
        halves = keras.ops.reshape(y_pred, (2, 4000))
        return keras.ops.mean(halves[0] * halves[1]) / keras.ops.var(y_pred) + 0 * y[:, 0]


@pytest.mark.tensorflow
def test_summary(two: Any) -> None:
    lines: list[str] = []
    two.summary(lines.append)
    assert lines[1].startswith("replica 1 on ")
    assert lines[1].endswith("CPU:1")
    assert "'one_device' in buckets of 32 MiB" in lines[2]


@pytest.mark.tensorflow
def test_gradients_travel_in_buckets() -> None:
    import tensorflow as tf

    from kerasopt.strategies._buckets import pack

    shapes = [(3, 2), (4,), (), (50,), (2, 2), (5,)]
    gradients = [tf.random.normal(shape) for shape in shapes]
    gradients[1] = None
    gradients[2] = tf.constant(2.0, "float64")
    gradients[5] = tf.IndexedSlices(tf.ones((1,)), tf.constant([3]), tf.constant([5]))
    for limit, count in ((300, 3), (100, 4), (20, 5)):  # bytes; the vectors have 24, 200 and 16
        packed, unpack = pack(gradients, shapes, limit)
        assert len(packed) == count
        for before, after in zip(gradients, unpack(packed), strict=True):
            assert (before is None) == (after is None)
            if before is not None:
                same = np.array_equal(tf.convert_to_tensor(after), tf.convert_to_tensor(before))
                assert same


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of any generator
def test_building_reads_no_data(two: Any, digits: tuple) -> None:
    import tensorflow as tf

    opened = []

    def samples() -> Any:
        opened.append(True)
        yield from zip(*digits, strict=True)

    spec = tf.TensorSpec((8, 8, 1)), tf.TensorSpec((), tf.int64)
    data = tf.data.Dataset.from_generator(samples, output_signature=spec)
    with two.scope():
        model = dense_model(keras.optimizers.SGD(0.1))
    model.fit(data.batch(64), epochs=3, shuffle=False, verbose=0)
    assert len(opened) == 3


@pytest.mark.tensorflow
def test_shuffled_data_comes_in_the_order_of_one_device(two: Any, digits: tuple) -> None:
    losses = []
    for scope in (contextlib.nullcontext(), two.scope()):
        keras.utils.set_random_seed(0)
        with scope:
            model = dense_model(keras.optimizers.SGD(0.1))
        losses.append(model.fit(*digits, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.tensorflow
def test_data_of_unknown_sizes_is_read_to_build(two: Any) -> None:
    import tensorflow as tf

    images = tf.data.Dataset.from_tensor_slices((np.ones((8, 6, 6, 1), "float32"), np.ones(8)))
    data = images.batch(4).map(
        lambda x, y: tf.numpy_function(lambda *a: a, (x, y), (tf.float32, tf.double))
    )
    data = data.map(
        lambda x, y: (tf.ensure_shape(x, (None, None, None, 1)), tf.ensure_shape(y, (None,)))
    )
    with two.scope():
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(data, shuffle=False, verbose=0)
    assert model.layers[-1].kernel.shape == (36, 1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["unbatched", "ragged"])
def test_data_without_batches_is_refused(two: Any, kind: str) -> None:
    import tensorflow as tf

    data = tf.data.Dataset.range(8)
    data = data.map(lambda i: (i, i)) if kind == "unbatched" else data.ragged_batch(4)
    with two.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    if kind == "ragged":
        data = data.map(lambda i: tf.RaggedTensor.from_row_lengths(i, [1, 3]))
    with pytest.raises(
        ValueError, match=r"must give batches: .* Call `batch` on it\. Received: ele"
    ):
        model.fit(data, shuffle=False, verbose=0)


@pytest.mark.tensorflow
def test_dataset_that_the_user_distributed(digits: tuple) -> None:
    import tensorflow as tf

    strategy = kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"])
    losses = []
    for per_replica in (True, False):
        data = tf.data.Dataset.from_tensor_slices(digits).batch(16 if per_replica else 32)
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        if per_replica:
            data = strategy.distribute_datasets_from_function(lambda context, data=data: data)
        losses.append(model.fit(data, steps_per_epoch=4, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.tensorflow
def test_gradients_need_one_message_for_32_mib(
    two: Any, digits: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    widths = (4000, 1200, 900, *[20] * 10)
    with two.scope():
        dense = [keras.layers.Dense(width) for width in (*widths, 10)]
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), *dense]
        model = keras.Sequential(layers)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sent, reduce = [], two.reduce

    def counting(operation: Any, value: Any, axis: int | None) -> Any:
        if not tf.executing_eagerly():  # Keras reads the metrics once an epoch, eagerly
            sent.append(two.experimental_local_results(value)[0].shape.num_elements())
        return reduce(operation, value, axis)

    monkeypatch.setattr(two, "reduce", counting)
    model.fit(*(part[:8] for part in digits), verbose=0)
    others = 4  # the loss of the step, its rows, sum and count of the loss metric go with them
    assert sum(sent) == model.count_params() + others
    assert len(sent) <= -(-4 * sum(sent) // 2**25)
    assert len(model.trainable_weights) == 28
