"""3. The linear network that LeCun et al. trained.

The lecture: a linear network trained in batch mode converges at the rate 1.5, and diverges at 2.5,
which is above the limit 2 / λ_max; stochastically, at 0.2, it is near the minimum much sooner, and
then goes on fluctuating.

Seen: 100 samples of two Gaussian classes around ±(0.4, 0.8) with targets ±1, and two weights, with
the loss (target - output)² / 2; the spread of the classes, 0.2, is chosen such that the eigenvalues
of the Hessian are near those of the paper, 0.84 and 0.036. Past the limit the weights go back and
forth along the eigenvector of λ_max, ever farther. In batch mode at 1.5 all that is left after a
few epochs is the error along the other eigenvector, the dotted line, which goes slowly. An epoch of
stochastic training has 100 updates, and goes as far along it as batch mode would at a rate of 20.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _gallery import BLUE, GREEN, INK, RED, Shown, legend, panels, show, shuffled
from matplotlib.axes import Axes

START = np.array([[-0.4], [0.1]])
EPOCHS = 12
CASES = (  # name, rate, batch size, steps that are drawn, colour
    ("batch, η = 2.5", 2.5, 100, 7, RED),
    ("stochastic, η = 0.2", 0.2, 1, 150, GREEN),
    ("batch, η = 1.5", 1.5, 100, 13, BLUE),
)


# page: begin
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return the points of two classes, and their targets."""
    random = np.random.default_rng(1)
    y = np.repeat([[-1.0], [1.0]], 50, axis=0)
    return y * [0.4, 0.8] + random.normal(0, 0.2, (100, 2)), y


def network(rate: float) -> keras.Model:
    """Return the linear network of two weights, with half the squared error as its loss."""
    layer = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.kernel.assign(START)
    model.compile(keras.optimizers.SGD(rate), lambda y, output: (y - output) ** 2 / 2)
    return model


# page: end

X, Y = samples()
BEST = np.linalg.lstsq(X, Y)[0][:, 0]


class Path(keras.callbacks.Callback):
    """Keeps the weights of each step."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keep those before training."""
        self.weights = [START[:, 0]]

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keep those after a step."""
        self.weights.append(self.model.get_weights()[0][:, 0])


def train(rate: float, batch_size: int) -> np.ndarray:
    """Return the weights of each step."""
    keras.utils.set_random_seed(0)
    path = Path()
    network(rate).fit(shuffled(X, Y, batch_size), epochs=EPOCHS, verbose=0, callbacks=[path])
    return np.array(path.weights)


def hessian() -> np.ndarray:
    """Return the Hessian of the network's loss, by automatic differentiation."""
    model = network(0.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_mean(model.loss(Y, model(X)))
        gradient = inner.gradient(loss, model.trainable_variables[0])
    return outer.jacobian(gradient, model.trainable_variables[0]).numpy().reshape(2, 2)


def excess(weights: np.ndarray) -> np.ndarray:
    """Return by how much the loss at each of the weights is above its minimum."""
    return (((weights - BEST) @ X.T) ** 2).mean(axis=-1) / 2


def draw_valley(axes: Axes, weak: np.ndarray) -> None:
    """Draw the loss, and its direction of least curvature."""
    grid = np.stack(np.meshgrid(np.linspace(-1.4, 1.8, 80), np.linspace(-1, 2.2, 80)), axis=-1)
    levels = np.geomspace(0.003, 2, 8)
    axes.contour(
        *np.moveaxis(grid, -1, 0), excess(grid), levels=levels, colors="#BBBBBB", linewidths=1
    )
    ends = BEST + np.outer([-2, 2], weak)
    axes.plot(*ends.T, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="w₁", ylabel="w₂", xlim=(-1.4, 1.8), ylim=(-1, 2.2))


def make() -> Shown:
    """Train in three ways."""
    eigenvalues, vectors = np.linalg.eigh(hessian())
    assert np.allclose(eigenvalues, [0.036, 0.84], rtol=0.1)
    limit = 2 / eigenvalues[-1]
    assert 1.5 < limit < 2.5
    figure, (left, right) = panels(["paths of the weights", "loss above its minimum"])
    draw_valley(left, vectors[:, 0])
    rows: list[list[Any]] = [["", "rate / limit", "J - J*: at epoch 3", f"at epoch {EPOCHS}"]]
    curves = []
    for name, rate, size, shown, colour in CASES:
        weights = train(rate, size)
        curves.append(excess(weights)[1:].reshape(EPOCHS, -1))  # a row an epoch
        line: dict[str, Any] = {
            "color": colour,
            "linewidth": 1 if size == 1 else 1.8,
            "label": name,
        }
        left.plot(*weights[:shown].T, marker="o", markersize=3, **line)
        right.semilogy(np.linspace(0, EPOCHS, len(weights)), excess(weights), **line)
        middle = np.median(curves[-1], axis=1)
        rows.append([name, rate / limit if size > 1 else "", middle[2], middle[-1]])
    unstable, stochastic, stable = curves
    assert unstable[-1] > 5 * unstable[0]
    assert stable[-1] < stable[0] / 20
    assert np.median(stochastic[2]) < np.median(stable[2]) / 3
    assert stochastic[-1].max() > 10 * np.median(stochastic[-1])  # fluctuates
    assert np.median(stochastic[-1]) > np.median(stochastic[5]) / 3  # and comes no closer
    rows.append(
        [f"λ: {eigenvalues[1]:.3f}, {eigenvalues[0]:.4f}; 2 / λ_max: {limit:.2f}", "", "", ""]
    )
    right.set(xlabel="epochs", ylabel="J - J*", ylim=(1e-5, 500))
    legend(right, loc="upper right")
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
