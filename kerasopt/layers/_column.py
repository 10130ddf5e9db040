"""Layers that run on the device of one column."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import keras
from keras import tree

from kerasopt._columns import bring, building, device_of, misplaced, running
from kerasopt._validation import check_count


@keras.saving.register_keras_serializable("kerasopt")
class Column(keras.Layer):
    """Runs layers on the device of one column of a model that is split over several devices.

    Under `kerasopt.strategies.ModelParallelColumns` or `HybridParallel` the weights of the layers,
    the state that the optimizer keeps of them, and all operations of the forward and the backward
    pass are on the device that the strategy gives to this column. Use it where a model is too large
    or too slow for one device: columns that have no connection run at the same time, and only what
    goes from one to another is sent.

        y = layerₙ(… layer₁(x))      x and ∂J/∂x cross to the device and back, once each

    Under any other strategy, without one and on JAX, the layers run where all others do, with the
    same result. Saved models hold the number of the column, not the device.

    A layer that has variables already, such as a functional model or `Dropout`, is copied with its
    values under these strategies; `layers` holds what is used.

    Args:
        layers: A layer, or a list of layers that follow each other. The first may take a list of
            tensors.
        column: The number of the column, 0 or larger. Defaults to 0.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Call arguments:
        inputs: A tensor, or a list of tensors, from any column.

    Raises:
        TypeError: `layers` holds something else than layers; `column` is not an integer ≥ 0.
        ValueError: `layers` is empty; `column` is negative, or, when the model is built, the
            strategy has several columns but not this one.

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural
        networks, 2012, section 3.2.

    Example:
        >>> import keras, kerasopt
        >>> from keras import layers
        >>> x = keras.Input((8, 8, 1))
        >>> convolution = layers.Conv2D(4, 3), layers.MaxPooling2D()
        >>> kerasopt.layers.Column(convolution, column=1)(x).shape
        (None, 3, 3, 4)
    """

    def __init__(
        self, layers: keras.Layer | Sequence[keras.Layer], column: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.column = check_count("column", column, least=0)
        given = [layers] if isinstance(layers, keras.Layer) else layers
        if not isinstance(given, Sequence) or not all(isinstance(x, keras.Layer) for x in given):
            raise TypeError(f"`layers` must be a layer or a list. Received: layers={layers!r}")
        if not given:
            raise ValueError("`layers` must hold at least one layer. Received: layers=[]")
        with building(column):
            self.layers = [_own(layer) for layer in given]
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the weights on the device of the column."""
        with building(self.column):
            for layer in self.layers:
                if not layer.built:
                    layer.build(input_shape)
                input_shape = layer.compute_output_shape(input_shape)
        for variable in self.trainable_variables:
            if variable.regularizer is not None:
                variable.regularizer = partial(_penalty, self.column, variable.regularizer)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Run the layers, which get `training` from Keras."""
        device = device_of(self.column)
        outputs = tree.map_structure(lambda t: bring(t, device), inputs)
        with running(self.column):
            for layer in self.layers:
                outputs = layer(outputs)
        return tree.map_structure(lambda t: bring(t, device), outputs)  # lets gradients arrive

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Leave to the layers which mask is on the outputs."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of what the last layer returns."""
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        for layer in layers:
            layer.pop("build_config", None)  # this layer builds them
        return {**super().get_config(), "layers": layers, "column": self.column}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a layer of its arguments; what is built on the way belongs to the column."""
        with building(config["column"]):
            layers = [keras.saving.deserialize_keras_object(each) for each in config["layers"]]
        return cls(**{**config, "layers": layers})


def _penalty(column: int, regularizer: Callable[[Any], Any], variable: keras.Variable) -> Any:
    """Return the penalty of a weight, computed where the weight is."""
    with running(column):
        return bring(regularizer(variable), device_of(column))


def _own(layer: keras.Layer) -> keras.Layer:
    """Return a layer whose variables, if it has some, are those of the column in building."""
    if not misplaced(layer.variables):
        return layer
    state = random.getstate()  # a copied layer that draws takes no seed from those that follow
    copy = type(layer).from_config(layer.get_config())
    random.setstate(state)
    if layer.built and not copy.built:
        copy.build_from_config(layer.get_build_config())
    for new, old in zip(copy.variables, layer.variables, strict=True):
        new.assign(old)
    return copy
