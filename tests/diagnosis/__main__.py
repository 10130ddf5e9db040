"""Train networks with known faults; write their curves to runs.json.

    python -m tests.diagnosis

Each run has one fault, put there by its construction: a rate that is too low or too high, a network
too small, few samples, wrong labels, layers that pass no gradient, few samples to validate on, or
none. A fault counts only where it is proven by a second training, the same but for the fault, that
ends clearly better; what could not be proven is left out. The curves decide nothing but that.

Where the curves of two faults are the same, none of them counts: a network that cannot learn at all
stays on a plateau, validation may be a little better by the luck of the split, and a rate that
makes the error rise by less than thirty times is one that is too high, or diverges.

Thresholds of the diagnosis were chosen with the runs on the tasks of SEEN. The runs on the others
were made after that, once. Of the tasks of SEEN the last five were such a set before: of their 86
runs 77 were judged right, before one rule was changed.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from sklearn import datasets
from sklearn.preprocessing import scale

PATH = Path(__file__).with_name("runs.json")
SEEN = ("digits", "breast_cancer", "moons", "diabetes")
SEEN += ("wine", "iris", "circles", "classification", "friedman1")
SEEN += ("blobs", "hastie", "gaussian_quantiles", "swiss_roll", "friedman3")
UNSEEN = ("two_blobs", "three_classes", "xor", "s_curve", "friedman2")
REGRESSION = ("diabetes", "friedman1", "swiss_roll", "friedman3", "s_curve", "friedman2")


def xor(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points in six dimensions; their class is whether the first two have one sign."""
    x = np.random.default_rng(random_state).uniform(-1, 1, (600, 6))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


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


@cache
def train(setup: Setup, seed: int) -> History:
    """Return the history of one training."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    hidden: list[Any] = []
    for units in setup.units:
        hidden.append(keras.layers.Dense(units, setup.activation))
        hidden += [keras.layers.Dropout(setup.dropout)] if setup.dropout else []
    rate = setup.times * RATES[setup.optimizer]
    sgd = partial(keras.optimizers.SGD, momentum=0.9)
    optimizer = (sgd if setup.optimizer == "SGD" else keras.optimizers.Adam)(rate)
    regression = setup.task in REGRESSION
    outputs = 1 if regression else int(samples(setup.task)[1].max()) + 1
    model = keras.Sequential([*hidden, keras.layers.Dense(outputs)])
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [] if regression else ["accuracy"]
    model.compile(
        optimizer, "mse" if regression else entropy, metrics=metrics, steps_per_execution=16
    )
    x, y, *held_out = split(setup, seed)
    fit = partial(model.fit, batch_size=setup.batch_size, epochs=setup.epochs, verbose=0)
    return fit(x, y, validation_data=tuple(held_out)).history


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
    history, mended = train(case.setup, seed), train(case.mended, seed)
    start = train(case.mended._replace(times=1e-6, epochs=1), seed)["loss"][0]
    ends = {key: np.mean(values[-5:]) for key, values in history.items()}
    without = {key: np.mean(values[-5:]) for key, values in mended.items()}
    if case.fault == "converged":
        known = ends["loss"] < 0.15 * start and ends["val_loss"] - ends["loss"] < 0.1 * start
        return "converged" if known and ends["val_loss"] < 1.1 * min(history["val_loss"]) else None
    if case.fault == "rate_too_high" and not ends["loss"] < 30 * start:
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
    if case.fault == "underfitting" and shown > 0.9 * start:
        return None
    high = shown > 0.2 * start and (shown < 3 * start or case.fault == "overfitting")
    return case.fault if high and without[case.shown_by] < BETTER * shown else None


def main(tasks: tuple[str, ...], path: Path) -> None:
    """Train all, or the tasks named."""
    runs: list[dict[str, Any]] = []
    for place, (task, name) in enumerate(itertools.product(SEEN + UNSEEN, RATES)):
        if task not in tasks:
            continue
        for case in cases(task, name, np.random.default_rng(place)):
            fault, history = proven(case, seed=place), train(case.setup, place)
            rounded = {key: [float(f"{v:.4g}") for v in values] for key, values in history.items()}
            way = f"{task}, {name}, {case.way}"
            ends = [
                f"{v[0]:.3g} {min(v):.3g} {v[-1]:.3g}" for k, v in rounded.items() if "loss" in k
            ]
            print(case.fault, fault, way, *ends, sep=", ", flush=True)
            if fault:
                run = {"fault": fault, "way": way, "seen": task in SEEN, "history": rounded}
                runs.append(run)
    path.write_text(json.dumps(runs))


if __name__ == "__main__":
    main(tuple(sys.argv[2:]) or SEEN + UNSEEN, Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
