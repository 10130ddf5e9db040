"""The loss of a batch as a function of the weights, for optimizers that ask for more than ∇J."""

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops, tree

from kerasopt._autodiff import gauss_newton, hessian, value_and_gradient
from kerasopt._masks import with_mask

_now = threading.local()
LARGEST_BLOCK = 64  # outputs of a row


class Objective:
    """The loss J of one batch as a function of the weights.

    An optimizer finds it as `kerasopt.objective()` while it takes a step. All its methods take and
    return lists of tensors, one for each of `variables`, and change no variable: random layers draw
    the numbers of this step again, and moving statistics stay.

    In a training loop of your own, make one and take the step within it:

        J(w) = loss(),  or  J(w) = loss(z(w)) + Σ added(),  z(w) = outputs()

    Args:
        loss: Function that reads `variables` and returns J; or, where `outputs` is given, one of
            the outputs.
        variables: The weights, as `keras.Variable`s.
        outputs: Function that reads `variables` and returns z, a tensor or a structure of tensors.
            The Gauss-Newton product needs it.
        added: Function that returns terms of J that do not depend on the outputs, such as
            penalties of the weights, after a call of `outputs`. They are part of what `loss`
            returns after such a call.
        fixed: Pairs of other variables and the values that they keep.

    Reference:
        H v: Pearlmutter, Fast exact multiplication by the Hessian, 1994; G v: Schraudolph, Fast
        curvature matrix-vector products for second-order gradient descent, 2002.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([3.0, -2.0])
        >>> optimizer = kerasopt.optimizers.Newton()
        >>> with kerasopt.Objective(lambda: keras.ops.sum(w * w), [w]) as objective:
        ...     optimizer.apply(objective.gradient(), [w])
        >>> bool(abs(w.numpy()).max() < 1e-6)
        True
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        variables: Sequence[Any],
        outputs: Callable[[], Any] | None = None,
        added: Callable[[], Sequence[Any]] = tuple,
        fixed: Sequence[tuple[Any, Any]] = (),
    ) -> None:
        self.variables = list(variables)
        self._start = [ops.copy(variable) for variable in self.variables]
        self._loss, self._outputs, self._added = loss, outputs, added
        self._fixed = list(fixed)
        self.rows: Any = 1
        self.batched = False  # whether the first axis of the outputs is that of the rows

    @property
    def values(self) -> list[Any]:
        """The weights at which the step starts."""
        return list(self._start)

    def of(self, variables: Sequence[Any]) -> Self:
        """Return J as a function of some of the variables; the others keep their values."""
        value = {id(v): each for v, each in zip(self.variables, self._start, strict=True)}
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._fixed = [*zip(self.variables, self._start, strict=True), *self._fixed]
        part.variables = list(variables)
        part._start = [value[id(variable)] for variable in variables]
        return part

    def loss(self, values: Sequence[Any] | None = None) -> Any:
        """Return J, at `values` or where the step starts."""
        return self._total(self._start if values is None else list(values))

    def gradient(self, values: Sequence[Any] | None = None) -> list[Any]:
        """Return ∇J."""
        return self.loss_and_gradient(values)[1]

    def loss_and_gradient(self, values: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """Return J and ∇J."""
        return value_and_gradient(self._total, self._start if values is None else list(values))

    def hvp(self, v: Sequence[Any]) -> list[Any]:
        """Return H v, with H = ∇²J."""
        return self.hessian()(v)

    def gnvp(self, v: Sequence[Any]) -> list[Any]:
        """Return G v, with the Gauss-Newton matrix G = Jᵀ ∇²L J + ∇²R.

        J are the derivatives of the model's outputs, L is the loss as a function of them, and R
        are the penalties of weights and activities.
        """
        return self.gauss_newton()(v)

    def hessian(self) -> Callable[[Sequence[Any]], list[Any]]:
        """Return the function v → H v, whose calls share ∇J."""
        return hessian(self._total, self._start)

    def gauss_newton(self) -> Callable[[Sequence[Any]], list[Any]]:
        """Return the function v → G v, whose calls share the outputs."""
        inner, outer, penalised = self._split()
        product = gauss_newton(outer, inner, self._start)
        if not penalised():
            return product
        more = hessian(self._penalties, self._start)
        return lambda v: [a + b for a, b in zip(product(v), more(v), strict=True)]

    def gauss_newton_diagonal(self, draw: Callable[[Any], Any]) -> list[Any]:
        """Return a random estimate of the diagonal of G, none of it negative where R is convex.

        It is r ⊙ r + s ⊙ ∇²R s with r = Jᵀ (∇²L)^½ ε, for random signs ε and s. In the mean it is
        the diagonal, and its standard deviation is at most √2 times that, however many weights
        there are. ∇²L is taken as blocks, one for each row of the outputs.

        Args:
            draw: Function that returns random signs of a shape.
        """
        roots, penalties = self._diagonal_parts(draw)
        return [r * r + more for r, more in zip(roots, penalties, strict=True)]

    def _diagonal_parts(self, draw: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
        """Return r and s ⊙ ∇²R s."""
        inner, outer, penalised = self._split()
        z = inner(self._start)
        if self.batched and (flat := [each.shape for each in z if len(each.shape) < 2]):
            raise ValueError(
                "The estimator 'gauss_newton' needs outputs with a last axis beside that of the "
                "batch: end the model with a `Reshape((1,))`, or use 'hutchinson'. "
                f"Received: outputs of shape {tuple(flat[0])}"
            )
        roots = [
            root_product(outer, z, place, draw(ops.shape(each))) for place, each in enumerate(z)
        ]

        def along(values: Sequence[Any]) -> Any:
            return sum(ops.sum(u * each) for u, each in zip(roots, inner(values), strict=True))

        _, pulled_back = value_and_gradient(along, self._start)
        if not penalised():
            return pulled_back, [ops.zeros_like(w) for w in self._start]
        signs = [ops.cast(draw(w.shape), w.dtype) for w in self._start]
        more = hessian(self._penalties, self._start)(signs)
        return pulled_back, [s * c for s, c in zip(signs, more, strict=True)]

    def _split(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[], bool]]:
        """Return z(w), L(z), and whether there are penalties, which is known after z was called."""
        outputs = self._outputs
        if outputs is None:
            raise ValueError(
                "`outputs` must be given for the Gauss-Newton matrix, which splits the loss into "
                "the outputs and a function of them. Received: outputs=None"
            )
        example: Any = None
        penalised = False

        def inner(values: Sequence[Any]) -> list[Any]:
            nonlocal example, penalised
            with self._scope(values):
                example, penalised = outputs(), bool(self._added())
            flat = tree.flatten(example)
            return [z.value if isinstance(z, keras.Variable) else z for z in flat]

        def outer(z: Sequence[Any]) -> Any:
            for each, source in zip(z, tree.flatten(example), strict=True):
                with_mask(each, source, lambda mask: mask)
            with self._scope(self._start):
                return self._loss(tree.pack_sequence_as(example, list(z)))

        return inner, outer, lambda: penalised

    def _penalties(self, values: Sequence[Any]) -> Any:
        with self._scope(values):
            self._outputs()  # type: ignore[misc]
            return sum(ops.sum(each) for each in self._added())

    def _total(self, values: Sequence[Any]) -> Any:
        with self._scope(values):
            return self._loss() if self._outputs is None else self._loss(self._outputs())

    def _scope(self, values: Sequence[Any]) -> keras.StatelessScope:
        pairs = [*self._fixed, *zip(self.variables, values, strict=True)]
        return keras.StatelessScope(pairs, collect_losses=True, initialize_variables=False)

    def __enter__(self) -> Self:
        """Let optimizers find this objective."""
        self._before = getattr(_now, "objective", None)
        _now.objective = self
        return self

    def __exit__(self, *error: object) -> None:
        """Hide it."""
        _now.objective = self._before


def root_product(
    loss: Callable[[Sequence[Any]], Any], outputs: Sequence[Any], place: int, signs: Any
) -> Any:
    """Return (∇²L)^½ ε for one of the outputs; L adds up over all but its last axis."""
    z = outputs[place]
    count = z.shape[-1]
    if count > LARGEST_BLOCK:
        raise ValueError(
            "The estimator 'gauss_newton' takes the root of a matrix for each row of the outputs, "
            f"which must have at most {LARGEST_BLOCK} columns: use 'hutchinson'. "
            f"Received: outputs of shape {tuple(z.shape)}"
        )

    curved = hessian(loss, outputs)

    def column(unit: Any) -> Any:
        v = [ops.zeros_like(each) for each in outputs]
        v[place] = v[place] + unit
        return curved(v)[place]

    columns = [column(unit) for unit in ops.unstack(ops.eye(count, dtype=z.dtype))]
    wide = "float64" if z.dtype == "float64" else "float32"
    values, vectors = ops.eigh(ops.cast(ops.stack(columns, axis=-1), wide))
    half = vectors * ops.sqrt(ops.relu(values))[..., None, :]
    back = ops.matmul(ops.swapaxes(vectors, -1, -2), ops.cast(signs, wide)[..., None])
    return ops.cast(ops.matmul(half, back)[..., 0], z.dtype)


def objective(name: str = "The optimizer") -> Objective:
    """Return the objective of the step that is being taken.

    Args:
        name: Who asks, for the text of the error.

    Raises:
        ValueError: If there is none: the model has not been prepared.
    """
    found = getattr(_now, "objective", None)
    if found is None:
        raise ValueError(
            f"`{name}` needs the loss function, not only its gradient. Build the model with "
            "`kerasopt.Model` or call `kerasopt.prepare(model)` before `fit`."
        )
    return found


def of_batch(
    model: keras.Model,
    data: Any,
    trainable: Sequence[Any],
    others: Sequence[tuple[Any, Any]],
    training: bool = True,
    criterion: keras.Model | None = None,
) -> Objective:
    """Return the loss of a model on a batch.

    Args:
        model: The model.
        data: Inputs, targets and weights of the batch, as `train_step` gets them.
        trainable: The variables of the objective.
        others: The model's other variables, and their values.
        training: Whether layers do as in training.
        criterion: Who computes the loss of the outputs, if not the model.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    owner = criterion or model

    def loss(y_pred: Any) -> Any:
        takes = {"training": training} if takes_training(owner.compute_loss) else {}
        batch = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
        value = owner.compute_loss(**batch, **takes)
        return value + sum(ops.sum(each) for each in model.losses) if criterion else value

    def outputs() -> Any:
        return model(x, **({"training": training} if takes_training(model.call) else {}))

    made = Objective(loss, trainable, outputs, lambda: model.losses, others)
    made.rows, made.batched = rows_of(x), True
    return made


def rows_of(x: Any) -> Any:
    """Return the number of rows of a batch."""
    return ops.shape(next(t for t in tree.flatten(x) if t is not None))[0]


def takes_training(function: Callable[..., Any]) -> bool:
    """Return whether a method of a model has the argument `training`, which users may leave out."""
    return "training" in inspect.signature(function).parameters
