"""The calls of layers that a model makes, found without computing anything."""

import inspect
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree


@dataclass
class Call:
    """A call of a layer or operation of Keras, and the calls within it."""

    layer: Any
    arguments: dict[str, Any]
    outputs: Any = None
    calls: list["Call"] = field(default_factory=list)

    @property
    def inputs(self) -> list[Any]:
        """The tensors that are given to it, in order."""
        return tensors(list(self.arguments.values()))


class Run(keras.layers.Layer):
    """Calls another layer; Keras finds the shapes of what a layer such as this calls by tracing."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        """Return what the layer returns."""
        return self.layer(inputs)


def record(layer: Any, inputs: Any) -> Call:
    """Return the call of a layer or model with symbolic inputs."""
    calls: list[Call] = []
    stack, original = [calls], keras.Operation.__call__

    def recording(operation: Any, *args: Any, **kwargs: Any) -> Any:
        call = Call(operation, inspect.signature(operation.call).bind(*args, **kwargs).arguments)
        stack[-1].append(call)
        stack.append(call.calls)
        try:
            call.outputs = original(operation, *args, **kwargs)
        finally:
            stack.pop()
        return call.outputs

    keras.Operation.__call__ = recording  # layers call it, and so do the operations of `keras.ops`
    try:
        Run(layer).compute_output_spec(inputs)
    finally:
        keras.Operation.__call__ = original
    return calls[-1]


def one_sample(model: keras.Model) -> Any:
    """Return symbolic inputs of a model for a batch of one."""
    received = f"Received: model={model.name!r}"
    if not model.built:
        raise ValueError(f"`model` must be built: call it, or `build`, once. {received}")
    if isinstance(model, keras.Sequential):
        inputs = model.inputs[0]
    elif isinstance(model, keras.Function):
        inputs = model.input
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, tuple | list) or not all(isinstance(n, int | None) for n in shape):
            raise ValueError(f"`model` must have one input, or be a functional model. {received}")
        inputs = keras.KerasTensor(shape, keras.config.floatx())
    for each in tree.flatten(inputs):
        if None in each.shape[1:]:
            raise ValueError(
                "`model` must have inputs whose shapes are known but for the batch. "
                f"{received}, whose input has the shape {tuple(each.shape)}"
            )
    return tree.map_structure(lambda t: keras.KerasTensor((1, *t.shape[1:]), t.dtype), inputs)


def tensors(structure: Any) -> list[Any]:
    """Return what has a shape in a structure."""
    return [t for t in tree.flatten(structure) if hasattr(t, "shape")]
