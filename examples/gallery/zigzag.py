"""2. Gradient descent zigzags, and Newton goes in one step.

The lecture: gradient descent performs poorly where the Hessian has a poor condition number. On a
quadratic of condition number 5 with a step that is somewhat too large it descends the canyon's
walls again and again. Newton's method, w - H⁻¹ ∇J, jumps to the minimum of a quadratic.

Seen: on the left both paths, of a network of two weights trained by `fit`. On the right the steps
that gradient descent needs to come 1,000 times closer to the minimum, by the best rate there is, 2
/ (λ_max + λ_min): they grow like the condition number κ, as theory says. Newton needs one step at
any κ.
"""

from typing import Any

import keras
import numpy as np
from _gallery import BLUE, INK, RED, Shown, legend, panels, show
from matplotlib.axes import Axes

import kerasopt

CONDITIONS = (2, 5, 10, 30, 100, 300, 1000)
CLOSER = 1000.0


def network(start: tuple[float, float]) -> keras.Model:
    """Return a network of two weights."""
    layer = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.kernel.assign([[start[0]], [start[1]]])
    return kerasopt.prepare(model)


class Path(keras.callbacks.Callback):
    """Keeps the weights of each step, and stops near the minimum, which is 0."""

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.weights = [np.array(start)]

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the weights."""
        self.weights.append(self.model.get_weights()[0][:, 0])
        if np.linalg.norm(self.weights[-1]) * CLOSER <= np.linalg.norm(self.weights[0]):
            self.model.stop_training = True


# page: begin
def descend(optimizer: keras.optimizers.Optimizer, kappa: float, steps: int) -> np.ndarray:
    """Return the weights of each step down J = (κ w₁² + w₂²) / 2, from where both terms count."""
    x, y = np.diag([kappa**0.5, 1.0]), np.zeros((2, 1))
    start = 1.0, min(kappa, 5.0)
    model, path = network(start), Path(start)
    model.compile(optimizer, "mse")
    data = np.tile(x, (steps, 1)), np.tile(y, (steps, 1))  # a batch is all there is
    model.fit(*data, batch_size=2, shuffle=False, verbose=0, callbacks=[path])
    return np.array(path.weights)


# page: end


def theory(kappa: Any) -> Any:
    """Return the steps to come that much closer, each by (κ - 1) / (κ + 1)."""
    return np.log(CLOSER) / np.log((kappa + 1) / (kappa - 1))


def draw_paths(axes: Axes) -> None:
    """Draw both paths on the quadratic of condition number 5."""
    zigzag = descend(keras.optimizers.SGD(0.36), 5.0, 40)  # the limit is 2 / 5
    assert (np.diff(np.sign(zigzag[:8, 0])) != 0).all()  # from wall to wall
    newton = descend(kerasopt.optimizers.Newton(), 5.0, 1)
    grid = np.meshgrid(np.linspace(-1.2, 1.4, 100), np.linspace(-1, 5.8, 100))
    heights = 2.5 * grid[0] ** 2 + grid[1] ** 2 / 2
    axes.contour(*grid, heights, levels=np.linspace(0.3, 4, 8) ** 2, colors="#BBBBBB")
    for path, colour, name in ((zigzag, BLUE, "gradient descent"), (newton, RED, "Newton")):
        axes.plot(*path.T, color=colour, marker="o", markersize=4, label=name)
    axes.set(xlabel="w₁, curvature 5", ylabel="w₂, curvature 1")
    legend(axes, loc="upper left")


def make() -> Shown:
    """Count steps against the condition number."""
    figure, (left, right) = panels(
        ["κ = 5, η = 0.9 of the limit", "steps to come 1,000 times closer"]
    )
    draw_paths(left)
    rows: list[list[Any]] = [
        ["condition number κ", "gradient descent, steps", "theory", "Newton, steps"]
    ]
    for kappa in CONDITIONS:
        steps = len(descend(keras.optimizers.SGD(2 / (kappa + 1)), kappa, 4000)) - 1
        newton = descend(kerasopt.optimizers.Newton(), kappa, 1)
        assert abs(steps - theory(kappa)) < 2
        assert np.linalg.norm(newton[1]) * CLOSER < np.linalg.norm(newton[0])
        rows.append([kappa, steps, theory(kappa), len(newton) - 1])
    kappas, counts, _, newtons = zip(*rows[1:], strict=True)
    wide = np.geomspace(CONDITIONS[0], CONDITIONS[-1])
    right.loglog(wide, theory(wide), color=INK, linewidth=1, label="theory: grows like κ")
    right.loglog(kappas, counts, "o", color=BLUE, label="gradient descent")
    right.loglog(kappas, newtons, "o", color=RED, label="Newton")
    right.set(xlabel="condition number κ", ylabel="steps", ylim=(0.5, 1e4))
    legend(right, loc="upper left")
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
