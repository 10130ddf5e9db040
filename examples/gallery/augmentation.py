"""15. Augmentation where samples are few.

The lecture: if the training set is small, one can synthesise samples: by Gaussian noise that is
added to real ones, and with knowledge of the domain, in image classification by translation,
scaling and rotation.

Seen: the test error of a small convolutional network on the digits by the number of samples it was
trained on, in the same number of steps, the mean of two seeds (the dots are each one): from the
samples as they are, with `RandomGaussianNoise`, and with `RandomAffine`. To know what may change in
an image lowers the error at each number of samples. Gaussian noise, which the lecture names first,
does not help here.
"""

from typing import Any

import keras
import numpy as np
from _gallery import BLUE, ORANGE, RED, Shown, digits, legend, panels, show

from kerasopt.layers import RandomAffine, RandomGaussianNoise

(X, Y), (TEST_X, TEST_Y) = digits()
X, TEST_X = X.reshape(-1, 8, 8, 1), TEST_X.reshape(-1, 8, 8, 1)
COUNTS, STEPS, BATCH, SEEDS, RATE = (50, 100, 200), 250, 25, 2, 0.2


# page: begin
def augmentation(kind: str) -> list[keras.Layer]:
    """Return the layers that change images while training."""
    return {
        "as they are": [],
        "noise": [RandomGaussianNoise((0, 0.2), seed=0)],
        "affine": [RandomAffine(rotation=0.03, translation=0.1, scale=0.1, shear=0.1, seed=0)],
    }[kind]


def network(kind: str) -> keras.Model:
    """Return a small convolutional network."""
    maps = [keras.layers.Conv2D(16, 3, activation="relu") for _ in range(2)]
    top = [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *augmentation(kind), *maps, *top])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), loss, metrics=["accuracy"])
    return model


# page: end


def test_error(model: keras.Model, count: int, seed: int) -> float:
    """Return the error, in %, after training on the first samples, from weights of a seed."""
    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())  # compiled once for all
    epochs = STEPS * BATCH // count
    model.fit(X[:count], Y[:count], batch_size=BATCH, epochs=epochs, verbose=0)
    return 100 * (1 - model.evaluate(TEST_X, TEST_Y, batch_size=360, verbose=0)[1])


def make() -> Shown:
    """Train on few samples in three ways."""
    figure, (axes,) = panels(["test error, %"])
    rows: list[list[Any]] = [["test error, %", *(f"{count} samples" for count in COUNTS)]]
    means = {}
    for kind, colour in (("as they are", RED), ("noise", ORANGE), ("affine", BLUE)):
        model = network(kind)
        errors = np.array([[test_error(model, n, seed) for n in COUNTS] for seed in range(SEEDS)])
        means[kind] = errors.mean(axis=0)
        axes.semilogx(COUNTS, errors.T, ".", color=colour, alpha=0.4)
        axes.semilogx(COUNTS, means[kind], color=colour, marker="o", label=kind)
        rows.append([kind, *means[kind]])
    plain, noise, affine = means.values()
    assert (affine < plain).all()
    assert affine.mean() < 0.85 * min(plain.mean(), noise.mean())
    axes.set(xlabel="training samples", ylim=(0, None))
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.minorticks_off()
    legend(axes)
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
