"""Train networks with known faults; write their curves to runs.json.

    KERAS_BACKEND=jax python -m tests.diagnosis

Each run has one fault, put there by its construction: a rate that is too low or too high, a network
too small, few samples, wrong labels, layers that pass no gradient, few samples to validate on, or
none. A fault counts only where it is proven by a second training, the same but for the fault, that
ends clearly better; what could not be proven is left out. The curves decide nothing but that.

Where the curves of two faults are the same, none of them counts: a network that cannot learn at all
stays on a plateau, validation may be a little better by the luck of the split, and a rate that
makes the error rise by less than thirty times is one that is too high, or diverges.

Thresholds of the diagnosis were chosen with the runs on the tasks of SEEN, which were made with
`fit`, and of which the error of a first batch was taken in later. The runs on the others were made
after that, once.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets
from sklearn.preprocessing import scale

PATH = Path(__file__).with_name("runs.json")
SEEN = ("digits", "breast_cancer", "moons", "diabetes")
SEEN += ("wine", "iris", "circles", "classification", "friedman1")
SEEN += ("blobs", "hastie", "gaussian_quantiles", "swiss_roll", "friedman3")
SEEN += ("two_blobs", "three_classes", "xor", "s_curve", "friedman2")
UNSEEN = ("clothes", "odd_digits", "sparse_uncorrelated", "spirals", "waves")
REGRESSION = ("diabetes", "friedman1", "swiss_roll", "friedman3", "s_curve", "friedman2")
REGRESSION += ("sparse_uncorrelated", "waves")


def xor(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points in six dimensions; their class is whether the first two have one sign."""
    x = np.random.default_rng(random_state).uniform(-1, 1, (600, 6))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def clothes(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of fashion_mnist, at half the resolution, of four kinds of tops."""
    pictures, kinds = tfds.as_numpy(
        tfds.load("fashion_mnist", split="train", batch_size=-1, as_supervised=True)
    )
    tops = np.flatnonzero(np.isin(kinds, (0, 2, 4, 6)))[:600]
    halves = pictures[tops].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    return halves.reshape(-1, 196), kinds[tops]


def odd_digits(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of digits; their class is whether the digit is odd."""
    x, y = datasets.load_digits(return_X_y=True)
    return x, y % 2


def spirals(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points on three arms of a spiral; their class is the arm."""
    random, arms = np.random.default_rng(random_state), np.arange(600) % 3
    radii = random.uniform(0.1, 1, 600)
    angles = 2 * np.pi * (arms / 3 + radii / 2) + random.normal(0, 0.1, 600)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), arms


def waves(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points in five dimensions, and a wave along the first plus one across two others."""
    random = np.random.default_rng(random_state)
    x = random.uniform(-1, 1, (600, 5))
    noise = random.normal(0, 0.1, 600)
    return x, np.sin(3 * x[:, 0]) + np.cos(2 * (x[:, 1] - x[:, 2])) + noise


MADE = {
    "moons": partial(datasets.make_moons, 600, noise=0.1),
    "circles": partial(datasets.make_circles, 600, noise=0.08, factor=0.5),
    "classification": partial(
        datasets.make_classification, 600, n_classes=5, n_informative=10, class_sep=2.0
    ),
    "friedman1": partial(datasets.make_friedman1, 600, noise=0.5),
    "blobs": partial(datasets.make_blobs, 600, n_features=4, centers=6, cluster_std=3.0),
    "hastie": partial(datasets.make_hastie_10_2, 600),
    "gaussian_quantiles": partial(datasets.make_gaussian_quantiles, n_samples=600, n_features=4),
    "swiss_roll": partial(datasets.make_swiss_roll, 600, noise=0.2),
    "friedman3": partial(datasets.make_friedman3, 600, noise=0.05),
    "two_blobs": partial(datasets.make_blobs, 600, n_features=10, centers=2, cluster_std=6.0),
    "three_classes": partial(
        datasets.make_classification, 600, n_features=8, n_informative=5, n_classes=3
    ),
    "xor": xor,
    "s_curve": partial(datasets.make_s_curve, 600, noise=0.1),
    "friedman2": partial(datasets.make_friedman2, 600, noise=50.0),
    "clothes": clothes,
    "odd_digits": odd_digits,
    "sparse_uncorrelated": partial(datasets.make_sparse_uncorrelated, 600),
    "spirals": spirals,
    "waves": waves,
}
RATES = {"SGD": 0.01, "Adam": 0.003}
BETTER = 0.7  # of the error with the fault: that without it
History = dict[str, list[float]]


class Setup(NamedTuple):
    """What a training consists of."""

    task: str
    optimizer: str
    epochs: int
    batch_size: int
    units: tuple[int, ...] = (64,)
    activation: str = "relu"
    times: float = 1.0  # the usual rate
    dropout: float = 0.0
    train: int | None = None
    held_out: int | None = None
    features: int | None = None
    wrong: float = 0.0
    wrong_held_out: bool = True


class Case(NamedTuple):
    """A fault, how it was made, the training with it, one without it, and what shows it."""

    fault: str
    way: str
    setup: Setup
    mended: Setup
    shown_by: str = "loss"


@cache
def samples(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs of mean 0 and variance 1 and targets, in a random order."""
    if task in MADE:
        x, y = MADE[task](random_state=0)
    else:
        x, y = getattr(datasets, f"load_{task}")(return_X_y=True)
    y = scale(y) if task in REGRESSION else np.unique(y, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(x))[:600]
    return scale(x[order]).astype("float32"), y[order].astype(
        "float32" if task in REGRESSION else "int32"
    )


def split(setup: Setup, seed: int) -> tuple[np.ndarray, ...]:
    """Hold some samples out, a third by default; keep some features; make some labels wrong."""
    x, y = samples(setup.task)
    random = np.random.default_rng(seed)
    columns = random.permutation(np.flatnonzero(x.std(axis=0) > 0.5))[: setup.features]
    x, y = x[:, columns] if setup.features else x, y.copy()
    order = random.permutation(len(x))
    held_out = setup.held_out or len(x) // 3
    inside, outside = order[held_out:][: setup.train], order[:held_out]
    changed = np.flatnonzero(random.random(len(x)) < setup.wrong)
    clean, y[changed] = y.copy(), random.permutation(y[changed])
    return x[inside], y[inside], x[outside], (y if setup.wrong_held_out else clean)[outside]


def build(setup: Setup) -> keras.Model:
    """Return a network before training, compiled."""
    hidden: list[Any] = []
    for units in setup.units:
        hidden.append(keras.layers.Dense(units, setup.activation))
        hidden += [keras.layers.Dropout(setup.dropout)] if setup.dropout else []
    x, y = samples(setup.task)
    outputs = 1 if setup.task in REGRESSION else int(y.max()) + 1
    model = keras.Sequential([*hidden, keras.layers.Dense(outputs)])
    model.build((None, setup.features or x.shape[1]))
    sgd = partial(keras.optimizers.SGD, momentum=0.9)
    model.compile((sgd if setup.optimizer == "SGD" else keras.optimizers.Adam)(1.0))
    model.optimizer.build(model.trainable_variables)
    return model


@cache
def program(setup: Setup) -> Any:
    """Return what trains such a network at any rate, all epochs at once: `fit` takes far longer."""
    model, regression = build(setup), setup.task in REGRESSION

    def error(weights: Any, others: Any, x: Any, y: Any, use: Any, training: bool) -> Any:
        out, others = model.stateless_call(weights, others, x, training=training)
        if regression:
            losses, right = (out[:, 0] - y) ** 2, jnp.zeros(len(x))
        else:
            losses = keras.ops.sparse_categorical_crossentropy(y, out, from_logits=True)
            right = (jnp.argmax(out, axis=1) == y).astype("float32")
        means = [jnp.sum(use * each) / jnp.sum(use) for each in (losses, right)]
        return means[0], (others, jnp.array(means))

    @jax.jit
    def run(state: Any, batches: Any, x: Any, y: Any, held_x: Any, held_y: Any) -> Any:
        def step(state: Any, batch: Any) -> Any:
            (weights, others, slots), (rows, use) = state, batch
            gradient, (others, means) = jax.grad(error, has_aux=True)(
                weights, others, x[rows], y[rows], use, True
            )
            weights, slots = model.optimizer.stateless_apply(slots, gradient, weights)
            return (weights, others, slots), (means, jnp.sum(use))

        def epoch(state: Any, batches: Any) -> Any:
            state, (means, sizes) = jax.lax.scan(step, state, batches)
            held_out = error(*state[:2], held_x, held_y, jnp.ones(len(held_x)), False)[1][1]
            return state, (sizes @ means / jnp.sum(sizes), held_out, means[0])

        return jax.lax.scan(epoch, state, batches)[1]

    return run


@cache
def train(setup: Setup, seed: int) -> tuple[History, float]:
    """Return the history of one training, and the error of its first batch."""
    keras.utils.set_random_seed(seed)
    model, random = build(setup), np.random.default_rng(seed)
    model.optimizer.learning_rate = setup.times * RATES[setup.optimizer]
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
    )
    data = split(setup, seed)
    count, size = len(data[0]), setup.batch_size
    shape = setup.epochs, -(-count // size), size
    rows = np.zeros((setup.epochs, shape[1] * size), int)
    rows[:, :count] = [random.permutation(count) for _ in rows]
    use = np.broadcast_to(np.arange(shape[1] * size) < count, rows.shape).astype("float32")
    shared = setup._replace(times=1.0, train=None, held_out=None, wrong=0.0, wrong_held_out=True)
    inside, held_out, first = program(shared._replace(epochs=0, batch_size=0))(
        state, (rows.reshape(shape), use.reshape(shape)), *data
    )
    history = {"loss": inside[:, 0], "val_loss": held_out[:, 0]}
    if setup.task not in REGRESSION:
        history |= {"accuracy": inside[:, 1], "val_accuracy": held_out[:, 1]}
    return {name: np.array(values).tolist() for name, values in history.items()}, float(first[0, 0])


def cases(task: str, name: str, random: np.random.Generator) -> Iterator[Case]:
    """Yield every fault for a task and an optimizer, drawn at random where there is a choice."""
    usual = Setup(
        task,
        name,
        epochs=int(random.choice([25, 40, 60])),
        batch_size=int(random.choice([8, 16, 32])),
        units=[(64,), (32,), (48, 48)][random.integers(3)],
        activation=str(random.choice(["relu", "tanh"])),
    )
    yield Case("converged", "nothing", usual, usual)
    for powers in ((1.7, 2.3), (2.3, 3), (3, 4)):
        times = float(f"{10 ** -random.uniform(*powers):.2g}")
        yield Case("rate_too_low", f"rate × {times}", usual._replace(times=times), usual)
    for powers in ((0.8, 1.2), (1.2, 1.7), (1.7, 2.3)):
        times = float(f"{10 ** (random.uniform(*powers) + 0.4 * (name == 'Adam')):.2g}")
        yield Case("rate_too_high", f"rate × {times}", usual._replace(times=times), usual)
    large = usual._replace(units=(128, 128), activation="relu", times=2.0, epochs=80)
    few = large._replace(train=int(random.choice([20, 30, 40])), batch_size=8)
    yield Case("overfitting", f"{few.train} samples", few, large, "val_loss")
    longer = usual._replace(epochs=80, times=3.0)
    narrow = longer._replace(units=(1,), activation="tanh")
    yield Case("underfitting", "one hidden unit", narrow, longer)
    yield Case("underfitting", "no hidden units", longer._replace(units=()), longer)
    less = longer._replace(features=2, units=(8,))
    yield Case("underfitting", "two features", less, longer)
    deep = usual._replace(units=(32,) * 10, activation="sigmoid", times=0.3)
    yield Case("plateau", "10 sigmoid layers", deep, deep._replace(activation="relu"))
    times = float(random.choice([2, 4, 6]))
    jumpy = usual._replace(times=times, held_out=8, batch_size=4, wrong=0.2, units=(32,))
    yield Case("noisy_validation", "8 to validate on", jumpy, jumpy._replace(held_out=None))
    if task not in REGRESSION:
        wrong = large._replace(wrong=float(random.choice([0.3, 0.4])))
        yield Case("overfitting", "wrong labels", wrong, large, "val_loss")
        unlike = {"wrong": 0.3, "wrong_held_out": False, "units": (8,)}
        yield Case("leak", "wrong labels in training", usual._replace(**unlike), usual)
    dropped = usual._replace(dropout=float(random.choice([0.5, 0.6, 0.7])), units=(64, 64))
    yield Case("leak", f"dropout of {dropped.dropout}", dropped, dropped._replace(dropout=0.0))


def proven(case: Case, seed: int) -> str | None:
    """Return the fault of a training if there is one, "diverged" if it left its range, or None."""
    history, mended = (train(setup, seed)[0] for setup in (case.setup, case.mended))
    before = train(case.mended._replace(times=0.0), seed)[0]["loss"][0]
    ends = {key: np.mean(values[-5:]) for key, values in history.items()}
    without = {key: np.mean(values[-5:]) for key, values in mended.items()}
    if case.fault == "converged":
        known = ends["loss"] < 0.15 * before and ends["val_loss"] - ends["loss"] < 0.1 * before
        return "converged" if known and ends["val_loss"] < 1.1 * min(history["val_loss"]) else None
    if case.fault == "rate_too_high" and not ends["loss"] < 30 * before:
        return "diverged"
    if case.fault == "noisy_validation":
        rough, smooth = (np.mean(np.abs(np.diff(h["val_loss"], 2))) for h in (history, mended))
        return case.fault if rough > max(2 * smooth, 0.1 * ends["val_loss"]) else None
    if case.fault == "leak":
        above = ends["val_loss"] < 0.7 * ends["loss"] and without["val_loss"] > without["loss"]
        return case.fault if above else None
    shown = ends[case.shown_by]
    if case.fault == "overfitting" and shown < 1.5 * ends["loss"]:
        return None
    if case.fault == "underfitting" and shown > 0.9 * before:
        return None
    high = shown > 0.2 * before and (shown < 3 * before or case.fault == "overfitting")
    return case.fault if high and without[case.shown_by] < BETTER * shown else None


def main(tasks: tuple[str, ...], path: Path) -> None:
    """Train all, or the tasks named."""
    runs: list[dict[str, Any]] = []
    for place, (task, name) in enumerate(itertools.product(SEEN + UNSEEN, RATES)):
        if task not in tasks:
            continue
        for case in cases(task, name, np.random.default_rng(place)):
            fault, (history, start) = proven(case, seed=place), train(case.setup, place)
            rounded = {key: [float(f"{v:.6g}") for v in values] for key, values in history.items()}
            way = f"{task}, {name}, {case.way}"
            ends = [
                f"{v[0]:.3g} {min(v):.3g} {v[-1]:.3g}" for k, v in rounded.items() if "loss" in k
            ]
            print(case.fault, fault, way, *ends, sep=", ", flush=True)
            if fault:
                started = {"seen": task in SEEN, "start": float(f"{start:.6g}")}
                runs.append({"fault": fault, "way": way, **started, "history": rounded})
        path.write_text(json.dumps(runs))


if __name__ == "__main__":
    main(tuple(sys.argv[2:]) or SEEN + UNSEEN, Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
