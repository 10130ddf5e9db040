"""Every rule against a loop in NumPy's float64, written from the equations of its paper."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kerasopt.optimizers as ours

Gradient = Callable[[np.ndarray], np.ndarray]
Path = Iterator[np.ndarray]

STEPS = 30
RATE = 2.0**-5  # Keras keeps rates in float32: this one is the same there


def flat(weights: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(ops.convert_to_numpy(w)) for w in weights]).astype("float64")


@dataclass(frozen=True)
class Problem:
    """Weights that start anywhere in ±`spread`, with the gradient a (w - b) + 0.3 sin w.

    A weight holds no more than 101 values, over and over: of many thousands, one would come so
    close to a change of sign that rounding decides it.
    """

    shapes: tuple[tuple[int, ...], ...] = ((130, 130), (5, 4), (3,), ())  # the first is not joined
    spread: float = 3.0

    def weights(self, together: bool = False) -> list[tuple[np.ndarray, Gradient]]:
        """Return the start and the gradient of each weight, or of all of them in one."""
        ranges = (-self.spread, self.spread), (0.5, 1.5), (-2.0, 2.0)  # of w, a and b
        draws = [self._draw(seed, *ends) for seed, ends in enumerate(ranges)]
        if together:
            draws = [[flat(each)] for each in draws]
        return [(w, partial(slope, a, b)) for w, a, b in zip(*draws, strict=True)]

    def _draw(self, seed: int, low: float, high: float) -> list[np.ndarray]:
        """Return random 64ths, which float32 holds, in the shapes of the weights."""
        random = np.random.default_rng(seed)
        draws = [random.uniform(64 * low, 64 * high, 101).round() / 64 for _ in self.shapes]
        return [np.resize(each, shape) for each, shape in zip(draws, self.shapes, strict=True)]


def slope(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> np.ndarray:
    return a * (w - b) + 0.3 * np.sin(w)


def travel(
    optimizer: keras.optimizers.Optimizer,
    problem: Problem,
    steps: int = STEPS,
    weights: Sequence[keras.Variable] = (),
    dtype: str = "float32",
) -> np.ndarray:
    """Return all weights after each step, a row each; the `weights` given move on."""
    starts, gradients = zip(*problem.weights(), strict=True)
    weights = weights or [keras.Variable(w, dtype=dtype) for w in starts]
    optimizer.build(weights)
    step, rows = stepper(optimizer, weights), []
    for _ in range(steps):
        pairs = zip(gradients, weights, strict=True)
        slopes = [gradient(w.numpy().astype("float64")) for gradient, w in pairs]
        step([ops.convert_to_tensor(g, dtype) for g in slopes])
        rows.append(flat(weights))
    return np.stack(rows)


def stepper(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> Callable[[list[Any]], None]:
    """Return `optimizer.apply`; on JAX compiled, as alone a `cond` would compile in every step."""
    if keras.backend.backend() != "jax":
        return partial(optimizer.apply, trainable_variables=weights)
    import jax

    variables, compiled = [*weights, *optimizer.variables], jax.jit(optimizer.stateless_apply)

    def step(slopes: list[Any]) -> None:
        state = [variable.value for variable in optimizer.variables]
        moved, renewed = compiled(state, slopes, [weight.value for weight in weights])
        for variable, value in zip(variables, [*moved, *renewed], strict=True):
            variable.assign(value)

    return step


def distance(path: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference relative to the largest weight."""
    return np.abs(path - reference).max() / np.abs(reference).max()


def sgd(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Path:
    step = 0.0
    while True:
        backprop = -learning_rate * gradient(w)
        step = momentum * step + backprop
        w = w + (momentum * step + backprop if nesterov else step)
        yield w


def adam(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
    weight_decay: float = 0.0,
) -> Path:
    m = v = peak = 0.0
    for t in itertools.count(1):
        g = gradient(w)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        peak = np.maximum(peak, v) if amsgrad else v
        rate = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - rate * m / (np.sqrt(peak) + epsilon) - learning_rate * weight_decay * w
        yield w


def rmsprop(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
) -> Path:
    square = mean = step = 0.0
    while True:
        g = gradient(w)
        square = rho * square + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        variance = square - mean**2 if centered else square
        step = momentum * step - learning_rate * g / np.sqrt(variance + epsilon)
        w = w + step
        yield w


def delta_bar_delta(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    kappa: float = 0.5,
    phi: float = 0.3,
    theta: float = 0.7,
    min_gain: float = 1e-5,
    max_gain: float = 1e5,
    momentum: float = 0.0,
) -> Path:
    gain, mean, step = 1.0, 0.0, 0.0
    while True:
        g = gradient(w)
        same, opposite = mean * g > 0, mean * g < 0
        gain = np.clip(gain + kappa * same - phi * gain * opposite, min_gain, max_gain)
        mean = (1 - theta) * g + theta * mean
        step = momentum * step - learning_rate * gain * g
        w = w + step
        yield w


def rprop(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
) -> Path:
    length, previous = learning_rate, 0.0
    while True:
        g = gradient(w)
        turned = g * previous < 0
        factor = np.where(turned, etas[0], np.where(g * previous > 0, etas[1], 1.0))
        length = np.clip(factor * length, *step_sizes)
        previous = np.where(turned, 0.0, g)
        w = w - length * np.sign(previous)
        yield w


def rectified_adam(
    w: np.ndarray, gradient: Gradient, learning_rate: float, beta_2: float = 0.999
) -> Path:
    m, v, longest = 0.0, 0.0, 2 / (1 - beta_2) - 1
    for t in itertools.count(1):
        g = gradient(w)
        m, v = 0.9 * m + 0.1 * g, beta_2 * v + (1 - beta_2) * g**2
        length, scale = longest - 2 * t * beta_2**t / (1 - beta_2**t), 1.0
        if length > 5:
            r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            scale = np.sqrt(r) * np.sqrt((1 - beta_2**t) / v)
        w = w - learning_rate * m / (1 - 0.9**t) * scale
        yield w


def ada_belief(
    w: np.ndarray, gradient: Gradient, learning_rate: float, epsilon: float = 1e-16
) -> Path:
    m = s = 0.0
    for t in itertools.count(1):
        g = gradient(w)
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * (g - m) ** 2 + epsilon
        w = w - learning_rate * m / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + epsilon)
        yield w


def adan(w: np.ndarray, gradient: Gradient, learning_rate: float, weight_decay: float = 0) -> Path:
    beta_1, beta_2, beta_3 = 0.02, 0.08, 0.01  # counted as in the paper
    m = v = n = 0.0
    previous = gradient(w)
    for t in itertools.count(1):
        g = gradient(w)
        m = (1 - beta_1) * m + beta_1 * g
        v = (1 - beta_2) * v + beta_2 * (g - previous)
        n = (1 - beta_3) * n + beta_3 * (g + (1 - beta_2) * (g - previous)) ** 2
        ahead = m / (1 - (1 - beta_1) ** t) + (1 - beta_2) * v / (1 - (1 - beta_2) ** t)
        step = ahead / (np.sqrt(n / (1 - (1 - beta_3) ** t)) + 1e-8)
        w, previous = w - learning_rate * (step + weight_decay * w), g
        yield w


def lars(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    trust_coefficient: float,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Path:
    step, norm = 0.0, np.linalg.norm
    while True:
        g = gradient(w)
        trust = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w))
        move = -learning_rate * trust * (g + weight_decay * w)
        step = 0.9 * step + move
        w = w + (0.9 * step + move if nesterov else step)
        yield w


def prodigy(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float = 1.0,
    d0: float = 1e-6,
    growth_rate: float = np.inf,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
    weight_decay: float = 0.0,
) -> Path:
    m = v = r = s = 0.0
    start, d, peak, beta_3 = w, d0, d0, np.sqrt(0.999)
    for t in itertools.count(1):
        g = gradient(w)
        rate = d * learning_rate
        rate *= np.sqrt(1 - 0.999**t) / (1 - 0.9**t) if use_bias_correction else 1
        m, v = 0.9 * m + 0.1 * d * g, 0.999 * v + 0.001 * (d * g) ** 2
        r = beta_3 * r + (1 - beta_3) * d * rate * np.dot(g, start - w)
        s = beta_3 * s + (1 - beta_3) * d * (d if safeguard_warmup else rate) * g
        peak = max(peak, r / np.abs(s).sum())
        d = peak if d == d0 else min(peak, growth_rate * d)
        w = w - rate * (m / (np.sqrt(v) + d * 1e-8) + weight_decay * w)
        yield w


def shampoo(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    epsilon: float,
    block_size: int = 128,
    update_every: int = 10,
    grafting: str | None = "adam",
) -> Path:
    rows, columns = shape = (w.size // w.shape[-1], w.shape[-1]) if w.ndim > 1 else (w.size, 1)
    order, past = (4 if w.ndim > 1 else 2), []
    for t in itertools.count():
        past.append(gradient(w).reshape(shape))
        seen, mean = np.stack(past[: t - t % update_every + 1]), average(past, 0.9)
        step = np.zeros(shape)
        for i, j in itertools.product(range(0, rows, block_size), range(0, columns, block_size)):
            here = slice(i, i + block_size), slice(j, j + block_size)
            step[here] = preconditioned(mean[here], seen[:, *here], order, epsilon)
        of_adam = mean / (np.sqrt(average(np.square(past), 0.999)) + 1e-8)
        target = {"adam": of_adam, "sgd": mean, None: step}[grafting]
        step *= np.linalg.norm(target) / np.linalg.norm(step)
        w = w - learning_rate * step.reshape(w.shape)
        yield w


def average(values: Any, beta: float) -> np.ndarray:
    """Return the mean that forgets, corrected for its start."""
    return np.average(values, axis=0, weights=beta ** np.arange(len(values))[::-1])


def preconditioned(
    block: np.ndarray, gradients: np.ndarray, order: int, epsilon: float
) -> np.ndarray:
    """Return P M Q, or P M for the one column of a vector."""
    transposed = gradients.transpose(0, 2, 1)
    left = inverse_root(average(gradients @ transposed, 0.999), order, epsilon)
    if order == 2:
        return left @ block
    return left @ block @ inverse_root(average(transposed @ gradients, 0.999), order, epsilon)


def inverse_root(matrix: np.ndarray, order: int, epsilon: float) -> np.ndarray:
    """Return a root of the inverse of a symmetric matrix, to which ε of its norm is added."""
    matrix = matrix + epsilon * np.linalg.norm(matrix, 2) * np.eye(len(matrix))
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values ** (-1 / order) @ vectors.T


def lookahead(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    momentum: float,
    sync_period: int = 6,
    slow_step_size: float = 0.5,
) -> Path:
    slow, step = w, 0.0
    for t in itertools.count(1):
        step = momentum * step - learning_rate * gradient(w)
        w = w + step
        if t % sync_period == 0:
            w = slow = slow + slow_step_size * (w - slow)
        yield w


def schedule_free(
    w: np.ndarray,
    gradient: Gradient,
    learning_rate: float,
    momentum: float,
    beta_2: float = 0.0,
    weight_decay: float = 0.0,
    averaged: bool = False,
) -> Path:
    x = y = z = w
    v = 0.0
    for t in itertools.count(1):
        g = gradient(y)
        v = beta_2 * v + (1 - beta_2) * g**2
        direction = g / (np.sqrt(v / (1 - beta_2**t)) + 1e-8) if beta_2 else g
        z = z - learning_rate * (direction + weight_decay * y)
        x = (1 - 1 / t) * x + z / t
        y = (1 - momentum) * z + momentum * x
        yield x if averaged else y


def lookahead_of_sgd(learning_rate: float, momentum: float, **arguments: Any) -> ours.Lookahead:
    return ours.Lookahead(keras.optimizers.SGD(learning_rate, momentum), **arguments)


def schedule_free_sgd(learning_rate: float, momentum: float) -> ours.ScheduleFree:
    return ours.ScheduleFree(keras.optimizers.SGD(learning_rate), momentum)


def schedule_free_adamw(momentum: float, **arguments: float) -> ours.ScheduleFree:
    return ours.ScheduleFree(keras.optimizers.AdamW(beta_1=momentum, epsilon=1e-8, **arguments))


@dataclass(frozen=True)
class Row:
    """An optimizer and its oracle, which take the same arguments: the rate and `options`.

    `together`: the oracle moves all weights as one, as its rule looks at all of them.
    """

    name: str
    make: Callable[..., keras.optimizers.Optimizer]
    oracle: Callable[..., Path]
    options: dict[str, Any] = field(default_factory=dict)
    problem: Problem = Problem()
    together: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor and the oracle take."""
        return {"learning_rate": RATE, **self.options}

    def reference(self, **more: Any) -> np.ndarray:
        """Return where the oracle has all weights after each step."""
        paths = [
            itertools.islice(self.oracle(w, gradient, **self.arguments, **more), STEPS)
            for w, gradient in self.problem.weights(self.together)
        ]
        return np.stack([flat(weights) for weights in zip(*paths, strict=True)])


AT_ZERO = Problem(((5, 4), (3,), ()), spread=0.0)  # how far weights have come is not rounded
MATRICES = Problem(((130, 5), (6, 5), (7,), (3, 3, 2, 4), ()))
SCHEDULE_FREE = (
    Row(
        "ScheduleFree, SGD",
        schedule_free_sgd,
        schedule_free,
        {"learning_rate": 0.25, "momentum": 0.9},
    ),
    Row(
        "ScheduleFree, AdamW",
        schedule_free_adamw,
        schedule_free,
        {"momentum": 0.8, "beta_2": 0.99, "weight_decay": 0.1},
    ),
)
ROWS = (
    Row("SGD", ours.SGD, sgd),
    Row("SGD, momentum", ours.SGD, sgd, {"momentum": 0.9}),
    Row("SGD, Nesterov", ours.SGD, sgd, {"momentum": 0.9, "nesterov": True}),
    Row("Adam", ours.Adam, adam),
    Row("Adam, other memories", ours.Adam, adam, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.01}),
    Row("Adam, AMSGrad", ours.Adam, adam, {"beta_2": 0.5, "amsgrad": True}),
    Row("AdamW", ours.AdamW, adam, {"weight_decay": 0.5}),
    Row("RMSprop", ours.RMSprop, rmsprop),
    Row("RMSprop, momentum", ours.RMSprop, rmsprop, {"momentum": 0.5, "epsilon": 0.01}),
    Row("RMSprop, centered", ours.RMSprop, rmsprop, {"centered": True, "epsilon": 0.01}),
    Row(
        "RMSprop, centered, momentum",
        ours.RMSprop,
        rmsprop,
        {"centered": True, "momentum": 0.5, "rho": 0.99},
    ),
    Row("DeltaBarDelta", ours.DeltaBarDelta, delta_bar_delta, {"learning_rate": 0.5}),
    Row("DeltaBarDelta, momentum", ours.DeltaBarDelta, delta_bar_delta, {"momentum": 0.5}),
    Row(
        "DeltaBarDelta, bounds",
        ours.DeltaBarDelta,
        delta_bar_delta,
        {"kappa": 10.0, "phi": 0.9, "theta": 0.5, "min_gain": 2.0, "max_gain": 20.0},
    ),
    Row("Rprop", ours.Rprop, rprop),
    Row("Rprop, bounds", ours.Rprop, rprop, {"etas": (0.1, 1.5), "step_sizes": (0.02, 0.5)}),
    Row("RectifiedAdam", ours.RectifiedAdam, rectified_adam),
    Row("RectifiedAdam, short memory", ours.RectifiedAdam, rectified_adam, {"beta_2": 0.9}),
    Row("RectifiedAdam, never rectified", ours.RectifiedAdam, rectified_adam, {"beta_2": 0.6}),
    Row("AdaBelief", ours.AdaBelief, ada_belief),
    Row("AdaBelief, epsilon", ours.AdaBelief, ada_belief, {"epsilon": 1e-4}),
    Row("Adan", ours.Adan, adan),
    Row("Adan, decay", ours.Adan, adan, {"weight_decay": 0.5}),
    Row("LARS", ours.LARS, lars, {"trust_coefficient": 0.25}),
    Row("LARS, decay", ours.LARS, lars, {"trust_coefficient": 0.25, "weight_decay": 0.01}),
    Row("LARS, Nesterov", ours.LARS, lars, {"trust_coefficient": 0.25, "nesterov": True}),
    Row("Prodigy", ours.Prodigy, prodigy, {"learning_rate": 1.0}, AT_ZERO, together=True),
    Row(
        "Prodigy, bias correction",
        ours.Prodigy,
        prodigy,
        {
            "learning_rate": 1.0,
            "d0": 0.01,
            "growth_rate": 1.1,
            "use_bias_correction": True,
            "weight_decay": 0.01,
        },
        together=True,
    ),
    Row(
        "Prodigy, safeguard",
        ours.Prodigy,
        prodigy,
        {"learning_rate": 0.25, "d0": 0.01, "safeguard_warmup": True},
        together=True,
    ),
    Row("Shampoo", ours.Shampoo, shampoo, {"epsilon": 0.01}, MATRICES),
    Row("Shampoo, blocks", ours.Shampoo, shampoo, {"epsilon": 0.01, "block_size": 4}, MATRICES),
    Row(
        "Shampoo, often, of SGD's length",
        ours.Shampoo,
        shampoo,
        {"epsilon": 0.01, "update_every": 3, "grafting": "sgd"},
        MATRICES,
    ),
    Row(
        "Shampoo, of its own length",
        ours.Shampoo,
        shampoo,
        {"learning_rate": 0.5, "epsilon": 0.01, "update_every": 1, "grafting": None},
        MATRICES,
    ),
    Row("Lookahead", lookahead_of_sgd, lookahead, {"momentum": 0.9}),
    Row(
        "Lookahead, long way",
        lookahead_of_sgd,
        lookahead,
        {"momentum": 0.5, "sync_period": 4, "slow_step_size": 0.9},
    ),
    *SCHEDULE_FREE,
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_follows_the_equations(row: Row) -> None:
    path = travel(row.make(**row.arguments), row.problem)
    assert distance(path, row.reference()) <= 1e-5


@pytest.mark.parametrize("row", SCHEDULE_FREE, ids=lambda row: row.name)
def test_average_of_the_path(row: Row) -> None:
    optimizer = row.make(**row.arguments)
    weights = [keras.Variable(w) for w, _ in row.problem.weights()]
    travel(optimizer, row.problem, weights=weights)
    optimizer.finalize_variable_values(weights)
    assert distance(flat(weights), row.reference(averaged=True)[-1]) <= 1e-5
