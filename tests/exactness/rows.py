"""The rows of the table."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, optimizers

import kerasopt
from tests.exactness.compare import SGD, Row, cross_entropy, images, network, sgd


def words(count: int) -> tuple[Any, Any]:
    """Return sequences of words, 0 where they have ended, and a class for each."""
    random = np.random.default_rng(0)
    sequences = random.integers(1, 12, (count, 7))
    sequences[np.arange(7) >= random.integers(1, 8, count)[:, None]] = 0
    return sequences, random.integers(0, 10, count)


def tagged_words(count: int) -> tuple[Any, Any]:
    """Return sequences of words, and a class for each word."""
    return words(count)[0], np.random.default_rng(1).integers(0, 10, (count, 7))


def two_targets(count: int) -> tuple[Any, Any]:
    """Return images, and a class and a number for each."""
    x, y = images(count)
    return x, {"kind": y, "size": np.sin(np.arange(count))[:, None]}


def recurrent(tags: bool) -> Any:
    """Return a builder of a masked recurrent network."""
    return lambda: keras.Sequential(
        [
            keras.Input((7,)),
            layers.Embedding(12, 4, mask_zero=True),
            layers.LSTM(5, return_sequences=tags),
            layers.Dense(10),
        ]
    )


def recurrent_dropout() -> keras.Model:
    """Return a recurrent network that drops out inputs and states, in both directions."""
    return keras.Sequential(
        [
            keras.Input((7,)),
            layers.Embedding(12, 4, mask_zero=True),
            layers.Bidirectional(layers.GRU(4, dropout=0.3, return_sequences=True)),
            layers.LSTM(5, dropout=0.3, recurrent_dropout=0.2),
            layers.Dense(10),
        ]
    )


def masked_normalisation() -> keras.Model:
    """Return a recurrent network with batch normalisation of the words that are there."""
    embedding = layers.Embedding(12, 4, mask_zero=True)
    inner = [embedding, layers.BatchNormalization(), layers.LSTM(4)]
    return keras.Sequential([keras.Input((7,)), *inner, layers.Dense(10)])


def attention() -> keras.Model:
    """Return a masked network with attention, which drops out."""
    words = keras.Input((7,))
    x = layers.Embedding(12, 8, mask_zero=True)(words)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, dropout=0.3)(x, x))
    return keras.Model(words, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def nested() -> keras.Model:
    """Return a model within a model, and a layer that is used twice."""
    shared = layers.BatchNormalization()
    inputs = keras.Input((8, 8, 1))
    x = network(layers.BatchNormalization, lambda: layers.Dropout(0.3))()(inputs)
    return keras.Model(inputs, shared(layers.Dense(10)(shared(x))))


def fast_generators() -> keras.Model:
    """Return a network with each of the layers that draw by kerasopt's own generator."""
    ours = kerasopt.layers
    return network(
        lambda: ours.RandomGaussianNoise(0.3, per_channel=True),
        lambda: ours.GaussianNoise(0.1),
        lambda: ours.SpatialDropout2D(0.2),
        lambda: ours.GaussianDropout(0.1),
        lambda: ours.Dropout(0.1, noise_shape=(None, 1, None, None)),
        lambda: ours.Dropout(0.2),
    )()


def branched() -> keras.Model:
    """Return a functional network of two outputs."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="tanh")(inputs))
    outputs = {"kind": layers.Dense(10)(x), "size": layers.Dense(1)(x)}
    return keras.Model(inputs, outputs)


class Subclassed(keras.Model):
    """A model by subclassing, whose loss depends on the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(8, activation="tanh"), layers.Dense(10)
        self.flatten = layers.Flatten()

    def build(self, shape: Any) -> None:
        """Build the layers."""
        self.first.build((None, 64))
        self.last.build((None, 8))

    def call(self, inputs: Any) -> Any:
        """Classify."""
        return self.last(self.first(self.flatten(inputs)))


class OwnLoss(Subclassed):
    """Its loss depends on the whole batch, and on the inputs."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> Any:
        """Return a spread over the batch beside the usual loss."""
        usual = super().compute_loss(x, y, y_pred, sample_weight)
        return usual + ops.std(y_pred) * ops.mean(ops.abs(x))


@keras.saving.register_keras_serializable("tests")
class Spread(keras.layers.Layer):
    """Adds a loss of its outputs."""

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""
        self.add_loss(0.1 * ops.mean(ops.square(inputs)))
        return inputs


class LargestError(keras.metrics.Metric):
    """The largest loss of a batch, summed: not a mean over samples."""

    def __init__(self) -> None:
        super().__init__(name="largest")
        self.total = self.add_variable((), "zeros")

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the largest of this batch."""
        losses = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        self.total.assign_add(ops.cast(ops.max(losses), self.total.dtype))

    def result(self) -> Any:
        """Return the sum."""
        return self.total


class Batches(keras.utils.PyDataset):
    """Batches of arrays."""

    def __init__(self, x: Any, y: Any, size: int) -> None:
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, index: int) -> Any:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]


def tf_data(x: Any, y: Any, size: int) -> tf.data.Dataset:
    """Return batches as `tf.data`."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def frozen() -> keras.Model:
    """Return a network whose first layer does not learn."""
    model = network(layers.BatchNormalization)()
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    return model


def uneven_first(x: Any, y: Any, size: int) -> tf.data.Dataset:
    """Return batches of which the first is smaller."""
    return tf_data(x[:5], y[:5], 5).concatenate(tf_data(x[5:], y[5:], size))


L2 = keras.regularizers.L2(0.01)
WEIGHTS = np.random.default_rng(2).uniform(size=53).astype("float32")
UNEVEN: dict[str, Any] = {"samples": 53}  # batches of 16, 16, 16 and 5
EMPTY: dict[str, Any] = {"samples": 49}  # the last batch is one sample: the others have none
AUGMENT = kerasopt.layers.RandomGaussianNoise

ROWS = (
    Row("even"),
    Row("uneven last", **UNEVEN),
    Row("uneven first", feed=uneven_first, **UNEVEN),
    Row("fewer samples than replicas", **EMPTY),
    Row("one sample a batch", samples=24, batch=1),
    Row(
        "sample_weight",
        fit={"sample_weight": WEIGHTS},
        compile={"weighted_metrics": ["accuracy"]},
        **UNEVEN,
    ),
    Row("class_weight", fit={"class_weight": {i: 0.5 + i / 10 for i in range(10)}}, **UNEVEN),
    Row("masked sequences", recurrent(False), data=words, **EMPTY),
    Row("masked outputs", recurrent(True), data=tagged_words, **EMPTY),
    Row(
        "several outputs",
        branched,
        data=two_targets,
        compile={
            "loss": {"kind": cross_entropy(), "size": "mae"},
            "metrics": {"kind": ["accuracy"], "size": ["mse"]},
            "loss_weights": {"kind": 0.7, "size": 2.0},
        },
        **UNEVEN,
    ),
    Row(
        "sum reduction",
        optimizer=lambda: optimizers.SGD(0.002, momentum=0.9),
        compile={"loss": cross_entropy(reduction="sum")},
        **UNEVEN,
    ),
    Row(
        "mean_with_sample_weight",
        compile={"loss": cross_entropy(reduction="mean_with_sample_weight")},
        fit={"sample_weight": WEIGHTS},
        **UNEVEN,
    ),
    Row("add_loss", network(Spread), **EMPTY),
    Row("weight regularisers", network(kernel_regularizer=L2, bias_regularizer=L2), **UNEVEN),
    Row("activity regularisers", network(activity_regularizer=L2), **EMPTY),
    Row("BatchNormalization", network(lambda: layers.BatchNormalization(momentum=0.9)), **UNEVEN),
    Row("BatchNormalization, empty", network(layers.BatchNormalization), **EMPTY),
    Row(
        "BatchNormalization and activity regularisers",
        network(
            layers.BatchNormalization, Spread, layers.BatchNormalization, activity_regularizer=L2
        ),
        **EMPTY,
    ),
    Row("Dropout", network(lambda: layers.Dropout(0.5)), **EMPTY),
    Row("SpatialDropout2D", network(lambda: layers.SpatialDropout2D(0.5)), **UNEVEN),
    Row("GaussianNoise", network(lambda: layers.GaussianNoise(0.5)), **EMPTY),
    Row("BatchNormalization, masked", masked_normalisation, data=words, **EMPTY),
    Row("recurrent dropout", recurrent_dropout, data=words, **EMPTY),
    Row("attention dropout", attention, data=words, **EMPTY),
    Row("nested models", nested, **EMPTY),
    Row("AlphaDropout", network(lambda: layers.AlphaDropout(0.3)), **UNEVEN),
    Row("RandomTranslation", network(lambda: layers.RandomTranslation(0.2, 0.2)), **UNEVEN),
    Row(
        "RandomGaussianNoise", network(lambda: AUGMENT(0.5, clip=(-1, 1), probability=0.5)), **EMPTY
    ),
    Row("fast generators", fast_generators, **EMPTY),
    Row("clipnorm", optimizer=sgd(clipnorm=0.1), **UNEVEN),
    Row("clipvalue", optimizer=sgd(clipvalue=0.01), **UNEVEN),
    Row("global_clipnorm", optimizer=sgd(global_clipnorm=0.1), **UNEVEN),
    Row("gradient_accumulation_steps", optimizer=sgd(gradient_accumulation_steps=3), **UNEVEN),
    Row(
        "use_ema",
        optimizer=sgd(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5),
        **UNEVEN,
    ),
    Row("weight_decay", optimizer=sgd(weight_decay=0.01), **UNEVEN),
    Row("Adam", optimizer=lambda: optimizers.Adam(0.01, epsilon=1e-3), **UNEVEN),
    Row("AdamW", optimizer=lambda: optimizers.AdamW(0.01, epsilon=1e-3), **UNEVEN),
    Row("Lion", optimizer=lambda: optimizers.Lion(1e-3), **UNEVEN),
    Row("Lamb", optimizer=lambda: optimizers.Lamb(0.01, epsilon=1e-3), **UNEVEN),
    Row("Muon", optimizer=lambda: optimizers.Muon(0.01), **UNEVEN),
    Row("Momentum", optimizer=lambda: kerasopt.optimizers.Momentum(0.3), **UNEVEN),
    Row("mixed_float16", policy="mixed_float16", close=2000, **UNEVEN),
    Row(
        "LossScaleOptimizer",
        optimizer=lambda: optimizers.LossScaleOptimizer(SGD(), initial_scale=64.0),
        **UNEVEN,
    ),
    Row("steps_per_execution", compile={"steps_per_execution": 3}, samples=53, batch=9),
    Row("run_eagerly", compile={"run_eagerly": True}, **UNEVEN),
    Row("frozen layers", frozen, **UNEVEN),
    Row("subclassed", Subclassed, **EMPTY),
    Row("custom compute_loss", OwnLoss, **EMPTY),
    Row("custom metric", compile=lambda: {"metrics": [LargestError()]}, **UNEVEN),
    Row("train_on_batch", samples=52, batch=13),
    Row("PyDataset", feed=Batches, **UNEVEN),
    Row("tf.data", feed=tf_data, **EMPTY),
    Row(
        "everything",
        network(
            layers.BatchNormalization, lambda: layers.Dropout(0.3), Spread, kernel_regularizer=L2
        ),
        sgd(global_clipnorm=0.5, use_ema=True, gradient_accumulation_steps=2),
        fit={"class_weight": {i: 0.5 + i / 10 for i in range(10)}},
        compile={"steps_per_execution": 2},
        **EMPTY,
    ),
)
