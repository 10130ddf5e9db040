"""Optimizers that ask for more than the gradient, against NumPy loops, SciPy and known minima."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import minimize

import kerasopt
from kerasopt.optimizers._diagonal import random_signs

ours = kerasopt.optimizers
STEPS = 24 if keras.backend.backend() == "tensorflow" else 6  # JAX compiles each loop again
random = np.random.default_rng(0)
A, B, Y = random.normal(size=(9, 6)), random.normal(size=(9, 6)), random.normal(size=9)
START = random.normal(size=6)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Compute in float64."""
    keras.config.set_floatx("float64")
    wide: Any = contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        wide = jax.enable_x64(True)
    with wide:
        yield
    keras.config.set_floatx("float32")


def residual(w: np.ndarray) -> np.ndarray:
    return A @ w + 0.05 * (B @ w) ** 2 - Y


def loss(w: np.ndarray) -> float:
    return float(np.mean(residual(w) ** 2))


def jacobian(w: np.ndarray) -> np.ndarray:
    return A + 0.1 * (B @ w)[:, None] * B


def gradient(w: np.ndarray) -> np.ndarray:
    return 2 / len(Y) * jacobian(w).T @ residual(w)


def gauss_newton(w: np.ndarray) -> np.ndarray:
    return 2 / len(Y) * jacobian(w).T @ jacobian(w)


def hessian(w: np.ndarray) -> np.ndarray:
    return gauss_newton(w) + 2 / len(Y) * (B.T * 0.1 * residual(w)) @ B


def sam(
    w: np.ndarray, learning_rate: float, momentum: float, rho: float, adaptive: bool = False
) -> Iterator[np.ndarray]:
    step = 0.0
    while True:
        unit = np.abs(w) if adaptive else np.ones(6)
        scaled = unit * gradient(w)
        ahead = w + rho * unit * scaled / np.linalg.norm(scaled)
        step = momentum * step - learning_rate * gradient(ahead)
        w = w + step
        yield w


def newton(
    w: np.ndarray, learning_rate: float = 1.0, damping: float = 0.0, saddle_free: bool = False
) -> Iterator[np.ndarray]:
    while True:
        values, vectors = np.linalg.eigh(hessian(w))
        values = (np.abs(values) if saddle_free else values) + damping
        w = w - learning_rate * vectors @ (vectors.T @ gradient(w) / values)
        yield w


def newton_cg(
    w: np.ndarray,
    curvature: str = "gauss_newton",
    damping: float = 0.1,
    cg_iterations: int = 50,
    cg_tolerance: float = 0.01,
    warm_start: float = 0.95,
    preconditioner: str | None = None,
) -> Iterator[np.ndarray]:
    last, diagonals = np.zeros(6), []
    for t in itertools.count():
        matrix, g = (gauss_newton if curvature == "gauss_newton" else hessian)(w), gradient(w)
        signs = np.asarray(random_signs(6, 0, t))
        diagonals.append(signs * (matrix @ signs))
        divisor = (np.maximum(np.mean(diagonals, axis=0), 0) + damping) ** 0.75
        divisor = divisor if preconditioner else np.ones(6)
        damped = matrix + damping * np.eye(6)
        p = warm_start * last
        r = -g - damped @ p
        d = r / divisor
        for _ in range(cg_iterations):
            if np.linalg.norm(r) <= cg_tolerance * np.linalg.norm(g):
                break
            length = (r @ (r / divisor)) / abs(d @ damped @ d)
            p, new = p + length * d, r - length * damped @ d
            if d @ damped @ d <= 0:
                r = new
                break
            d = new / divisor + (new @ (new / divisor)) / (r @ (r / divisor)) * d
            r = new
        ratio = (loss(w + p) - loss(w)) / (g @ p + 0.5 * p @ matrix @ p)
        damping *= 2 / 3 if ratio > 0.75 else 1 if ratio >= 0.25 else 1.5
        length = 1.0
        while loss(w + length * p) - loss(w) > 1e-4 * length * g @ p:
            length /= 2
        last = length * p
        w = w + last
        yield w


def measured(w: np.ndarray, t: int, estimator: str) -> np.ndarray:
    if estimator == "hutchinson":
        signs = np.asarray(random_signs(6, 3, t), "float64")
        return signs * (hessian(w) @ signs)
    root = np.sqrt(2 / len(Y)) * np.eye(len(Y))
    return (jacobian(w).T @ root @ np.asarray(random_signs(9, 3, t), "float64")) ** 2


def diagonal_lm(
    w: np.ndarray,
    learning_rate: float,
    mu: float,
    decay: float,
    update_every: int,
    estimator: str,
) -> Iterator[np.ndarray]:
    seen: list[np.ndarray] = []
    for t in itertools.count():
        if t % update_every == 0:
            seen.append(measured(w, t, estimator))
        weights = decay ** np.arange(len(seen))[::-1]
        h = np.average(seen, axis=0, weights=weights)
        h = np.abs(h) if estimator == "hutchinson" else np.maximum(h, 0)
        w = w - learning_rate / (h + mu) * gradient(w)
        yield w


def ada_hessian(
    w: np.ndarray, learning_rate: float, hessian_power: float, update_every: int
) -> Iterator[np.ndarray]:
    m = v = np.zeros(6)
    for t in itertools.count():
        m = 0.9 * m + 0.1 * gradient(w)
        if t % update_every == 0:
            v = 0.999 * v + 0.001 * measured(w, t, "hutchinson") ** 2
        seen = 1 - 0.999 ** (t // update_every + 1)
        w = w - learning_rate * m / (1 - 0.9 ** (t + 1)) / (
            np.sqrt(v / seen) ** hessian_power + 1e-4
        )
        yield w


def sophia(
    w: np.ndarray, learning_rate: float, gamma: float, update_every: int, estimator: str
) -> Iterator[np.ndarray]:
    m = h = np.zeros(6)
    for t in itertools.count():
        m = 0.96 * m + 0.04 * gradient(w)
        if t % update_every == 0:
            h = 0.99 * h + 0.01 * measured(w, t, estimator)
        w = w - learning_rate * np.clip(m / np.maximum(gamma * h, 1e-12), -1, 1)
        yield w


def lbfgs(
    w: np.ndarray, learning_rate: float, history_size: int, line_search: str | None
) -> Iterator[np.ndarray]:
    """Yield the point of each evaluation after the first; damped pairs, a dense inverse."""
    yield w
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        g, inverse = gradient(w), np.eye(6)
        if pairs:
            inverse *= pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1])
        for s, y in pairs:
            left = np.eye(6) - np.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
        d = -inverse @ g
        length = learning_rate if pairs else learning_rate / np.linalg.norm(g)
        yield w + length * d
        while line_search and loss(w + length * d) > loss(w) + 1e-3 * length * g @ d:
            rise = loss(w + length * d) - loss(w) - length * g @ d
            length = np.clip(-(g @ d) * length**2 / (2 * rise), length / 10, length / 2)
            yield w + length * d
        s, y = length * d, gradient(w + length * d) - g
        curved = -length * g
        if s @ y < 0.2 * s @ curved:
            theta = 0.8 * (s @ curved) / (s @ curved - s @ y)
            y = theta * y + (1 - theta) * curved
        pairs = [*pairs, (s, y)][-history_size:]
        w = w + s


def sam_of_sgd(learning_rate: float, momentum: float, **arguments: Any) -> Any:
    return ours.SAM(keras.optimizers.SGD(learning_rate, momentum), **arguments)


def travel(optimizer: Any, count: int = STEPS) -> np.ndarray:
    """Return the weights after each step on the problem above, held in two variables."""
    weights = [keras.Variable(START[:4].reshape(2, 2)), keras.Variable(START[4:])]

    def outputs() -> Any:
        w = ops.concatenate([ops.reshape(weights[0], (-1,)), weights[1] + 0.0])
        return ops.matmul(A, w) + 0.05 * ops.matmul(B, w) ** 2

    path = []
    for _ in range(count):
        error = kerasopt.Objective(lambda z: ops.sum((z - Y) ** 2) / 9, weights, outputs)
        with error as objective:
            optimizer.scale_loss(objective.loss())
            optimizer.apply(objective.gradient(), weights)
        path.append(np.concatenate([w.numpy().ravel() for w in weights]))
    return np.array(path)


ROWS: list[tuple[Callable, Callable, dict[str, Any]]] = [
    (sam_of_sgd, sam, {"learning_rate": 0.01, "momentum": 0.9, "rho": 0.05}),
    (sam_of_sgd, sam, {"learning_rate": 0.01, "momentum": 0.5, "rho": 0.5, "adaptive": True}),
    (ours.Newton, newton, {"damping": 2.0}),
    (ours.Newton, newton, {"learning_rate": 0.5, "damping": 0.1}),
    (ours.Newton, newton, {"learning_rate": 0.3, "damping": 0.5, "saddle_free": True}),
    (ours.NewtonCG, newton_cg, {}),
    (ours.NewtonCG, newton_cg, {"cg_iterations": 3, "warm_start": 0.5, "damping": 1.0}),
    (ours.NewtonCG, newton_cg, {"curvature": "hessian"}),
    (ours.NewtonCG, newton_cg, {"curvature": "hessian", "preconditioner": "diagonal"}),
    *(
        (
            ours.StochasticDiagonalLM,
            diagonal_lm,
            {
                **{"learning_rate": 0.1, "mu": 1.0, "decay": 0.8},
                **{"update_every": 3, "estimator": estimator},
            },
        )
        for estimator in ("gauss_newton", "hutchinson")
    ),
    (
        ours.AdaHessian,
        ada_hessian,
        {"learning_rate": 0.1, "hessian_power": 1.0, "update_every": 1},
    ),
    (
        ours.AdaHessian,
        ada_hessian,
        {"learning_rate": 0.1, "hessian_power": 0.5, "update_every": 4},
    ),
    *(
        (
            ours.Sophia,
            sophia,
            {
                **{"learning_rate": 0.05, "gamma": 0.5},
                **{"update_every": 5, "estimator": estimator},
            },
        )
        for estimator in ("gauss_newton", "hutchinson")
    ),
    *(
        (
            ours.LBFGS,
            lbfgs,
            {"learning_rate": rate, "history_size": size, "line_search": line_search},
        )
        for rate, size, line_search in (
            *((1.0, 4, "armijo"), (3.0, 2, "armijo"), (0.5, 3, None), (0.5, 1, None)),
        )
    ),
]
SEEDED = (ours.StochasticDiagonalLM, ours.AdaHessian, ours.Sophia)


@pytest.mark.parametrize(
    ("make", "oracle", "arguments"), ROWS, ids=lambda value: getattr(value, "__name__", "")
)
def test_follows_the_equations(make: Callable, oracle: Callable, arguments: dict) -> None:
    path = travel(make(**arguments, **({"seed": 3} if make in SEEDED else {})))
    expected = np.array(list(itertools.islice(oracle(START, **arguments), STEPS)))
    np.testing.assert_allclose(path, expected, rtol=1e-5, atol=1e-5)


def rosenbrock(w: Any) -> Any:
    return 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2


def himmelblau(w: Any) -> Any:
    return (w[0] ** 2 + w[1] - 11) ** 2 + (w[0] + w[1] ** 2 - 7) ** 2


def descend(function: Callable, start: list[float], optimizer: Any, count: int) -> np.ndarray:
    """Return the points that a function of one weight is evaluated at, and then the end."""
    w = keras.Variable(np.array(start))
    points = []
    for _ in range(count):
        points.append(w.numpy())
        with kerasopt.Objective(lambda: function(w), [w]) as objective:
            optimizer.scale_loss(objective.loss())
            optimizer.apply(objective.gradient(), [w])
    optimizer.finalize_variable_values([w])
    return np.array([*points, w.numpy()])


def slope(function: Callable, point: np.ndarray) -> np.ndarray:
    w = keras.Variable(point)
    return np.asarray(kerasopt.Objective(lambda: function(w), [w]).gradient()[0])


@pytest.mark.parametrize(
    ("function", "start", "most"),
    [(rosenbrock, [-1.2, 1.0], 60), (himmelblau, [1.0, 1.0], 31), (himmelblau, [-2.0, 2.0], 17)],
)
def test_lbfgs_evaluates_where_scipy_does(function: Callable, start: list, most: int) -> None:
    seen: list[np.ndarray] = []

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        seen.append(w.copy())
        return float(function(w)), slope(function, w)

    options = {"gtol": 1e-5, "ftol": 0.0, "maxcor": 10}
    minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    points = descend(function, start, ours.LBFGS(), len(seen) + 1)
    np.testing.assert_allclose(points[1:-1], seen, rtol=1e-8)  # the start is evaluated twice
    assert np.abs(slope(function, points[-2])).max() <= 1e-5
    assert len(seen) + 1 <= most


def test_lbfgs_keeps_its_pairs_where_the_loss_is_no_number() -> None:
    def bounded(w: Any) -> Any:
        return ops.where(ops.all(ops.abs(w) < 5), rosenbrock(w), np.nan)

    rate = keras.optimizers.schedules.PiecewiseConstantDecay([10], [1.0, 1e6])
    optimizer = ours.LBFGS(rate)  # from the tenth evaluation on its trials go beyond the bounds
    points = descend(bounded, [-1.2, 1.0], optimizer, 13)
    pairs = np.count_nonzero(np.diagonal(optimizer.inverse.numpy()))
    assert np.abs(points).max() > 5
    assert np.abs(points[-1]).max() < 5
    assert pairs >= 4


def test_newton_solves_any_quadratic_in_one_step() -> None:
    q, _ = np.linalg.qr(random.normal(size=(5, 5)))
    for values in ([1, 2, 3, 4, 5], [1e-4, 1, 1, 1, 1e2], [-3, -1, 2, 4, 5], [0, 0, 1, 2, 3]):
        matrix, b = q @ np.diag(values) @ q.T, q @ np.diag(values) @ random.normal(size=5)
        half = lambda w, m=matrix, b=b: ops.sum(w * ops.matmul(m, w)) / 2 - ops.sum(w * b)  # noqa: E731
        end = descend(half, [1.0, -2.0, 3.0, -4.0, 5.0], ours.Newton(), 1)[-1]
        np.testing.assert_allclose(matrix @ end, b, atol=1e-8)


@pytest.mark.parametrize("saddle_free", [False, True])
def test_newton_and_the_saddle(saddle_free: bool) -> None:
    def saddle(w: Any) -> Any:
        return w[0] ** 2 - w[1] ** 2 + w[1] ** 4

    x, y = descend(saddle, [1.0, 1e-3], ours.Newton(saddle_free=saddle_free), 20)[-1]
    assert abs(x) < 1e-8
    assert abs(y - (2**-0.5 if saddle_free else 0.0)) < 1e-8


@pytest.mark.tensorflow
def test_newton_cg_leaves_a_saddle() -> None:
    def saddle(w: Any) -> Any:
        return w[0] ** 2 - w[1] ** 2 + w[1] ** 4

    end = descend(saddle, [1.0, 1e-3], ours.NewtonCG(curvature="hessian"), 60)[-1]
    np.testing.assert_allclose(np.abs(end), [0, 2**-0.5], atol=1e-4)


def test_newton_refuses_many_weights() -> None:
    with pytest.raises(ValueError, match=r"at most 5000: use `NewtonCG`\. Received: 5001 w"):
        ours.Newton().build([keras.Variable(np.zeros(5001))])


def test_loss_must_be_shown() -> None:
    w = keras.Variable([1.0])
    message = "`LBFGS` needs the loss"
    with pytest.raises(ValueError, match=message):
        ours.LBFGS().apply([ops.ones(1)], [w])
    for optimizer in (ours.NewtonCG(), ours.SAM("sgd"), ours.Sophia()):
        message = f"`{type(optimizer).__name__}` needs the loss function, not only its gradient"
        with pytest.raises(ValueError, match=message):
            optimizer.apply([ops.ones(1, "float64")], [w])


def test_signs_are_fair() -> None:
    signs = np.stack([random_signs(20000, 1, t) for t in range(4)])
    assert set(signs.ravel()) == {-1.0, 1.0}
    assert np.abs(signs.mean(axis=1)).max() < 0.03
    assert np.abs(np.corrcoef(signs) - np.eye(4)).max() < 0.03
    assert abs(np.mean(signs[:, 1:] * signs[:, :-1])) < 0.02


@pytest.mark.parametrize("shape", [(2, 2, 1, 2), (2, 2, 2)])
def test_ada_hessian_averages_over_the_places_of_a_filter(shape: tuple) -> None:
    curvature = np.arange(1.0, 9.0).reshape(shape)
    w, optimizer = keras.Variable(np.ones(shape)), ours.AdaHessian(0.1, epsilon=0.0)
    with kerasopt.Objective(lambda z: ops.sum(curvature * z[0] ** 2) / 2, [w], lambda: [w + 0.0]):
        optimizer.apply([ops.convert_to_tensor(curvature)], [w])
    filters = curvature.mean(axis=(0, 1), keepdims=True) if len(shape) == 4 else curvature
    np.testing.assert_allclose(w.numpy(), 1 - 0.1 * curvature / filters, rtol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("make", SEEDED)
def test_default_rate_is_stable_in_a_convolutional_network(make: Callable, digits: tuple) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = kerasopt.Sequential(
        [
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 3, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, "tanh"),
            layers.Dense(84, "tanh"),
            layers.Dense(10),
        ]
    )
    model.compile(make(seed=0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(*digits, batch_size=16, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8
