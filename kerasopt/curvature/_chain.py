"""A model as a composition of stages, and products with the stages' Jacobians."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from kerasopt._masks import with_mask
from kerasopt.curvature._jacobian_products import jacobian_product, transposed_jacobian_product
from kerasopt.curvature._stateless import stateless

Stage: TypeAlias = tuple[str, Callable[[Any], Any]]
Rows: TypeAlias = np.ndarray  # one vector for each sample: (samples, elements)


class Chain:
    """A model y = f_T(… f_1(x)), and the Jacobians of its stages by samples.

    Attributes:
        names: The names of the depths: of the stages, after `"input"`.
    """

    def __init__(self, model: keras.Model) -> None:
        found = list(stages(model))
        self.names = ["input", *(name for name, _ in found)]
        self._stages = [function for _, function in found]
        self._dtypes = [each.dtype for each in model.inputs]
        self._variables = model.variables
        self.stage_products = stateless(model, self._run(self._apart, jacobian_product))
        self.stage_transposed = stateless(
            model, self._run(self._apart, transposed_jacobian_product)
        )
        self.products = stateless(model, self._run(self._composed, jacobian_product))
        self.transposed = stateless(model, self._run(self._composed, transposed_jacobian_product))

    def elements(self, x: Any) -> list[int]:
        """Return how many elements of one sample there are at each depth that has a derivative."""
        return [int(np.prod(h.shape[1:])) for h in self._within(None, self._values, x)]

    def _values(self, x: Any) -> list[Any]:
        """Return the tensors from the first depth on above which there are derivatives."""
        flat = keras.tree.flatten(x)
        inputs = [ops.convert_to_tensor(*e) for e in zip(flat, self._dtypes, strict=True)]
        values: list[Any] = [inputs[0] if len(inputs) == 1 else inputs]
        for stage in self._stages:
            values.append(stage(values[-1]))
        whole = [i for i, h in enumerate(values) if isinstance(h, list) or not _is_float(h)]
        return values[max(whole, default=-1) + 1 :]

    def _apart(self, x: Any) -> tuple[Any, list[Any], list[Any]]:
        """Return the stages side by side as one function, what they get, and what they return."""
        values = self._values(x)
        above = self._stages[1 - len(values) :]

        def function(at: Sequence[Any]) -> list[Any]:
            given = [with_mask(each, h, _same) for each, h in zip(at, values, strict=False)]
            return [stage(h) for stage, h in zip(above, given, strict=True)]

        # Copies: what a layer passes through, such as dropout, is the same tensor to TensorFlow.
        return function, [ops.copy(h) for h in values[:-1]], values[1:]

    def _composed(self, x: Any) -> tuple[Any, list[Any], list[Any]]:
        """Return the output as a function of what is added at each depth, zeros, and itself."""
        values = self._values(x)
        above = self._stages[1 - len(values) :]

        def function(added: Sequence[Any]) -> list[Any]:
            h = values[0]
            for stage, more in zip(above, added, strict=True):
                h = stage(with_mask(h + more, h, _same))
            return [h]

        return function, [ops.zeros_like(h) for h in values[:-1]], values[-1:]

    def _run(self, make: Callable[..., Any], product: Callable[..., Any]) -> Callable[..., Any]:
        """Return a product as a function of the variables' values, the inputs and vectors."""

        def run(x: Any, vectors: Sequence[Any]) -> list[Any]:
            function, at, outputs = make(x)
            like = at if product is jacobian_product else outputs
            shaped = [
                ops.cast(ops.reshape(v, ops.shape(h)), h.dtype)
                for v, h in zip(vectors, like, strict=True)
            ]
            return [_flat(each) for each in product(function, at, shaped)]

        return lambda values, x, vectors: self._within(values, run, x, vectors)

    def _within(self, values: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        values = values or [variable.value for variable in self._variables]
        pairs = list(zip(self._variables, values, strict=True))
        with keras.StatelessScope(pairs, collect_losses=True):
            return function(*arguments)


def stages(model: keras.Model) -> Iterator[Stage]:
    """Yield the functions of which a model is the composition, lowest first, with their names."""
    parts = _of_sequential(model) if isinstance(model, keras.Sequential) else _of_graph(model)
    for name, part in parts:
        if isinstance(part, keras.Model) and _has_graph(part):
            yield from ((f"{name}/{inner}", function) for inner, function in stages(part))
        else:
            yield name, part


def _of_sequential(model: keras.Model) -> Iterator[Stage]:
    yield from ((layer.name, layer) for layer in model.layers)


def _of_graph(model: keras.Model) -> Iterator[Stage]:
    """Cut the graph at each tensor through which all must pass."""
    output = model.outputs[0]
    below: Any = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    for operation in keras.Function(model.inputs, output).operations:
        here = operation.output
        if isinstance(operation, keras.layers.InputLayer) or not _leads(here, output):
            continue
        function = keras.Function(below, here)
        parts = [p for p in function.operations if not isinstance(p, keras.layers.InputLayer)]
        nested = parts == [operation] and isinstance(operation, keras.Model)
        yield operation.name, operation if nested else function
        below = here


def _leads(tensor: Any, output: Any) -> bool:
    """Return whether the output is a function of this tensor alone."""
    try:
        keras.Function(tensor, output)
    except ValueError:
        return False
    return not isinstance(tensor, list | tuple)


def _has_graph(model: keras.Model) -> bool:
    """Return whether a model is a graph of layers, with one output."""
    graph = getattr(model, "inputs", None) and getattr(model, "outputs", None)
    return bool(graph) and len(model.outputs) == 1


def check_chain(model: Any) -> keras.Model:
    """Return a model whose stages can be found; else raise."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    if not _has_graph(model):
        raise ValueError(
            "`model` must be a built `Sequential` or functional model with one output. Received: "
            f"{type(model).__name__} {model.name!r}; of several outputs, take "
            "`keras.Model(model.inputs, model.outputs[0])`"
        )
    return model


def _is_float(tensor: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


def _flat(tensor: Any) -> Any:
    """Return a row for each sample, of a type that NumPy has."""
    wide = "float64" if keras.backend.standardize_dtype(tensor.dtype) == "float64" else "float32"
    return ops.cast(ops.reshape(tensor, (ops.shape(tensor)[0], -1)), wide)


def _same(mask: Any) -> Any:
    return mask
