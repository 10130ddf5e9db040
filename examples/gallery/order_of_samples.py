"""11. The order of samples, and showing large errors more often.

The lecture: networks learn the fastest from the most unexpected sample, so successive samples
should not belong to the same class; and samples that produce a large error should be presented more
often, which can be disastrous where the data contain outliers.

Seen: on the left the digits sorted by class, so that the end of an epoch is nothing but nines;
shuffled; and by `interleave_classes`, which is as good as shuffling, not better. In the middle and
on the right `ErrorWeightedSampler`, without its correction of the weights in the loss: of clean
data it learns somewhat more in as many samples. Where a tenth of the labels is wrong, these get the
largest errors; without its guard the sampler shows them most of all, and the network stays far
behind. With the guard it is no worse than equal shares.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _gallery import BLUE, INK, RED, Shown, digits, legend, panels, show, shuffled
from matplotlib.axes import Axes

from kerasopt.data import ErrorWeightedSampler, interleave_classes

(X, Y), TEST = digits()
WRONG = np.random.default_rng(0).choice(len(X), len(X) // 10, replace=False)
NOISY = Y.copy()
NOISY[WRONG] = (Y[WRONG] + 1 + WRONG % 9) % 10


def fit(data: Any, rate: float, epochs: int, **how: Any) -> dict[str, list[float]]:
    """Return the curves of a training of one small network."""
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(64, "tanh")
    model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model.fit(data, epochs=epochs, validation_data=TEST, verbose=0, **how).history


# page: begin
def ordered() -> dict[str, list[float]]:
    """Return the accuracy on the test set after each epoch, by the order of the samples."""
    by_class = np.argsort(Y, kind="stable")
    data = {
        "sorted by class": tf.data.Dataset.from_tensor_slices((X[by_class], Y[by_class])).batch(16),
        "shuffled": shuffled(X, Y, 16),
        "interleaved": interleave_classes((X, Y), batch_size=16, seed=0),
    }
    return {name: fit(each, rate=0.1, epochs=6)["val_accuracy"] for name, each in data.items()}


def weighted(labels: np.ndarray, guard: float = 1.0) -> list[float]:
    """Return the loss on the test set, where samples with large errors come more often."""
    sampler = ErrorWeightedSampler(
        X, labels, batch_size=32, importance_correction=False, outlier_quantile=guard, seed=0
    )
    return fit(sampler, rate=0.1, epochs=12, callbacks=[sampler.callback])["val_loss"]


# page: end


def draw(axes: Axes, curves: dict[str, Any], what: str) -> None:
    """Draw a curve for each way."""
    for (name, values), colour in zip(curves.items(), (RED, INK, BLUE), strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, label=name)
    axes.set(xlabel="epoch", ylabel=what, ylim=(0, None), xticks=range(2, len(values) + 1, 2))
    legend(axes, loc="upper right")


def make() -> Shown:
    """Train in eight ways."""
    errors = {name: 100 * (1 - np.array(values)) for name, values in ordered().items()}
    clean, noisy = [fit(shuffled(X, y, 32), rate=0.1, epochs=12)["val_loss"] for y in (Y, NOISY)]
    with_clean = {"large errors more often": weighted(Y), "equally often": clean}
    with_noisy = {
        "large errors more often": weighted(NOISY),
        "equally often": noisy,
        "with the guard": weighted(NOISY, guard=0.9),
    }
    in_classes, _, interleaved = errors.values()
    assert in_classes[-1] > 30 > 10 > interleaved[-1]
    often, equal = map(np.array, with_clean.values())
    assert often[5] < 0.97 * equal[5]
    worse, equal, guarded = map(np.array, with_noisy.values())
    assert worse[-1] > 1.5 * equal[-1]
    assert guarded[-1] < 1.1 * equal[-1]
    figure, axes = panels(["order", "clean labels", "a tenth of the labels wrong"])
    draw(axes[0], errors, "test error, %")
    draw(axes[1], with_clean, "loss on the test set")
    draw(axes[2], with_noisy, "loss on the test set")
    rows: list[list[Any]] = [["", "after 1 epoch", "after 6", "at the end"]]
    named = (
        ("test error, %", errors),
        ("test loss, clean", with_clean),
        ("wrong labels", with_noisy),
    )
    for what, curves in named:
        rows += [[f"{what}: {name}", v[0], v[5], v[-1]] for name, v in curves.items()]
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
