"""The exchange of feature maps between columns."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._columns import bring, device_of, running
from kerasopt._validation import check_count


@keras.saving.register_keras_serializable("kerasopt")
class CrossConnection(keras.Layer):
    """Shows every column the feature maps of all columns, at one point of the model.

    Between two such points columns know nothing of each other. Use it where they are to exchange
    what they have found: at an intermediate layer and before the fully connected ones.

        y₀ = y₁ = … = [x₀ | x₁ | …]      y_k on the device of column k

    Of each x_k, one copy goes to each of the other columns, and one gradient comes back. Without
    columns this is a concatenation, of which all outputs are the same tensor.

    Args:
        axis: The axis along which the tensors are joined. Defaults to -1, the channels.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        inputs: A list of tensors, that of column 0 first.

    Returns a list of tensors, one for each column.

    Raises:
        TypeError: `axis` is not an integer.
        ValueError: The inputs are not at least two tensors, or their shapes differ elsewhere than
            along `axis`.

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural
        networks, 2012, section 3.2.

    Example:
        >>> import keras, kerasopt
        >>> from keras import layers
        >>> x = keras.Input((8, 8, 1))
        >>> columns = [kerasopt.layers.Column(layers.Conv2D(4, 3), i) for i in range(2)]
        >>> a, b = kerasopt.layers.CrossConnection()([column(x) for column in columns])
        >>> a.shape, b.shape
        ((None, 6, 6, 8), (None, 6, 6, 8))
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = check_count("axis", axis, least=-9)

    def build(self, input_shape: Any) -> None:
        """Check that the inputs can be joined."""
        _check_shapes(input_shape, self.axis)

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        """Join the inputs for each column."""
        devices = [device_of(column) for column in range(len(inputs))]
        if len(set(devices)) == 1:
            return [ops.concatenate(inputs, axis=self.axis)] * len(inputs)
        outputs = []
        for column, device in enumerate(devices):
            with running(column):
                parts = [bring(t, device) for t in inputs]
                outputs.append(bring(ops.concatenate(parts, axis=self.axis), device))
        return outputs

    def compute_output_shape(self, input_shape: Any) -> list[Any]:
        """Return the shape of the joined inputs, once for each column."""
        shape = list(input_shape[0])
        lengths = [each[self.axis] for each in input_shape]
        shape[self.axis] = None if None in lengths else sum(lengths)
        return [tuple(shape)] * len(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "axis": self.axis}


def _check_shapes(shapes: Any, axis: int) -> None:
    received = f"Received: shapes {shapes}, axis={axis}"
    if not isinstance(shapes, list) or len(shapes) < 2:
        raise ValueError(f"`inputs` must be a list of tensors, one for each column. {received}")
    ranks = {len(shape) for shape in shapes}
    if len(ranks) > 1 or not -min(ranks) <= axis < min(ranks):
        raise ValueError(f"`inputs` must have the same rank, which has `axis`. {received}")
    others = [[*shape[:axis], *shape[axis:][1:]] for shape in shapes]
    if any(len({*lengths} - {None}) > 1 for lengths in zip(*others, strict=True)):
        raise ValueError(
            "`inputs` must have the same shape but along `axis`: pool or pad the columns alike, "
            f"so that their feature maps are of one size. {received}"
        )
