"""7. A cliff, and clipping.

The lecture: there are cliffs in the error surface, where the gradient rises sharply. A step of
gradient descent that comes near one can move the weights far away, and ruin what was learned. A
useful heuristic is to clip the magnitude of the gradient and keep its direction.

Seen: on the left the error of a recurrent unit h ← σ(w h + b) that is to be at 0.7 after 50 steps,
over its two weights, with the steps that SGD takes from the plateau below the cliff. Without
clipping the step that meets the edge is thrown far beyond, to another plateau, where it stays: the
unit is always on. Clipped to a norm of 1, the steps cross the edge several times, follow the valley
along it and come to the minimum.
"""

import keras
import numpy as np
from _gallery import BLUE, INK, RED, Shown, legend, panels, show
from matplotlib.axes import Axes

from kerasopt.curvature import loss_surface
from kerasopt.optimizers import GradientClipping

STEPS, TIME, START = 250, 50, (5.5, -2.5)
X, Y = np.zeros((1, TIME, 1), "float32"), np.full((1, 1), 0.7, "float32")


def recurrent_unit(w: float, b: float, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Return a unit that is fed by nothing but its own past."""
    unit = keras.layers.SimpleRNN(1, "sigmoid")
    model = keras.Sequential([keras.Input((TIME, 1)), unit])
    model.set_weights([np.zeros((1, 1)), np.full((1, 1), w), np.full(1, b)])
    model.compile(optimizer, "mse")
    return model


# page: begin
def descend(optimizer: keras.optimizers.Optimizer) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Return the weights (w, b) before each step, and what the steps log."""
    model, path, logs = recurrent_unit(*START, optimizer), [], []
    for _ in range(STEPS):
        path.append([weight.item() for weight in model.get_weights()[1:]])
        logs.append(model.train_on_batch(X, Y, return_dict=True))
    return np.array(path), logs


plain = keras.optimizers.SGD(0.3)
clipped = GradientClipping(keras.optimizers.SGD(0.3), threshold=1.0)
# page: end


def draw_surface(figure: object, axes: Axes) -> None:
    """Draw the error over w and b."""
    model = recurrent_unit(5.5, 0.5, keras.optimizers.SGD())
    along_w = [np.zeros((1, 1)), np.full((1, 1), 3.0), np.zeros(1)]
    along_b = [np.zeros((1, 1)), np.zeros((1, 1)), np.full(1, 5.0)]
    found = loss_surface(model, X, Y, directions=[along_w, along_b], points=71)
    w, b = 5.5 + 3 * found.coordinates[0], 0.5 + 5 * found.coordinates[1]
    axes.contourf(w, b, found.losses.T, levels=20, cmap="Greys_r", alpha=0.7)
    axes.grid(visible=False)
    axes.set(xlabel="w", ylabel="b", xlim=w[[0, -1]], ylim=b[[0, -1]])


def make() -> Shown:
    """Take the same steps with and without clipping."""
    figure, (surface, curves) = panels(["error, and the paths", "error"], height=4.4)
    draw_surface(figure, surface)
    rows: list[list[object]] = [
        ["", "largest gradient", "longest step", "steps clipped", f"error after {STEPS} steps"]
    ]
    ends = {}
    for name, optimizer, colour in (("SGD", plain, RED), ("clipped", clipped, BLUE)):
        path, logs = descend(optimizer)
        losses = [float(each["loss"]) for each in logs]
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        surface.plot(*path.T, color=colour, marker="o", markersize=3, linewidth=1, label=name)
        curves.semilogy(losses, color=colour, label=name)
        gradients = [float(each["gradient_norm"]) for each in logs if "gradient_norm" in each]
        largest = max(gradients, default=float(steps.max()) / 0.3)
        count = int(logs[-1].get("clipped", 0))
        ends[name] = steps.max(), losses[-1]
        rows.append([name, largest, float(steps.max()), count, losses[-1]])
    surface.plot(*START, "*", color=INK, markersize=12)
    curves.set(xlabel="step")
    legend(curves, loc="lower left")
    assert ends["SGD"][0] > 10 * ends["clipped"][0]
    assert ends["SGD"][1] > 0.08  # the unit is always on: (1 - 0.7)²
    assert ends["clipped"][1] < 1e-3
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
