"""8. Composing many non-linearities.

The lecture: each stage of a deep network may be smooth, yet the composition of many has a
derivative that is tiny almost everywhere and large in few places, with many ups and downs. It is a
product of Jacobians, f' = f_T' … f_1'. If their logarithms were independent, the variance of
ln ‖f'‖ would grow linearly with T, and so the norm like e^√T.

Seen: on the left the derivative of a network of one input and one output, by its input, for one
hidden layer and for twelve. In the middle the variance of ln σ_max of the product of T Jacobians,
over 400 inputs and five networks of 48 tanh layers: a straight line after the first few layers,
which do not yet mix. On the right its standard deviation: that of ln ‖f'‖ grows like √T.
"""

import keras
import numpy as np
from _gallery import BLUE, INK, RED, Shown, legend, panels, show
from keras.initializers import RandomNormal

from kerasopt.curvature import jacobian_singular_values

DEPTH, UNITS, SEEDS = 48, 16, 5


def tanh_layers(units: int, depth: int, scale: float, seed: int) -> list[keras.Layer]:
    """Return layers whose weights are those of no training, but random and large."""
    return [
        keras.layers.Dense(
            units,
            "tanh",
            kernel_initializer=RandomNormal(0, scale / units**0.5, seed=1000 * seed + place),
            bias_initializer=RandomNormal(0, 0.5, seed=1000 * seed + 500 + place),
        )
        for place in range(depth)
    ]


# page: begin
def log_norms(seed: int) -> np.ndarray:
    """Return ln σ_max of the product of the upper T Jacobians, for T = 1, 2, …, by inputs."""
    layers = tanh_layers(UNITS, DEPTH, 5.0, seed)
    model = keras.Sequential([keras.Input((UNITS,)), *layers])
    x = np.random.default_rng(seed).normal(size=(400, UNITS))
    return jacobian_singular_values(model, x, batch_size=400).log_norms[:, ::-1]


def derivative(depth: int, x: np.ndarray) -> np.ndarray:
    """Return |f'(x)| of a network of one input and one output."""
    hidden = tanh_layers(UNITS, depth, 3.0, 1)
    top = keras.layers.Dense(1, kernel_initializer=RandomNormal(0, 0.25, seed=7))
    model = keras.Sequential([keras.Input((1,)), *hidden, top])
    return jacobian_singular_values(model, x[:, None], batch_size=1000).products[0][:, 0]


# page: end


def share_of_top(slopes: np.ndarray, part: float = 0.1) -> float:
    """Return the share of all change that lies in the steepest tenth of the inputs."""
    slopes = np.sort(slopes)[::-1]
    return float(slopes[: int(part * len(slopes))].sum() / slopes.sum())


def make() -> Shown:
    """Show the derivative along one input, and how its logarithm spreads with depth."""
    figure, (left, middle, right) = panels(["|f'(x)|", "variance of ln ‖f'‖", "its deviation"])
    x = np.linspace(-2, 2, 4000)
    slopes = {depth: derivative(depth, x) for depth in (1, 12)}
    for (depth, slope), colour in zip(slopes.items(), (RED, BLUE), strict=True):
        left.semilogy(
            x, slope, color=colour, linewidth=0.8, label=f"{depth} hidden layer{'s' * (depth > 1)}"
        )
    left.set(xlabel="x")
    legend(left, loc="lower left")
    variance = np.mean([log_norms(seed).var(axis=0) for seed in range(SEEDS)], axis=0)
    stages = np.arange(1, DEPTH + 1)
    slope, start = np.polyfit(stages, variance, 1)
    line = start + slope * stages
    explained = 1 - np.var(variance - line) / np.var(variance)
    power = np.polyfit(np.log(stages[3:]), np.log(variance[3:]) / 2, 1)[0]
    middle.plot(stages, variance, "o", color=BLUE, markersize=3, label="measured")
    middle.plot(stages, line, color=INK, linewidth=1, label=f"{slope:.2f} T − {-start:.2f}")
    right.loglog(stages, np.sqrt(variance), "o", color=BLUE, markersize=3, label="measured")
    right.loglog(stages, np.sqrt(slope * stages), color=INK, linewidth=1, label="√T")
    for axes in (middle, right):
        axes.set(xlabel="number of stages T")
        legend(axes, loc="upper left")
    medians = [float(np.median(each) / each.mean()) for each in slopes.values()]
    shares = [share_of_top(each) for each in slopes.values()]
    rows: list[list[object]] = [
        ["", "1 hidden layer", "12 hidden layers"],
        ["size of f', median / mean over x", *medians],
        ["share of the steepest tenth of x in all change", *shares],
        ["variance of ln ‖f'‖: share explained by a straight line in T", "", float(explained)],
        ["deviation of ln ‖f'‖: its power of T (½ is √T)", "", float(power)],
    ]
    assert explained > 0.97
    assert 0.42 < power < 0.62
    assert medians[1] < 0.5 < medians[0]
    assert shares[1] > 2 * shares[0]
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
