"""The loss of a model on all of some data, and products with its second derivatives."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops, tree

from kerasopt._autodiff import each
from kerasopt._objective import Objective, of_batch, rows_of
from kerasopt._validation import check_choice, check_count, check_flag
from kerasopt.curvature._compiled import compiled
from kerasopt.curvature._data import all_batches
from kerasopt.curvature._first_call import first_call
from kerasopt.curvature._weights import weights_of
from kerasopt.optimizers._diagonal import random_signs
from kerasopt.optimizers._flat import ravel, widest

KINDS = ("hessian", "gauss_newton")


class Curvature:
    """The loss of a model on given data, with products H v and G v at its present weights.

    All functions of `kerasopt.curvature` take a model with data, and make one of these; make it
    yourself where you call several of them, or one of them again and again: it is compiled once,
    and follows the weights of the model.

        J(w) = 1/N Σ_i s_i l_i(w) + R(w)              N rows, s_i their weights, R the penalties
        H = ∇²J                                       the Hessian
        G = 1/N Σ_i s_i J_iᵀ ∇²l_i J_i + ∇²R          Gauss-Newton: J_i = ∂z_i/∂w of the outputs z_i

    The data are read once and kept in memory. Layers do as in inference, so that J is a function:
    nothing is dropped, and batch normalisation goes by its moving averages. A model under a
    strategy is looked at on its first replica. Where a mask leaves out parts of rows, batches
    count by their rows.

    Args:
        model: A Keras model.
        x: Inputs: arrays, or a `tf.data.Dataset`, a `keras.utils.PyDataset` or any other iterable
            of batches, which has an end.
        y: Targets, of arrays. Defaults to None.
        loss: A loss as `compile` takes it; None for that of the compiled model. Defaults to None.
        sample_weight: Weights of the rows, of arrays. Defaults to None.
        batch_size: Rows that are computed at a time, of arrays. Less needs less memory, and changes
            nothing else. Defaults to None, which is 2,048.
        layer: A layer, the name of one, or a list of these: the derivatives are by their trainable
            weights only, and all others stay as they are. Defaults to None: all trainable weights.
        training: Whether layers do as in training. Random layers then draw the same numbers in
            each product, and batches are normalised each by itself. Defaults to False.

    Attributes:
        weights: The variables.
        size: How many numbers they hold, n.

    Raises:
        TypeError: `model` is not a Keras model, or another argument has the wrong type.
        ValueError: There is neither `loss` nor a compiled one; the loss of several batches is not
            a mean over rows; there is no such layer, or it has no trainable weights; `x` has no
            rows or no end.
        FloatingPointError: Later: second derivatives are not finite at the weights.

    Reference:
        Pearlmutter, Fast exact multiplication by the Hessian, 1994; Schraudolph, Fast curvature
        matrix-vector products for second-order gradient descent, 2002.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> curvature = kerasopt.curvature.Curvature(model, x, y, loss="mse")
        >>> curvature.products(np.eye(2)).round(3).tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        loss: Any = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
        layer: Any = None,
        training: bool = False,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
        size = None if batch_size is None else check_count("batch_size", batch_size)
        self.model, self._training = model, check_flag("training", training)
        self._batches = all_batches(x, y, sample_weight, size)
        rows = [int(rows_of(batch[0])) for batch in self._batches]
        self._shares = [count / sum(rows) for count in rows]
        self._criterion = _criterion(model, loss, len(rows))
        first_call(model, self._batches[0], self._criterion)
        self._take(weights_of(model, layer))

    def of(self, weights: Sequence[Any]) -> Self:
        """Return the same loss as a function of some of the weights."""
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._take(weights)
        return part

    def loss(self) -> float:
        """Return J."""
        return float(self._sum("loss", lambda objective: objective.loss()))

    def gradient(self) -> np.ndarray:
        """Return ∇J, as one vector."""
        return self._sum("gradient", lambda objective: self._flat(objective.gradient()))

    def products(self, vectors: Any, kind: str = "hessian") -> np.ndarray:
        """Return the products of a symmetric matrix with the rows of `vectors`, as rows.

        Args:
            vectors: Array of shape (b, n). The b products share the computation of the gradient.
            kind: `"hessian"` for H v or `"gauss_newton"` for G v. Defaults to `"hessian"`.

        Raises:
            FloatingPointError: A product is not finite.
        """
        check_choice("kind", kind, KINDS)

        def of_batch(objective: Objective, rows: Any) -> Any:
            matrix = objective.hessian() if kind == "hessian" else objective.gauss_newton()
            return self._rows(each(matrix, self._columns(rows)))

        found = self._sum(kind, of_batch, np.asarray(vectors, self.dtype))
        if not np.isfinite(found).all():
            raise FloatingPointError(
                "The second derivatives of the loss must be finite at the weights of the model: "
                "load weights from before it diverged. Received: products that are infinite or "
                f"not a number, at a loss of {self.loss():g}"
            )
        return found

    def gauss_newton_diagonal(self, seed: int) -> np.ndarray:
        """Return a random estimate of the diagonal of G, as `Objective.gauss_newton_diagonal`."""

        def of_batch(objective: Objective, key: Any) -> Any:
            places = itertools.count()

            def draw(shape: Any) -> Any:
                return ops.reshape(random_signs(math.prod(shape), next(places), key), shape)

            return self._flat(objective.gauss_newton_diagonal(draw))

        return self._sum("gauss_newton_diagonal", of_batch, np.int32(seed))

    def split(self, vector: np.ndarray) -> list[np.ndarray]:
        """Return a vector of n numbers as arrays of the shapes of the weights."""
        columns = self._columns(np.reshape(vector, (1, -1)))
        return [np.asarray(part[0]) for part in columns]

    def join(self, arrays: Any) -> np.ndarray:
        """Return arrays of the shapes of the weights, or a vector of n numbers, as a vector."""
        parts = [np.asarray(part) for part in tree.flatten(arrays)]
        shapes = [part.shape for part in parts]
        if shapes not in ([(self.size,)], [tuple(weight.shape) for weight in self.weights]):
            raise ValueError(
                f"`v` must be a vector of {self.size} numbers, or a list of arrays of the shapes "
                f"{[tuple(weight.shape) for weight in self.weights]}. Received: shapes {shapes}"
            )
        return np.concatenate([part.ravel() for part in parts]).astype(self.dtype)

    def _take(self, weights: Sequence[Any]) -> None:
        self.weights = list(weights)
        self._sizes = [math.prod(weight.shape) for weight in self.weights]
        self.size = sum(self._sizes)
        self.dtype = np.dtype(widest(self.weights))
        self._runs: dict[str, Callable[..., Any]] = {}

    def _sum(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the mean over the batches of a function of an objective, by their rows."""
        if name not in self._runs:

            def run(values: Any, batch: Any, *rest: Any) -> Any:
                return function(self._objective(values, batch), *rest)

            self._runs[name] = compiled(self.model, run, len(set(self._shares)) > 1)
        tensors = [ops.convert_to_tensor(argument) for argument in arguments]
        results = (self._runs[name](batch, *tensors) for batch in self._batches)
        total = sum(s * result for s, result in zip(self._shares, results, strict=True))
        return ops.convert_to_numpy(total)

    def _objective(self, values: Any, batch: Any) -> Objective:
        chosen = {id(weight) for weight in self.weights}
        pairs = list(zip(self.model.variables, values, strict=True))
        others = [pair for pair in pairs if id(pair[0]) not in chosen]
        with keras.StatelessScope(pairs):
            return of_batch(
                self.model, batch, self.weights, others, self._training, self._criterion
            )

    def _columns(self, rows: Any) -> list[Any]:
        """Return what each weight has of stacked vectors."""
        ends = list(itertools.accumulate(self._sizes, initial=0))
        return [
            ops.cast(ops.reshape(rows[:, start:end], (-1, *weight.shape)), weight.dtype)
            for start, end, weight in zip(ends[:-1], ends[1:], self.weights, strict=True)
        ]

    def _rows(self, columns: Sequence[Any]) -> Any:
        flat = [ops.reshape(column, (ops.shape(column)[0], -1)) for column in columns]
        return ops.concatenate([ops.cast(part, self.dtype.name) for part in flat], axis=1)

    def _flat(self, tensors: Sequence[Any]) -> Any:
        return ravel([ops.cast(tensor, self.dtype.name) for tensor in tensors])


def curvature_of(model: Any, x: Any, y: Any, **options: Any) -> Curvature:
    """Return the `Curvature` of a model and data, or the one that was given in their place."""
    if not isinstance(model, Curvature):
        return Curvature(model, x, y, **options)
    given = [name for name, value in {"x": x, "y": y, **options}.items() if value is not None]
    if given:
        raise ValueError(
            "`model` must be a Keras model where data or options are given: a `Curvature` has its "
            f"own. Received: {given} beside a `Curvature`"
        )
    return model


def _criterion(model: keras.Model, loss: Any, batches: int) -> keras.Model | None:
    """Return a model that was compiled with the loss, if it is another than that of `model`."""
    if loss is None and not model.compiled:
        raise ValueError("`loss` must be given where the model is not compiled. Received: None")
    losses = tree.flatten(getattr(model, "loss", None) if loss is None else loss)
    reductions = [getattr(each, "reduction", "mean") for each in losses]
    if batches > 1 and not set(reductions) <= {"mean", "sum_over_batch_size", None}:
        raise ValueError(
            "The loss must be a mean over rows, `reduction='sum_over_batch_size'`, where it is "
            "computed in batches: take one batch, by `batch_size`, or such a reduction. "
            f"Received: reduction={reductions} with {batches} batches"
        )
    if loss is None:
        return None
    criterion = keras.Model()
    criterion.compile(loss=loss)
    return criterion
