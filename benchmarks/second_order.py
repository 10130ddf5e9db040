"""Products with second derivatives, and second-order optimizers within `fit` to a loss of 0.001."""

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import cycle
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from sklearn.datasets import load_digits

import kerasopt
from benchmarks._race import Row, compare, race

GOAL, SEEDS = 1e-3, 5
ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, CLASSES = load_digits(return_X_y=True)
IMAGES = (IMAGES / 16).astype("float32")


def perceptron(seed: int, width: int = 128) -> keras.Model:
    """Return the network 64-128-10."""
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(width, "tanh")
    return keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])


def product(method: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return functions that compute a product, and a gradient, of 512-wide digits."""
    model = perceptron(0, 512)
    weights = model.trainable_variables
    x, y = tf.constant(IMAGES), tf.constant(CLASSES)
    objective = kerasopt.Objective(lambda z: ENTROPY(y, z), weights, lambda: model(x))
    v = [tf.random.normal(w.shape) for w in weights]

    @tf.function
    def of_vector() -> Any:
        return getattr(objective, method)(v)

    @tf.function
    def gradient() -> Any:
        with tf.GradientTape() as tape:
            loss = ENTROPY(y, model(x))
        return tape.gradient(loss, weights)

    return of_vector, gradient


@cache
def starts() -> list[list[np.ndarray]]:
    """Return the first weights of each seed. Seeding empties TensorFlow's cache of kernels."""
    return [perceptron(seed).get_weights() for seed in range(SEEDS)]


def goal(moment: str) -> keras.callbacks.Callback:
    """Return a callback that stops where the loss of all data has reached the goal.

    It looks `on_train_batch_end`, once for `steps_per_execution` steps, or `on_epoch_end`.
    """

    def look(*_: Any, **logs: Any) -> None:
        model = callback.model
        if not hasattr(model, "whole_loss"):
            x, y = tf.constant(IMAGES), tf.constant(CLASSES)
            model.whole_loss = tf.function(lambda: ENTROPY(y, model(x)))
        model.stop_training = bool(model.whole_loss() < GOAL)

    callback = keras.callbacks.LambdaCallback(**{moment: look})
    return callback


def fitter(
    make: Callable[[], Any], data: Any, moment: str, epochs: int, **compile_arguments: Any
) -> Callable[[int], float]:
    """Return a function that trains from a seed by `fit`; it returns the milliseconds."""
    model = perceptron(0)
    model.compile(make(), ENTROPY, **compile_arguments)
    starts()
    model.fit(data, epochs=1, callbacks=[goal(moment)], verbose=0)
    fresh = [variable.numpy() for variable in make_state(make)]

    def run(seed: int) -> float:
        model.set_weights(starts()[seed])
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        start = time.perf_counter()
        model.fit(data, epochs=epochs, callbacks=[goal(moment)], verbose=0)
        return 1000 * (time.perf_counter() - start)

    return run


def make_state(make: Callable[[], Any]) -> list[Any]:
    """Return the state of an optimizer that has not taken a step."""
    optimizer = make()
    optimizer.build(perceptron(0).trainable_variables)
    return optimizer.variables


def scipy_descent() -> Callable[[int], float]:
    """Return a function that lets SciPy drive TensorFlow's gradient."""
    model = perceptron(0)
    weights, x, y = model.trainable_variables, tf.constant(IMAGES), tf.constant(CLASSES)

    @tf.function
    def value(vector: Any) -> Any:
        parts = tf.split(vector, [tf.size(w) for w in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.assign(tf.reshape(part, weight.shape))
        with tf.GradientTape() as tape:
            loss = ENTROPY(y, model(x))
        return loss, tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, weights)], 0)

    def reached(result: Any) -> None:
        if result.fun < GOAL:
            raise StopIteration

    def run(seed: int) -> float:
        start_at = np.concatenate([w.ravel() for w in starts()[seed]])

        def double(vector: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = value(tf.constant(vector, tf.float32))
            return float(loss), gradient.numpy().astype("float64")

        options = {"maxcor": 10, "gtol": 0.0, "ftol": 0.0, "maxiter": 400}
        start = time.perf_counter()
        minimize(
            double,
            start_at,
            jac=True,
            method="L-BFGS-B",
            options=options,
            callback=lambda intermediate_result: reached(intermediate_result),
        )
        return 1000 * (time.perf_counter() - start)

    run(0)
    return run


def torch_descent() -> Callable[[int], float]:
    """Return a function that trains by `torch.optim.LBFGS`."""
    import torch

    torch.set_num_threads(2)
    x, y = torch.tensor(IMAGES), torch.tensor(CLASSES)

    def run(seed: int) -> float:
        weights = [torch.tensor(w, requires_grad=True) for w in starts()[seed]]
        options: dict[str, Any] = {
            "history_size": 10,
            "line_search_fn": "strong_wolfe",
            "max_iter": 400,
        }
        optimizer = torch.optim.LBFGS(weights, tolerance_grad=0, tolerance_change=0, **options)

        def closure() -> Any:
            optimizer.zero_grad()
            hidden = torch.tanh(x @ weights[0] + weights[1])
            loss = torch.nn.functional.cross_entropy(hidden @ weights[2] + weights[3], y)
            loss.backward()
            if loss.item() < GOAL:
                raise StopIteration
            return loss

        start = time.perf_counter()
        with contextlib.suppress(StopIteration):
            optimizer.step(closure)
        return 1000 * (time.perf_counter() - start)

    run(0)
    return run


def over_seeds(run: Callable[[int], float]) -> Callable[[], float]:
    """Return a function that gives the median over the seeds."""
    return lambda: statistics.median(run(seed) for seed in range(SEEDS))


def diagonal(update_every: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return epochs of `StochasticDiagonalLM`, and of Keras' `SGD`, of five models in turn.

    The same steps of a model that is compiled another time take more or less time, for good.
    """
    data = tf.data.Dataset.from_tensor_slices((IMAGES, CLASSES)).batch(128).cache().repeat(4)

    def epochs(make: Callable[[], Any]) -> Callable[[], Any]:
        models = [kerasopt.prepare(perceptron(0, 1024)) for _ in range(5)]
        for model in models:
            model.compile(make(), ENTROPY)
            model.fit(data, verbose=0)
        turns = cycle(models)
        return lambda: next(turns).fit(data, verbose=0)

    ours = partial(kerasopt.optimizers.StochasticDiagonalLM, update_every=update_every)
    return epochs(ours), epochs(lambda: keras.optimizers.SGD(0.1))


def rows() -> Iterator[Row]:
    """Compare products with gradients, L-BFGS with its peers, a diagonal method with SGD."""
    for method, name in (("hvp", "Hessian product"), ("gnvp", "Gauss-Newton product")):
        yield race(f"{name}, digits 64-512-10, graph", "one gradient", *product(method))
    task = f"`LBFGS` in `fit`, XLA, digits to a loss of {GOAL}, {SEEDS} seeds"
    data = tf.data.Dataset.from_tensor_slices((IMAGES, CLASSES))
    whole, batches = data.batch(len(IMAGES)).cache().repeat(400), data.batch(128).cache()
    options: dict[str, Any] = {"steps_per_execution": 32, "jit_compile": True}
    lbfgs = kerasopt.optimizers.LBFGS
    ours = over_seeds(fitter(lbfgs, whole, "on_train_batch_end", 1, **options))
    adam = fitter(lambda: keras.optimizers.Adam(1e-2), batches.shuffle(100), "on_epoch_end", 200)
    peers = [
        ("SciPy's L-BFGS-B on TensorFlow's gradient", scipy_descent()),
        ("Keras' `Adam(1e-2)` in `fit`, batches of 128", adam),
    ]
    if importlib.util.find_spec("torch"):  # several gigabytes, so in the extra `peers`
        peers.append(("`torch.optim.LBFGS`", torch_descent()))
    for peer, run in peers:
        yield compare(task, peer, ours, over_seeds(run), 9)
    every = 50
    task = f"`fit` with `StochasticDiagonalLM(update_every={every})`, digits 64-1024-10, batch 128"
    yield race(task, "Keras' `SGD`", *diagonal(every), 51)
