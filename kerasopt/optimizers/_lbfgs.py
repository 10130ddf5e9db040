"""L-BFGS, which asks for one value of the loss and its gradient in each training step."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._objective import objective
from kerasopt._train_step import loss_of_step, note_loss, prepare_builder
from kerasopt._validation import check_choice, check_count
from kerasopt.optimizers._devices import TENSORFLOW, assign_when, everywhere, in_one_pass, summed
from kerasopt.optimizers._flat import ROUNDING, ravel, unravel, widest
from kerasopt.optimizers._line_search import NAMES, SEARCHES, started
from kerasopt.optimizers._objective_optimizer import check_precision, of_all
from kerasopt.optimizers._rule import LearningRate, check_rate

REFUSED = (
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    *("loss_scale_factor", "gradient_accumulation_steps"),
)
MOST = 20  # evaluations in a line search
AT_START, AGAIN, SEARCHING = 0.0, 1.0, 2.0  # what the next evaluation is for
SCALARS = (*NAMES, "phase", "newest", "scale", "noisy", "evaluations")
NOISY = (
    "The loss that `LBFGS` saw was not the same at the same weights: it is not deterministic, as "
    "with dropout, random augmentation or other data in each step, and line searches can not be "
    "trusted. Give it all the data in one batch or by `steps_per_evaluation`, with `shuffle=False` "
    "where an evaluation is not a whole epoch, or take a first-order optimizer."
)


@keras.saving.register_keras_serializable("kerasopt")
class LBFGS(keras.optimizers.Optimizer):
    """Limited-memory BFGS: the quasi-Newton method, inside `fit`.

    For losses that are the same function in every step: all the data as one batch, or `N` batches
    by `steps_per_evaluation=N`, with no dropout and no random augmentation. There it needs far
    fewer passes over the data than a first-order method, and has no rate to tune.

    A training step is one evaluation of the loss J and its gradient g, at the trial point of a line
    search; `steps_per_execution` makes small ones faster.

        d = -H g               H of the last `history_size` pairs (s, y): the two-loop recursion
        w ← w + α d            α by the line search, from η; at first from η min(1, 1/‖g‖)
        s = α d,  y = g(w + s) - g(w)

    Pairs that a strong Wolfe search did not guard are damped (Powell): where sᵀy < 0.2 sᵀBs,
    y ← θ y + (1 - θ) B s with B s = -α g and sᵀy = 0.2 sᵀBs.

    The first point is evaluated twice: a loss that differs there, or where a search has failed, is
    not deterministic, which a warning says at the end of training. Between steps the weights are
    those of the next trial; when training ends, the last accepted ones: with a line search, the
    best of all.

    In a training loop of your own on TensorFlow, pass the loss through
    `loss = optimizer.scale_loss(loss)` before you take its gradient.

    Args:
        learning_rate: η, a number ≥ 0, a schedule or a callable: the first trial of a line search.
        history_size: Number of pairs, ≥ 1; each takes the memory of two copies of the weights.
        line_search: `"strong_wolfe"` (Moré & Thuente, with the constants of L-BFGS-B), `"armijo"`
            (goes back only), or None (takes α = η).
        steps_per_evaluation: Number of training steps N ≥ 1 over which loss and gradient are
            averaged, weighted by the rows of the batches: the steps of an epoch, or all those of
            the data.
        name: Name of the optimizer.
        **kwargs: As in `keras.optimizers.Optimizer`, but for what changes gradient or weights
            behind the line search: decay, clipping, averages, accumulation.

    Raises:
        ValueError: If a number is outside its range, an argument is given that it cannot keep, a
            layer computes in reduced precision, or no loss was seen.

    Reference:
        Liu & Nocedal, On the limited memory BFGS method for large scale optimization, 1989;
        Nocedal & Wright, Numerical Optimization, 2006, algorithms 7.4 and 7.5, procedure 18.2;
        over batches as in Dean et al., Large scale distributed deep networks, 2012, section 4.2.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.LBFGS(), "mse")
        >>> x, y = np.eye(4), np.ones((4, 1))
        >>> history = model.fit(x, y, epochs=20, verbose=0)
        >>> model.evaluate(x, y, verbose=0) < 1e-6
        True
    """

    needs_objective = not TENSORFLOW  # there `scale_loss` shows the loss

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        history_size: int = 10,
        line_search: str | None = "strong_wolfe",
        steps_per_evaluation: int = 1,
        name: str = "lbfgs",
        **kwargs: Any,
    ) -> None:
        for argument in REFUSED:
            if kwargs.get(argument) is not None:
                raise ValueError(
                    f"`{argument}` must be None: `LBFGS` goes by the loss, and that would change "
                    "the gradient or the weights without it. Penalise weights by a regularizer, "
                    "average batches by `steps_per_evaluation`. "
                    f"Received: {argument}={kwargs[argument]!r}"
                )
        if kwargs.get("use_ema"):
            raise ValueError(
                "`use_ema` must be False: `LBFGS` leaves the best point in the model, not an "
                "average of trials. Received: use_ema=True"
            )
        super().__init__(learning_rate=check_rate(learning_rate), name=name, **kwargs)
        self.history_size = check_count("history_size", history_size)
        self.line_search = check_choice("line_search", line_search, list(SEARCHES))
        self.steps_per_evaluation = check_count("steps_per_evaluation", steps_per_evaluation)
        self._said = False

    def build(self, variables: list[Any]) -> None:
        """Create the state: all weights are one vector."""
        if self.built:
            return
        model = prepare_builder(shows_objective=self.needs_objective)
        if model is not None:
            self.check_model(model)
        super().build(variables)
        count = sum(math.prod(variable.shape) for variable in variables)
        wide = widest(variables)

        def state(name: str, *shape: int) -> Any:
            return self.add_variable(shape, "zeros", wide, name=name)

        self.scalars = state("scalars", len(SCALARS))
        self.origin, self.gradient = state("origin", count), state("gradient", count)
        self.direction = state("direction", count)
        self.s, self.y = (state(name, self.history_size, count) for name in "sy")
        self.inverse = state("inverse", self.history_size, self.history_size)
        if self.steps_per_evaluation > 1:
            names = ("step_count", "row_sum", "loss_sum")
            self.sums = [*(state(name) for name in names), state("gradient_sum", count)]
        self._advance = in_one_pass(functools.partial(advance, self.line_search))

    def check_model(self, model: keras.Model) -> None:
        """Refuse a model whose layers compute too coarsely."""
        check_precision("LBFGS", model, ("float16", "bfloat16"))

    def scale_loss(self, loss: Any) -> Any:
        """See the loss."""
        if TENSORFLOW:
            note_loss(loss)
        return super().scale_loss(loss)

    @property
    def evaluations(self) -> int:
        """How many values of the loss have been asked for."""
        return int(self.scalars.numpy()[SCALARS.index("evaluations")])

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if TENSORFLOW:
            loss, rows = loss_of_step("LBFGS")
        else:
            shown = objective("LBFGS")
            loss, rows = shown.loss(), shown.rows
        weights = self._trainable_variables
        slopes = of_all(weights, grads, trainable_variables)
        f, rows, *slopes = summed([loss, ops.cast(rows, loss.dtype), *slopes])
        vectors = [self.origin, self.gradient, self.direction, self.s, self.y]
        states = [self.scalars, *vectors, self.inverse]
        sums = self.sums if self.steps_per_evaluation > 1 else []
        everywhere(self._see, weights, states, sums, f, rows, slopes, learning_rate)

    def _see(
        self,
        weights: Sequence[Any],
        states: Sequence[Any],
        sums: Sequence[Any],
        f: Any,
        rows: Any,
        slopes: Sequence[Any],
        learning_rate: Any,
    ) -> None:
        """Move on by one loss and gradient, on one device; of several batches by their mean."""
        like = [ops.convert_to_tensor(w) for w in weights]
        wide = states[0].dtype
        f, rows, rate = (ops.cast(value, wide) for value in (f, rows, learning_rate))
        w, g = (ravel([ops.cast(t, wide) for t in tensors]) for tensors in (like, slopes))

        def advanced(f: Any, g: Any) -> list[Any]:
            ahead, *renewed = self._advance(rate, f, g, w, *map(ops.convert_to_tensor, states))
            return [*unravel(ahead, like), *renewed]

        if not sums:
            for variable, value in zip([*weights, *states], advanced(f, g), strict=True):
                self.assign(variable, value)
            return
        for total, part in zip(sums, (1, rows, rows * f, rows * g), strict=True):
            self.assign_add(total, ops.cast(part, wide))
        totals = [ops.convert_to_tensor(total) for total in sums]
        count, rows, f, g = totals
        due = count >= self.steps_per_evaluation
        assign_when(due, [*weights, *states], lambda: advanced(f / rows, g / rows))
        assign_when(due, sums, lambda: [ops.zeros_like(total) for total in totals])

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Leave the best accepted point in the model; say whether the loss was noisy."""
        super().finalize_variable_values(var_list)
        if not self.built:
            return
        scalars = dict(zip(SCALARS, self.scalars.numpy(), strict=True))
        if scalars["phase"] == SEARCHING:
            weights = self._trainable_variables
            for weight, value in zip(weights, unravel(self.origin.value, weights), strict=True):
                weight.assign(value)
        scalars["phase"] = AT_START
        self.scalars.assign([scalars[name] for name in SCALARS])
        for total in self.sums if self.steps_per_evaluation > 1 else []:
            total.assign(ops.zeros_like(total.value))
        if scalars["noisy"] and not self._said:
            self._said = True
            warnings.warn(NOISY, stacklevel=2)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("history_size", "line_search", "steps_per_evaluation")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def advance(
    kind: str | None,
    rate: Any,
    f: Any,
    g: Any,
    w: Any,
    scalars: Any,
    origin: Any,
    gradient: Any,
    direction: Any,
    s: Any,
    y: Any,
    inverse: Any,
) -> list[Any]:
    """Return the next weights, and the state renewed by the loss f and gradient g at w."""
    q = dict(zip(SCALARS, ops.unstack(scalars), strict=True))
    both, either, no = ops.logical_and, ops.logical_or, ops.logical_not
    first, again = q["evaluations"] == 0, q["phase"] == AGAIN
    searching = q["phase"] == SEARCHING
    rounding = ROUNDING[keras.backend.standardize_dtype(g.dtype)]
    other = ops.abs(f - q["f_best"]) > rounding**0.5 * ops.abs(q["f_best"])

    before = {name: q[name] for name in NAMES}
    search, accepted, failed = SEARCHES[kind](before, f, ops.dot(g, direction))
    search["tries"] = q["tries"] + 1
    accepted = both(searching, accepted)
    failed = both(both(searching, no(accepted)), either(failed, search["tries"] >= MOST))
    arrived = either(accepted, no(either(searching, first)))

    step, change = q["step"] * direction, g - gradient
    if kind != "strong_wolfe":
        change = damped(step, change, -q["step"] * gradient)
    product, square = dots([step, change], change)
    kept = both(accepted, product > -rounding * q["step"] * q["slope0"])
    q["scale"] = ops.where(kept, product / square, q["scale"])
    q["newest"] = ops.where(kept, (q["newest"] + 1) % s.shape[0], q["newest"])
    order = newest_first(q["newest"], s.shape[0])
    s, y = (put(kept, row, rows, order[0]) for row, rows in ((step, s), (change, y)))
    inverse = ops.where(kept, bordered(ops.take(ops.matmul(s, change), order), inverse), inverse)
    inverse = ops.where(both(failed, search["best"] == 0), 0.0, inverse)

    ahead, slope, trial, in_use = descent(g, s, y, inverse, q["scale"], order)
    inverse = ops.where(arrived, in_use, inverse)
    begun = started(f, slope, rate * trial)
    search = {name: ops.where(arrived, begun[name], search[name]) for name in search}
    search["f_best"] = ops.where(first, f, search["f_best"])
    origin = ops.where(either(arrived, first), w, origin)
    gradient = ops.where(arrived, g, gradient)
    direction = ops.where(arrived, ahead, direction)
    along = ops.where(failed, search["best"], ops.where(first, 0.0, search["step"]))
    q |= search | {"evaluations": q["evaluations"] + 1}
    q["phase"] = ops.where(either(first, failed), AGAIN, SEARCHING)
    q["noisy"] = either(q["noisy"] > 0, both(again, other))
    scalars = ops.stack([ops.cast(q[name], f.dtype) for name in SCALARS])
    return [origin + along * direction, scalars, origin, gradient, direction, s, y, inverse]


def put(keep: Any, row: Any, rows: Any, index: Any) -> Any:
    """Return a matrix with another row at an index, if it is to be kept."""
    row = ops.where(keep, row, ops.take(rows, index, axis=0))
    return ops.slice_update(rows, (index, ops.zeros_like(index)), row[None])


def newest_first(newest: Any, size: int) -> Any:
    """Return the order that turns rows from the newest to the oldest, and back."""
    return (ops.cast(newest, "int32") - ops.arange(size, dtype="int32")) % size


def bordered(column: Any, inverse: Any) -> Any:
    """Return L⁻¹ with a newer pair: `column` is S y of its y, and of L the first column."""
    first = 1 / ops.where(column[0] > 0, column[0], 1.0)
    older = inverse[:-1, :-1]
    left = ops.concatenate([first[None], -first * ops.matmul(older, column[1:])])
    return ops.concatenate([left[:, None], ops.pad(older, ((1, 0), (0, 0)))], axis=1)


def descent(
    g: Any, s: Any, y: Any, inverse: Any, scale: Any, order: Any
) -> tuple[Any, Any, Any, Any]:
    """Return the direction, its slope, the first step along it, and L⁻¹ of the pairs in use."""
    direction = -two_loops(g, s, y, inverse, scale, order)
    slope, square = dots([direction, g], g)
    inverse = ops.where(slope < 0, inverse, 0.0)
    direction, slope = (ops.where(slope < 0, *both) for both in ((direction, -g), (slope, -square)))
    length = ops.where(square > 0, ops.sqrt(square), 1.0)
    return direction, slope, ops.where(inverse[0, 0] > 0, 1.0, 1.0 / length), inverse


def two_loops(g: Any, s: Any, y: Any, inverse: Any, scale: Any, order: Any) -> Any:
    """Return H g: each loop is one system of equations, in the order from the newest pair.

        L α = S g
        r = scale (g - Yᵀα)
        Lᵀδ = D α - Y r
        H g = r + Sᵀδ

    L is the lower triangle of S Yᵀ and D its diagonal; L⁻¹ is 0 where there is no pair.
    """
    alpha = ops.matmul(inverse, ops.take(ops.matmul(s, g), order))
    known = ops.diagonal(inverse) > 0
    r = ops.where(known[0], scale, 1.0) * (g + ops.matmul(-ops.take(alpha, order), y))
    curved = alpha / ops.where(known, ops.diagonal(inverse), 1.0)
    delta = ops.matmul(curved - ops.take(ops.matmul(y, r), order), inverse)
    return r + ops.matmul(ops.take(delta, order), s)


def dots(vectors: Sequence[Any], v: Any) -> list[Any]:
    """Return the products of vectors with v: as one matrix, several times as fast on XLA."""
    return ops.unstack(ops.matmul(ops.stack(vectors), v))


def damped(s: Any, y: Any, curved: Any) -> Any:
    """Return y, moved towards B s until sᵀy ≥ 0.2 sᵀBs."""
    product, expected = dots([y, curved], s)
    little = product < 0.2 * expected
    theta = 0.8 * expected / ops.where(little, expected - product, 1.0)
    return ops.where(little, theta * y + (1 - theta) * curved, y)
