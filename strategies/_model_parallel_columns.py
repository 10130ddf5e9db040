"""Model parallelism of columns, on the devices of one machine."""

from collections.abc import Sequence

from kerasopt.strategies._data_parallel import check_devices
from kerasopt.strategies._exact import check_backend
from kerasopt.strategies._hybrid_parallel import HybridParallel


class ModelParallelColumns(HybridParallel):
    """Trains a model that is split into columns, each on a device of its own, as one device would.

    This is `kerasopt.strategies.HybridParallel` with one row, which says what holds. Every device
    sees the whole batch. Use it where the model is too large for one device, or where its columns
    exchange small feature maps at few points, which may take less communication than gradients of
    all weights do.

    `keras.distribution.ModelParallel` does nothing on Keras' TensorFlow backend, and `tf.device`
    around layers leaves their gradients to the first device.

    Args:
        devices: Names such as `["GPU:0", "GPU:1"]`, one for each column, all of one kind. With one
            device, all columns run there.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow; later, as with
            `HybridParallel`.
        TypeError: `devices` is not a list of names; later, as with `HybridParallel`.
        ValueError: `devices` is empty, has a device twice or devices of mixed kinds, or names one
            that this machine lacks; later, as with `HybridParallel`.

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural
        networks, 2012.

    Example:
        >>> import keras, kerasopt
        >>> from kerasopt.layers import CrossConnection, split_columns
        >>> strategy = kerasopt.strategies.ModelParallelColumns(["CPU:0"])  # ["GPU:0", "GPU:1"]
        >>> with strategy.scope():
        ...     x = keras.Input((8, 8, 1))
        ...     maps = [column(x) for column in split_columns(keras.layers.Conv2D(8, 3))]
        ...     maps = CrossConnection()(maps)
        ...     columns = split_columns(keras.layers.Conv2D(8, 3, strides=2))
        ...     maps = [column(part) for column, part in zip(columns, maps)]
        ...     joined = keras.layers.Flatten()(keras.layers.Concatenate()(maps))
        ...     model = keras.Model(x, keras.layers.Dense(10)(joined))
        ...     model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> model.output_shape
        (None, 10)
    """

    def __init__(self, devices: Sequence[str]) -> None:
        check_backend("ModelParallelColumns")
        super().__init__([check_devices(devices)])
