"""9. What learning curves show.

The lecture: the training error falls and reaches an asymptotic value, which is high if the network
underfits. If the learning rate is low, it decreases monotonically, but slowly; if it is high, it
may oscillate. The validation error is above it, and may rise when the network overfits.

Seen: six trainings on the digits, each with one fault or none, and what `kerasopt.diagnose` says of
it, with the figures it says it by. It is given the curves, and nothing else.
`kerasopt.callbacks.LearningCurve` draws such pictures while a training runs, and ends with these
words.
"""

from typing import Any

import keras
from _gallery import BLUE, INK, RED, Shown, digits, legend, panels, show

import kerasopt

(X, Y), (VALID_X, VALID_Y) = digits()
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "no fault": ("converged", {}),
    "two hidden units": ("underfitting", {"units": 2}),
    "60 samples": ("overfitting", {"samples": 60, "units": 512, "batch_size": 5}),
    "η a hundredth": ("rate_too_low", {"rate": 0.003}),
    "η ten times": ("rate_too_high", {"rate": 3.0}),
    "ten sigmoid layers": ("plateau", {"layers": 10, "activation": "sigmoid"}),
}


# page: begin
def train(
    units: int = 64,
    layers: int = 1,
    activation: str = "tanh",
    rate: float = 0.3,
    samples: int = len(X),
    batch_size: int = 64,
) -> keras.callbacks.History:
    """Return the curves of a training."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(units, activation) for _ in range(layers)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss)
    data = {"x": X[:samples], "y": Y[:samples], "validation_data": (VALID_X, VALID_Y)}
    return model.fit(**data, batch_size=batch_size, epochs=30, verbose=0)


def diagnosed(history: keras.callbacks.History) -> tuple[str, str]:
    """Return what the curves show most of all, and by which figures."""
    finding = kerasopt.diagnose(history).findings[0]
    return finding.code, finding.evidence


# page: end


def make() -> Shown:
    """Train with each fault."""
    names = [*CASES]
    figure, axes = panels(names[:3], names[3:], height=5.6)
    rows: list[list[Any]] = [["training", "diagnosis", "evidence"]]
    for panel, (name, (expected, fault)) in zip(axes, CASES.items(), strict=True):
        history = train(**fault)
        curves, (code, evidence) = history.history, diagnosed(history)
        assert code == expected
        rows.append([name, f"`{code}`", evidence])
        for key, colour, label in (("loss", BLUE, "training"), ("val_loss", RED, "validation")):
            panel.plot(range(1, 31), curves[key], color=colour, label=label)
        panel.set(xlabel="epoch", ylim=(0, 1.1 * max(map(max, curves.values()))))
        panel.set_title(code.replace("_", " "), loc="right", fontsize=9, color=INK)
    axes[0].set_ylabel("average error per pattern")
    legend(axes[0], loc="upper right")
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
