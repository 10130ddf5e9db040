"""1. Learning rates on a quadratic of one weight.

The lecture: gradient descent on a quadratic J(w) of second derivative h goes to the minimum in one
step at the rate η_opt = 1 / h; slowly from one side at smaller rates; from side to side, but still
to the minimum, up to 2 η_opt; and away from it beyond.

Seen: the four cases, by `fit` on a network of one weight, J = mean of (w x - 2 x)², whose h is
known: twice the mean of x². On the right, the lines are straight: each step multiplies the distance
to the minimum by |1 - η / η_opt|. `find_learning_rate` measures 1 / h without being told.
"""

from typing import Any

import keras
import numpy as np
from _gallery import BLUE, GREEN, ORANGE, RED, Shown, legend, panels, show
from matplotlib.axes import Axes

import kerasopt

X = np.random.default_rng(0).normal(size=(64, 1)).astype("float32")
TARGET, START, STEPS = 2.0, 0.5, 12
H = 2 * float(np.mean(X**2))  # the second derivative
CASES = {0.4: BLUE, 1.0: GREEN, 1.7: ORANGE, 2.1: RED}


def network(rate: float) -> keras.Model:
    """Return a network of one weight."""
    start = keras.initializers.Constant(START)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


# page: begin
def path(rate: float) -> np.ndarray:
    """Return the weight before training, and after each step of gradient descent."""
    model, weights = network(rate), [START]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()[0].item())
    )
    model.fit(X, TARGET * X, batch_size=len(X), epochs=STEPS, verbose=0, callbacks=[keep])
    return np.array(weights)


def optimum() -> float:
    """Return 1 / h as measured on the network."""
    test = kerasopt.callbacks.find_learning_rate(network(0.1), X, TARGET * X, batch_size=len(X))
    return test.suggestions["curvature"]


# page: end


def draw(axes: Axes, weights: np.ndarray, colour: str) -> None:
    """Draw the path on the parabola."""
    wide = np.linspace(-1, 5, 200)
    axes.plot(wide, H / 2 * (wide - TARGET) ** 2, color="#999999", linewidth=1)
    axes.plot(weights, H / 2 * (weights - TARGET) ** 2, color=colour, marker="o", markersize=4)
    axes.set(xlim=(-0.6, 4.6), ylim=(-0.3, 5.5), xlabel="w", ylabel="J(w)")


def make() -> Shown:
    """Train by four rates."""
    best = optimum()
    assert abs(best * H - 1) < 1e-4
    names = ["η = 0.4 η_opt", "η = η_opt", "η = 1.7 η_opt", "η = 2.1 η_opt"]
    figure, axes = panels(
        [*names[:2], "distance to the minimum"], [*names[2:], "distance to the minimum"], height=5.2
    )
    axes = [*axes[:2], *axes[3:], axes[2]]
    rows: list[list[Any]] = [
        [
            "rate",
            "theory: a step multiplies the distance by",
            "measured",
            f"distance after {STEPS} steps",
        ]
    ]
    for ratio, colour, name, panel in zip(CASES, CASES.values(), names, axes, strict=False):
        weights = path(ratio * best)
        distances = np.abs(weights - TARGET)
        factor, expected = distances[1] / distances[0], abs(1 - ratio)
        assert abs(factor - expected) < 1e-3
        assert (weights[1] > TARGET + 1e-3) == (ratio > 1)  # on the other side
        assert (distances[-1] > distances[0]) == (ratio > 2)
        rows.append([name, expected, factor, distances[-1]])
        draw(panel, weights, colour)
        axes[-1].semilogy(distances.clip(1e-8), color=colour, marker="o", markersize=4, label=name)
    axes[-1].set(xlabel="steps", ylabel="|w - w*|", ylim=(1e-8, 30), xticks=range(0, STEPS + 1, 3))
    legend(axes[-1], loc="lower right", bbox_to_anchor=(1, 0.1))
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
