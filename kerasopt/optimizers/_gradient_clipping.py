"""Gradients that are too long, or not numbers, kept from the weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._train_step import asks_for_the_loss, attend
from kerasopt._validation import check_choice, check_count, check_flag, check_number
from kerasopt.optimizers._devices import (
    apply_when,
    everywhere,
    stop_when,
    summed,
)
from kerasopt.optimizers._wrapper import OptimizerWrapper

THRESHOLDS = {"norm": 1.0, "value": 1.0, "adaptive": 0.01, "percentile": None}


@keras.saving.register_keras_serializable("kerasopt")
class GradientClipping(OptimizerWrapper):
    """Clips the gradient before any optimizer sees it, skips what is not finite, and counts both.

    Where the error surface has a cliff, one step along the gradient throws the weights far away. A
    clipped gradient keeps its direction and loses its length. It is the gradient of the whole batch
    that is clipped, under any strategy; Keras' own `clipnorm` acts on each replica's under
    `tf.distribute`, before they are added.

        "norm"        g ← g min(1, c / ‖g‖)            c = threshold, ‖g‖ over all weights
        "value"       g ← min(max(g, -c), c)           the direction changes
        "adaptive"    g_i ← g_i min(1, c max(‖w_i‖, ε) / ‖g_i‖)        for each unit i
        "percentile"  as "norm", with c the `percentile` of the last norms

    A unit is a column of a dense kernel, an output channel of a convolution, or a whole vector.

    With `history`, `fit` logs `gradient_norm` (before clipping, of the last step), and for the
    training so far `clipped` (the number of steps), `clip_factor` (their mean ‖clipped g‖ / ‖g‖)
    and `skipped` (steps left out because the gradient was not finite).

    Args:
        optimizer: A Keras optimizer, or its name.
        method: `"norm"`, `"value"`, `"adaptive"` or `"percentile"`. Defaults to `"norm"`.
        threshold: c > 0. Defaults to 1 for `"norm"` and `"value"`, and to 0.01 for `"adaptive"`.
        percentile: The percentile in (0, 100] that is the threshold of `"percentile"`. Defaults
            to 10.
        epsilon: Least norm ε > 0 of a unit's weights. Defaults to 0.001.
        window: Number ≥ 1 of norms that `"percentile"` looks back on. Defaults to 1000.
        history: Whether the figures above are logged. Defaults to True.
        max_skipped: Number ≥ 1 of skipped steps in a row at which training ends in an error.
            Defaults to 10.
        name: Name of the optimizer. Defaults to `"gradient_clipping"`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or `optimizer` is a `LossScaleOptimizer`
            or asks for the loss function.
        FloatingPointError: `max_skipped` gradients in a row were not finite. From compiled code
            (XLA, JAX) it is raised at the end of `fit`, and inside of a TensorFlow graph it is a
            `tf.errors.InvalidArgumentError`.

    Reference:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013,
        algorithm 1 (`"norm"`); Brock et al., High-performance large-scale image recognition without
        normalization, 2021, equation 3 (`"adaptive"`); Seetharaman et al., AutoClip: adaptive
        gradient clipping for source separation networks, 2020, algorithm 1 (`"percentile"`).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([0.0, 0.0])
        >>> optimizer = kerasopt.optimizers.GradientClipping("sgd", threshold=5.0)
        >>> optimizer.apply([keras.ops.array([30.0, 40.0])], [w])
        >>> [round(float(each), 3) for each in w.numpy()], int(optimizer.clipped)
        ([-0.03, -0.04], 1)
    """

    def __init__(
        self,
        optimizer: Any,
        method: str = "norm",
        threshold: float | None = None,
        percentile: float = 10.0,
        epsilon: float = 1e-3,
        window: int = 1000,
        history: bool = True,
        max_skipped: int = 10,
        name: str = "gradient_clipping",
    ) -> None:
        super().__init__(optimizer, name)
        if asks_for_the_loss(self.optimizer):
            kind = type(self.optimizer).__name__
            raise ValueError(
                "`optimizer` must step along the gradient that is clipped, not along one of its "
                f"own: with `SAM` write `SAM(GradientClipping(…))`. Received: {kind}"
            )
        self.method = check_choice("method", method, [*THRESHOLDS])
        threshold = THRESHOLDS[method] if threshold is None else threshold
        if method == "percentile" and threshold is not None:
            raise ValueError(
                "`threshold` must be None where `method` is 'percentile', which finds it; set "
                f"`percentile`. Received: threshold={threshold!r}"
            )
        finds = method == "percentile"
        self.threshold = None if finds else check_number("threshold", threshold, "(0, inf)")
        self.percentile = check_number("percentile", percentile, "(0, 100]")
        self.epsilon = check_number("epsilon", epsilon, "(0, inf)")
        self.window = check_count("window", window)
        self.history = check_flag("history", history)
        self.max_skipped = check_count("max_skipped", max_skipped)

    def build(self, variables: list[Any]) -> None:
        """Create the counters and the memory of norms."""
        if self.built:
            return
        if self.history:
            attend()
        super().build(variables)
        self.clipped, self.skipped, self.skipped_in_a_row, self._seen = (
            self.add_variable((), dtype="int32", name=name)
            for name in ("clipped", "skipped", "skipped_in_a_row", "seen")
        )
        self._factors = self.add_variable((), name="sum_of_factors")
        self.gradient_norm = self.add_variable((), name="gradient_norm")
        length = self.window if self.method == "percentile" else 0
        self._norms = self.add_variable((length,), name="norms")

    def before_forward(self, variables: list[Any]) -> None:
        """Leave the weights as they are."""

    def figures(self) -> dict[str, Any]:
        """Return what `history` adds to the logs."""
        count = ops.maximum(ops.cast(self.clipped, "float32"), 1.0)
        return {
            "gradient_norm": ops.copy(self.gradient_norm),
            "clipped": ops.copy(self.clipped),
            "clip_factor": ops.where(self.clipped.value > 0, self._factors / count, 1.0),
            "skipped": ops.copy(self.skipped),
        }

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Raise what compiled code could not."""
        super().finalize_variable_values(var_list)
        if self.built and int(self.skipped_in_a_row.numpy()) >= self.max_skipped:
            raise FloatingPointError(self._message())

    def _message(self) -> str:
        return (
            f"The gradient was not finite in `max_skipped`={self.max_skipped} steps in a row. The "
            "weights are those before the first of them. Lower the learning rate, or look for "
            "not-a-number in the data and the loss."
        )

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        sums = summed(gradients)
        given = [i for i, g in enumerate(sums) if g is not None]
        slopes = [sums[i] for i in given]
        norm = global_norm(slopes)
        finite = ops.isfinite(norm)
        clipped, factor = self._clip(slopes, [weights[i] for i in given], norm)
        counters = [self.clipped, self.skipped, self.skipped_in_a_row, self._seen]
        counters += [self._factors, self.gradient_norm, self._norms]
        everywhere(self._count, counters, norm, factor, finite)
        for i, g in zip(given, clipped, strict=True):
            sums[i] = g
        apply_when(finite, self.optimizer, sums, weights)

    def _clip(self, gradients: list[Any], weights: list[Any], norm: Any) -> tuple[list[Any], Any]:
        """Return the clipped gradients, and their norm over that of the gradients."""
        length = ops.where(norm > 0, norm, 1.0)
        c: Any = self._threshold(norm) if self.method == "percentile" else self.threshold
        if self.method in ("norm", "percentile"):
            factor = ops.where(norm > c, c / length, 1.0)
            return [g * ops.cast(factor, g.dtype) for g in gradients], factor
        if self.method == "value":
            clipped = [ops.clip(g, -c, c) for g in gradients]
        else:
            pairs = zip(gradients, weights, strict=True)
            clipped = [clip_units(g, w, c, self.epsilon) for g, w in pairs]
        return clipped, ops.where(norm > 0, global_norm(clipped) / length, 1.0)

    def _threshold(self, norm: Any) -> Any:
        """Return the percentile of the last norms and of this one."""
        count = ops.minimum(self._seen + 1, self.window)
        norms = ops.where(self._place(), norm, self._norms.value)
        norms = ops.sort(
            ops.where(ops.arange(self.window, dtype="int32") < count, norms, float("inf"))
        )
        rank = self.percentile / 100 * ops.cast(count - 1, norms.dtype)
        low, part = ops.cast(ops.floor(rank), "int32"), rank - ops.floor(rank)
        high = ops.minimum(low + 1, count - 1)
        return (1 - part) * ops.take(norms, low) + part * ops.take(norms, high)

    def _place(self) -> Any:
        """Return where in the memory the next norm stands."""
        return ops.arange(self.window, dtype="int32") == self._seen % self.window

    def _count(self, counters: list[Any], norm: Any, factor: Any, finite: Any) -> None:
        """Renew the counters and the memory of norms."""
        clipped, skipped, row, seen, factors, last, norms = counters
        acted = ops.logical_and(finite, factor < 1 - 1e-6)
        fine = ops.cast(finite, "int32")
        if self.method == "percentile":
            here = ops.logical_and(finite, self._place())
            self.assign(norms, ops.where(here, norm, ops.convert_to_tensor(norms)))
        self.assign_add(clipped, ops.cast(acted, "int32"))
        self.assign_add(skipped, 1 - fine)
        self.assign(row, (row + 1) * (1 - fine))
        self.assign_add(seen, fine)
        self.assign_add(factors, ops.where(acted, factor, 0.0))
        self.assign(last, norm)
        stop_when(row >= self.max_skipped, self._message())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("method", "threshold", "percentile", "epsilon", "window", "history", "max_skipped")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def global_norm(tensors: Sequence[Any]) -> Any:
    """Return the norm of all elements, also where their squares are too large for float32.

    It is taken in float32, or in float64 if that is the type of one of them.
    """
    types = {keras.backend.standardize_dtype(t.dtype) for t in tensors}
    wide = "float64" if "float64" in types else "float32"

    def norm(scale: float) -> Any:
        squares = [ops.sum(ops.square(ops.cast(t, wide) * scale)) for t in tensors]
        return ops.sqrt(sum(squares)) / scale

    plain = norm(1.0)
    return ops.cond(ops.isfinite(plain), lambda: plain, lambda: norm(2.0**-100))


def clip_units(g: Any, w: Any, threshold: float, epsilon: float) -> Any:
    """Return g where each unit's norm is at most c max(‖w‖, ε)."""
    rank = len(g.shape)
    axes = (0,) if rank in (2, 3) else tuple(range(rank - 1 or rank))

    def norm(tensor: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(tensor), axis=axes, keepdims=True))

    most, length = threshold * ops.maximum(norm(w), epsilon), norm(g)
    return g * ops.minimum(1.0, most / ops.where(length > 0, length, 1.0))
