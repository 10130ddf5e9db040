"""Curvature along the rows and the columns of every weight matrix."""

import math
from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_choice, check_count, check_number
from kerasopt.optimizers._lars import norm
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, bias, check_rate


@keras.saving.register_keras_serializable("kerasopt")
class Shampoo(RuleOptimizer):
    """Preconditions each weight matrix from both sides by roots of its mean squared gradients.

    Adam scales every weight by itself; here directions in which the rows, or the columns, of a
    weight move together are scaled too, which takes fewer steps at more work a step. The length of
    the step is that of Adam, or of gradient descent, so that their learning rates can be kept.

        L ← β₂ L + (1 - β₂) G Gᵀ,   R ← β₂ R + (1 - β₂) Gᵀ G       β₂ = beta_2
        P ← (L / (1 - β₂ᵗ))^(-1/4),   Q ← (R / (1 - β₂ᵗ))^(-1/4)    every update_every steps
        M ← β₁ M + (1 - β₁) G,   M̂ = M / (1 - β₁ᵗ)                 β₁ = beta_1
        W ← W - η ‖A‖ / ‖P M̂ Q‖ · P M̂ Q                            A the step of `grafting`

    G is the gradient as a matrix: a kernel's last axis gives the columns. It is cut into blocks of
    at most `block_size` rows and columns, each with its L and R. A vector has L only, and the root
    is -1/2. ε times the largest eigenvalue is added to all of them before a root is taken.

    Args:
        learning_rate: η ≥ 0: a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            callable. Defaults to 0.001.
        beta_1: β₁ in [0, 1), the memory of the mean gradient. Defaults to 0.9.
        beta_2: β₂ in [0, 1), the memory of squares. Defaults to 0.999.
        epsilon: ε > 0, relative to the largest eigenvalue. Defaults to 1e-6.
        block_size: Most rows and columns of a block, ≥ 1. Defaults to 128.
        update_every: Steps ≥ 1 from one computation of the roots to the next. Defaults to 10.
        grafting: `"adam"` (A = M̂ / (√v̂ + 1e-8)), `"sgd"` (A = M̂) or None (no factor).
            Defaults to `"adam"`.
        name: Name of the optimizer. Defaults to `"shampoo"`.
        **kwargs: What every Keras optimizer takes: `weight_decay`, `clipnorm`, `use_ema`, ….

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Reference:
        Gupta, Koren and Singer, Shampoo: preconditioned stochastic tensor optimization, 2018,
        algorithm 1; Anil et al., Scalable second order optimization for deep learning, 2020
        (blocks, grafting, roots at intervals).

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable([[1.0, 2.0], [3.0, 5.0]])
        >>> kerasopt.optimizers.Shampoo(0.5, grafting="sgd").apply([2 * w], [w])
        >>> float(keras.ops.norm(w)) < 5
        True
    """

    elementwise = False

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        block_size: int = 128,
        update_every: int = 10,
        grafting: str | None = "adam",
        name: str = "shampoo",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "(0, inf)")
        self.block_size = check_count("block_size", block_size)
        self.update_every = check_count("update_every", update_every)
        self.grafting = check_choice("grafting", grafting, ["adam", "sgd", None])

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """M, v, and L, R, P, Q of all blocks."""
        velocity = ["velocity"] if self.grafting == "adam" else []
        return (("left", "right", "left_root", "right_root", "momentum", *velocity),)

    def shape_of(self, slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a slot: of the blocks' L and P, of their R and Q, or the weight's."""
        (rows, height), (columns, width) = self._cut(shape)
        sides = {"left": height, "right": width}
        side = sides.get(slot.removesuffix("_root"))
        return (rows, columns, side, side) if side else shape

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return η, the biases of the means, and whether the roots are due."""
        due = ops.cast((step - 1) % self.update_every, "int32") == 0
        return learning_rate, bias(self.beta_1, step), bias(self.beta_2, step), due

    def rule(self, w: Any, g: Any, coefficients: Any, *state: Any) -> tuple[Any, ...]:
        """Return the preconditioned step, of the length of that of `grafting`."""
        learning_rate, bias_1, bias_2, due = coefficients
        left, right, left_root, right_root, m, *v = state
        blocks = self._blocks(g)
        left = self._mean(left, blocks @ transpose(blocks))
        right = self._mean(right, transpose(blocks) @ blocks)
        late = ops.all(left_root == 0)  # a weight that was frozen when roots were due
        left_root, right_root = ops.cond(
            ops.logical_or(ops.cast(due, "bool"), late),
            lambda: self._roots(g.shape, left / bias_2, right / bias_2),
            lambda: (ops.copy(left_root), ops.copy(right_root)),
        )
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = [self._mean(each, g * g) for each in v]
        mean = m / bias_1
        step = self._joined(left_root @ self._blocks(mean) @ right_root, g.shape)
        if self.grafting:
            graft = mean / (ops.sqrt(v[0] / bias_2) + 1e-8) if v else mean
            length = norm(step)
            step = step * (norm(graft) / ops.where(length > 0, length, 1))
        return -learning_rate * step, left, right, left_root, right_root, m, *v

    def _mean(self, old: Any, new: Any) -> Any:
        return self.beta_2 * old + (1 - self.beta_2) * new

    def _roots(self, shape: tuple[int, ...], left: Any, right: Any) -> tuple[Any, Any]:
        """Return P and Q; Q is the identity where the weight is a vector."""
        if len(shape) < 2:
            return self._root(left, 2), ops.ones_like(right)
        return self._root(left, 4), self._root(right, 4)

    def _root(self, matrices: Any, order: int) -> Any:
        """Return the inverse roots of symmetric matrices."""
        dtype = matrices.dtype
        if keras.backend.standardize_dtype(dtype) != "float64":
            matrices = ops.cast(matrices, "float32")  # there are no eigenvalues in less
        values, vectors = ops.eigh(matrices)
        values = ops.maximum(values, 0)
        floor = self.epsilon * ops.max(values, axis=-1, keepdims=True)
        values = ops.maximum(values + floor, 1e-30)  # where all gradients were zero
        scaled = vectors * ops.expand_dims(values ** (-1 / order), -2)
        return ops.cast(scaled @ transpose(vectors), dtype)

    def _cut(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the number and the size of blocks along the rows and along the columns."""
        rows, columns = matrix_shape(shape)
        height, width = min(rows, self.block_size), min(columns, self.block_size)
        return (-(-rows // height), height), (-(-columns // width), width)

    def _blocks(self, tensor: Any) -> Any:
        """Return a tensor as a grid of blocks, filled up by zeros."""
        (rows, height), (columns, width) = self._cut(tensor.shape)
        matrix = ops.reshape(tensor, matrix_shape(tensor.shape))
        missing = [(0, rows * height - matrix.shape[0]), (0, columns * width - matrix.shape[1])]
        grid = ops.reshape(ops.pad(matrix, missing), (rows, height, columns, width))
        return ops.transpose(grid, (0, 2, 1, 3))

    def _joined(self, blocks: Any, shape: tuple[int, ...]) -> Any:
        """Return the tensor of a grid of blocks."""
        rows, columns, height, width = blocks.shape
        matrix = ops.reshape(ops.transpose(blocks, (0, 2, 1, 3)), (rows * height, columns * width))
        height, width = matrix_shape(shape)
        return ops.reshape(matrix[:height, :width], shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("beta_1", "beta_2", "epsilon", "block_size", "update_every", "grafting")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of a weight as a matrix; a vector has one column."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)


def transpose(matrices: Any) -> Any:
    """Return the transposes of a grid of matrices."""
    return ops.transpose(matrices, (0, 1, 3, 2))
