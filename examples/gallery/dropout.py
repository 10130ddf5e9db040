"""12. Dropout.

The lecture: dropout prevents the co-adaptation of features, each of which is helpful only when
others are present. It can improve generalisation significantly, can be viewed as averaging over
many networks, and converges more slowly.

Seen: two networks of two hidden layers of 256 units, trained by Adam on 200 digits, of which a
tenth has a wrong label; one of them with dropout of 0.5. On the left the loss of the training set
falls more slowly with dropout, and that of the test set stays low, while without dropout the wrong
labels are learnt by heart. On the right a share of the hidden units is removed at random from the
trained networks: the units of the one that was trained without dropout depend on each other, so
that its error grows much more. The last rows are the average: one pass through all units is right
about as often as the mean over 64 of the networks that dropout trains, and both more often than one
of these.
"""

from typing import Any

import keras
import numpy as np
from _gallery import BLUE, RED, Shown, digits, legend, panels, show

import kerasopt

(X, Y), (TEST_X, TEST_Y) = digits()
X, Y = X[:200], Y[:200].copy()
Y[::10] = (Y[::10] + 1 + np.arange(20) % 9) % 10  # wrong
EPOCHS = 45
SHARES = (0.0, 0.2, 0.35, 0.5, 0.65)
PERCENT = [100 * share for share in SHARES]


def network(rate: float) -> keras.Model:
    """Return the network, with dropout at a rate after each hidden layer."""
    layers: list[Any] = [keras.Input((64,))]
    for _ in range(2):
        layers += [keras.layers.Dense(256, "relu"), kerasopt.layers.Dropout(rate, seed=1)]
    model = keras.Sequential([*layers, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class TrainingLoss(keras.callbacks.Callback):
    """Logs the loss over the training set, with dropout off."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the model."""
        assert logs is not None
        logs["without"] = self.model.evaluate(X, Y, batch_size=200, verbose=0)[0]


def train(rate: float) -> tuple[keras.Model, dict[str, list[float]]]:
    """Return a network and its curves."""
    keras.utils.set_random_seed(0)
    model, test = network(rate), (TEST_X, TEST_Y)
    how = {"epochs": EPOCHS, "validation_data": test, "validation_batch_size": 360, "verbose": 0}
    return model, model.fit(X, Y, batch_size=25, callbacks=[TrainingLoss()], **how).history


# page: begin
def error_without(model: keras.Model, share: float) -> float:
    """Return the test error, in %, where a share of the hidden units is removed at random."""
    thinned = network(share)
    thinned.set_weights(model.get_weights())
    draws = [thinned(TEST_X, training=True) for _ in range(20)]
    return 100 * float(np.mean([np.argmax(draw, axis=1) != TEST_Y for draw in draws]))


def scores(probabilities: np.ndarray) -> tuple[float, float]:
    """Return the error, in %, and the mean negative log likelihood of the test set."""
    wrong = probabilities.argmax(axis=1) != TEST_Y
    return 100 * wrong.mean(), -np.log(probabilities[np.arange(len(TEST_Y)), TEST_Y]).mean()


def ensemble(model: keras.Model) -> np.ndarray:
    """Return the average over many of the networks that dropout has trained."""
    mean, _ = kerasopt.predict_ensemble(model, TEST_X, samples=64, batch_size=360, seed=0)
    return mean


# page: end


def make() -> Shown:
    """Train with and without dropout."""
    figure, (left, right) = panels(["loss", "test error where units are removed, %"])
    rows: list[list[Any]] = [["", "epochs to a training loss of 0.5", "test error, %", "test loss"]]
    removed = []
    for name, rate, colour in (("without", 0.0, RED), ("dropout of 0.5", 0.5, BLUE)):
        model, curves = train(rate)
        epochs = range(1, EPOCHS + 1)
        left.plot(
            epochs, curves["without"], color=colour, linestyle="--", label=f"{name}, training set"
        )
        left.plot(epochs, curves["val_loss"], color=colour, label=f"{name}, test set")
        removed.append([error_without(model, share) for share in SHARES])
        right.plot(PERCENT, removed[-1], color=colour, marker="o", label=name)
        slow = int(np.argmax(np.array(curves["without"]) < 0.5)) + 1
        rows.append([name, slow, *scores(model.predict(TEST_X, verbose=0))])
    halves = [errors[SHARES.index(0.5)] for errors in removed]
    rows.append(["without, half the units removed", "", halves[0], ""])
    rows.append(["dropout, half the units removed", "", halves[1], ""])
    rows.append(["dropout, average of 64 of these", "", *scores(ensemble(model))])
    (_, fast, _, worse), (_, slow, error, loss), *_, (*_, average, _) = rows[1:]
    assert slow > 1.3 * fast
    assert loss < 0.85 * worse
    assert halves[0] > 1.4 * halves[1]  # co-adapted
    assert abs(average - error) < 0.6 * (halves[1] - error)
    left.set(xlabel="epoch", ylabel="mean cross-entropy", ylim=(0, None))
    right.set(xlabel="hidden units removed, %", ylim=(0, None))
    legend(left)
    legend(right)
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
