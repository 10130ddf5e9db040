"""5. Stochastic, mini-batch, batch and growing-batch training.

The lecture: stochastic learning is faster than batch learning, but its weights fluctuate, and it
may not fully converge to a minimum; mini-batches lie between. Start with a small batch size, and
increase it as training proceeds.

Seen: softmax regression on the digits with a penalty of the weights, whose minimum is known: the
loss above it against the number of samples seen. Stochastic training is far ahead at first, and
soon comes no closer; the whole batch goes steadily, and is far behind. Mini-batches of 32 do not
lie between: at 30 times the rate they go where single samples go, and stop where these stop, in a
thirtieth of the steps. `GrowingBatchSize` begins like the first, and ends below all others without
a change of the rate, since the noise of the gradient averages out.
"""

from typing import Any

import keras
import numpy as np
from _gallery import BLUE, GREEN, ORANGE, RED, Shown, digits, legend, panels, show, shuffled

import kerasopt

(X, Y), _ = digits()
EPOCHS = 16
CASES = (
    ("stochastic", 0.01, 1, GREEN),
    ("mini-batches of 32", 0.3, 32, ORANGE),
    ("batch", 1.0, len(X), RED),
    ("growing from 1", 0.03, None, BLUE),
)


def network(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Return softmax regression with a penalty, from zero weights."""
    penalty = keras.regularizers.L2(0.01)
    layer = keras.layers.Dense(10, kernel_initializer="zeros", kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((64,)), layer])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Loss(keras.callbacks.Callback):
    """Keeps the loss over all samples, before training and after each epoch."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Look at the model before training."""
        self.values: list[float] = []
        self.on_epoch_end(-1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the model."""
        self.values.append(self.model.evaluate(X, Y, batch_size=len(X), verbose=0))


# page: begin
def train(rate: float, size: int | None) -> np.ndarray:
    """Return the loss over all samples after each epoch; batches grow where no size is given."""
    keras.utils.set_random_seed(0)
    model, loss = network(keras.optimizers.SGD(rate)), Loss()
    if size is None:
        growing = kerasopt.callbacks.GrowingBatchSize(start=1, factor=2, every=2)
        model.fit(growing.batches(X, Y), epochs=EPOCHS, verbose=0, callbacks=[growing, loss])
    else:
        model.steps_per_execution = 50 if size == 1 else 1  # only to be faster
        model.fit(shuffled(X, Y, size), epochs=EPOCHS, verbose=0, callbacks=[loss])
    return np.array(loss.values)


# page: end


def minimum() -> float:
    """Return the least loss there is."""
    model = network(kerasopt.optimizers.LBFGS())
    model.fit(X, Y, batch_size=len(X), epochs=60, verbose=0)
    return model.evaluate(X, Y, batch_size=len(X), verbose=0)


def make() -> Shown:
    """Train in four ways."""
    least = minimum()
    figure, (axes,) = panels(["loss above its minimum"])
    rows: list[list[Any]] = [["", "rate", "after 1 epoch", "after 6", f"after {EPOCHS}"]]
    above = {}
    for name, rate, size, colour in CASES:
        above[name] = train(rate, size) - least
        axes.semilogy(above[name], color=colour, marker="o", markersize=3, label=name)
        rows.append([name, rate, *above[name][[1, 6, -1]]])
    stochastic, mini, batch, growing = above.values()
    assert 2 * stochastic[1] < batch[1]
    assert 2 * growing[1] < batch[1]
    late, later = slice(-10, -5), slice(-5, None)
    assert stochastic[later].mean() > 0.7 * stochastic[late].mean()  # has stopped
    assert batch[later].mean() < 0.7 * batch[late].mean()  # has not
    for other in (stochastic, mini, batch):
        assert 3 * growing[later].mean() < other[later].mean()
    axes.set(xlabel=f"epochs, of {len(X):,} samples each", ylabel="J - J*")
    legend(axes, loc="upper right")
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
