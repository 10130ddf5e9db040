"""4. Critical points.

The lecture: where the gradient is zero, the signs of the Hessian's eigenvalues tell a minimum (all
are positive) from a maximum (all are negative) and a saddle point (some of each).

Seen: on the left the error of a tanh unit of two weights, for samples that contradict each other,
with all critical points that Newton's method finds: it goes to whatever critical point is near, not
down. There is one minimum, one maximum and two saddle points between them. On the right those of a
network of nine weights that is to learn XOR, found in the same way and by Newton's method with
|λ| in place of λ, which goes down. There are minima, saddle points above them and, still higher,
plateaus of units that are saturated, where all second derivatives are zero. There is no maximum.
"""

from collections import Counter
from typing import Any

import keras
import numpy as np
from _gallery import BLUE, GREEN, INK, RED, Shown, legend, panels, show
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kerasopt.curvature import Curvature, classify_critical_point, hessian, loss_surface

COLOURS = {"minimum": GREEN, "maximum": RED, "saddle": BLUE, "flat": INK}
MARKS = {"minimum": "v", "maximum": "^", "saddle": "x", "flat": "s"}
UNIT_X = np.array([[2, 0], [0.4, 0], [0.4, 0], [0.4, 0], [0, 2], [0, 0.4], [0, 0.4], [0, 0.4]])
UNIT_Y = np.array([[-1.0], [1], [1], [1], [-1], [1], [1], [1]])
XOR_X = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
XOR_Y = np.array([[-0.8], [0.8], [0.8], [-0.8]])
STEPS, STARTS = 80, 20


def network(hidden: int) -> keras.Model:
    """Return a tanh unit of two weights, or a network with a hidden layer."""
    if hidden:
        layers = [keras.layers.Dense(hidden, "tanh"), keras.layers.Dense(1, "tanh")]
    else:
        layers = [keras.layers.Dense(1, "tanh", use_bias=False)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile("sgd", "mse")
    return model


# page: begin
def newton(curvature: Curvature, weights: np.ndarray, down: bool) -> bool:
    """Go to a critical point, or down to one; return whether one was reached."""
    for _ in range(STEPS):
        curvature.model.set_weights(curvature.split(weights))
        gradient = curvature.gradient()
        if np.linalg.norm(gradient) < 1e-6:
            return True
        values, vectors = np.linalg.eigh(hessian(curvature))
        curved = abs(values) > 1e-4 * abs(values).max()
        along = (vectors.T @ gradient) / np.where(curved, values, np.inf)
        step = vectors @ (along * np.sign(values) if down else along)
        weights = weights - step * min(1.0, 1.0 / np.linalg.norm(step))
    return False


# page: end


def found(
    model: keras.Model, x: np.ndarray, y: np.ndarray, starts: np.ndarray, down: bool = False
) -> list[tuple[np.ndarray, Any]]:
    """Return (weights, what they are) of all critical points that differ in their weights."""
    curvature = Curvature(model, x, y)
    points: list[tuple[np.ndarray, Any]] = []
    for start in starts.astype("float32"):
        if newton(curvature, start, down):
            weights = curvature.join(model.get_weights())
            if all(np.linalg.norm(weights - other) > 1e-2 for other, _ in points):
                points.append((weights, classify_critical_point(curvature)))
    return points


def draw_unit(axes: Axes) -> Counter[str]:
    """Draw the error of the unit and its critical points; return how many there are of a kind."""
    model = network(0)
    model.set_weights([np.zeros((2, 1))])
    ways = [[np.array([[1.0], [0.0]])], [np.array([[0.0], [1.0]])]]
    surface = loss_surface(model, UNIT_X, UNIT_Y, directions=ways, span=(-1.2, 1.8), points=31)
    axes.contour(*surface.coordinates, surface.losses.T, levels=25, cmap="cividis", linewidths=0.8)
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 1, 4), np.linspace(-0.5, 1, 4)), -1)
    points = found(model, UNIT_X, UNIT_Y, grid.reshape(-1, 2))
    for kind in COLOURS:
        at = [weights for weights, point in points if point.kind == kind]
        if at:
            style: dict[str, Any] = {"color": COLOURS[kind], "markersize": 9, "markeredgewidth": 2}
            axes.plot(*np.transpose(at), MARKS[kind], label=kind, **style)
    axes.set(xlabel="w₁", ylabel="w₂")
    legend(axes, loc="upper left")
    return Counter(point.kind for _, point in points)


def make() -> Shown:
    """Find and classify the critical points of both networks."""
    figure, (left, right) = panels(["a unit of two weights", "a network for XOR"], height=4.4)
    unit = draw_unit(left)
    starts = np.random.default_rng(0).normal(size=(STARTS, 9), scale=1.0)
    xor = network(2), XOR_X, XOR_Y, starts
    points = [point for down in (False, True) for _, point in found(*xor, down)]
    for kind in COLOURS:
        at = [(point.negative, point.loss) for point in points if point.kind == kind]
        if at:
            right.plot(*np.transpose(at), MARKS[kind], color=COLOURS[kind], label=kind)
    right.set(xlabel="negative eigenvalues, of 9", ylabel="error")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(right, loc="upper right")
    kinds = Counter(point.kind for point in points)
    lowest = {kind: min(p.loss for p in points if p.kind == kind) for kind in kinds}
    rows: list[list[object]] = [
        ["critical points", *COLOURS],
        ["tanh unit, 2 weights", *(unit[kind] for kind in COLOURS)],
        ["XOR network, 9 weights", *(kinds[kind] for kind in COLOURS)],
        ["lowest error of these", *(lowest.get(kind, "") for kind in COLOURS)],
    ]
    assert unit == {"minimum": 1, "maximum": 1, "saddle": 2}
    assert kinds["minimum"] > 0 < kinds["saddle"]
    assert kinds["maximum"] == 0
    assert lowest["minimum"] < lowest["saddle"] < lowest["flat"]
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
