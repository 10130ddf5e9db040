"""13. A learning rate for each layer.

The lecture: learning rates in the lower layers should generally be larger than in the higher ones,
since the second derivative is often smaller in the lower layers.

Seen: on the left the mean second derivative of the kernels of each layer of a network with four
hidden layers, on all training digits; its size, where it is negative. With sigmoid units the claim
holds, by orders of magnitude, and rates in inverse proportion let the network learn, where no
single rate did. With tanh units the second derivative grows from the lowest to the highest layer at
the start, though not at each step, and after training it is the other way round: the claim does not
hold, and rates by the curvature of the start gain nothing. On the right the errors at the best rate
of each.
"""

import keras
import numpy as np
from _gallery import BLUE, RED, Shown, digits, legend, panels, show
from matplotlib.axes import Axes

import kerasopt
from kerasopt.optimizers import LayerwiseLearningRate

DEPTH, EPOCHS, PROBES = 4, 12, 20
RATES = {"sigmoid": (1.0, 3.0), "tanh": (0.1, 0.3, 1.0)}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
(X, Y), _ = digits()


def network(activation: str) -> keras.Model:
    """Return a network of four hidden layers, from the same first weights."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation) for _ in range(DEPTH)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


# page: begin
def second_derivatives(model: keras.Model) -> np.ndarray:
    """Return the mean of ∂²J/∂w² over the kernel of each layer: that of s ⊙ H s, random signs s."""
    objective = kerasopt.Objective(lambda: LOSS(Y, model(X)), model.trainable_variables)
    random, total = np.random.default_rng(0), np.zeros(len(model.trainable_variables))
    for _ in range(PROBES):
        signs = [random.choice([-1.0, 1.0], w.shape).astype("float32") for w in objective.values]
        products = objective.hvp([keras.ops.convert_to_tensor(s) for s in signs])
        total += [np.mean(s * np.asarray(p)) for s, p in zip(signs, products, strict=True)]
    return total[::2] / PROBES  # without the biases


def train(
    activation: str, learning_rate: float, rule: str | None
) -> tuple[list[float], keras.Model]:
    """Return the errors of the epochs, and the trained network."""
    optimizer = LayerwiseLearningRate(keras.optimizers.SGD(learning_rate), rule=rule)
    model = network(activation)
    model.compile(optimizer, LOSS)
    if rule == "curvature":
        optimizer.measure(model, X, Y)
    return model.fit(X, Y, epochs=EPOCHS, batch_size=32, verbose=0).history["loss"], model


# page: end


def best(activation: str, rule: str | None) -> tuple[list[float], float, keras.Model]:
    """Return the errors, the rate and the network of the rate that ends at the least error."""
    runs = [(*train(activation, rate, rule), rate) for rate in RATES[activation]]
    losses, model, rate = min(runs, key=lambda run: run[0][-1])
    return losses, rate, model


def draw(axes: Axes, curvature: np.ndarray, style: str, label: str) -> None:
    """Draw the second derivatives by layer; those below zero by their size."""
    colour = RED if label.startswith("sigmoid") else BLUE
    axes.semilogy(range(1, len(curvature) + 1), np.abs(curvature), style, color=colour, label=label)


def make() -> Shown:
    """Measure the second derivatives, and train with and without rates by them."""
    figure, (left, right) = panels(["mean second derivative", "error at the best rate"])
    head = [f"layer {place}" for place in range(1, DEPTH + 1)]
    rows: list[list[object]] = [["second derivative", *head, "output layer"]]
    curvature, ends = {}, {}
    for activation, colour in (("sigmoid", RED), ("tanh", BLUE)):
        curvature[activation] = second_derivatives(network(activation))
        rows.append([f"{activation}, at the start", *map(float, curvature[activation])])
        draw(left, curvature[activation], "o-", f"{activation}, at the start")
        for rule, style, name in ((None, "--", "one rate"), ("curvature", "-", "by curvature")):
            losses, rate, model = best(activation, rule)
            ends[activation, rule] = losses[-1]
            label = f"{activation}, {name}, {rate:g}"
            right.semilogy(range(1, EPOCHS + 1), losses, style, color=colour, label=label)
            if (activation, rule) == ("tanh", None):
                curvature["trained"] = second_derivatives(model)
                rows.append(["tanh, trained", *map(float, curvature["trained"])])
                draw(left, curvature["trained"], "s--", "tanh, trained")
    rows += [
        [f"error of {activation}, {rule or 'one rate'}", *[""] * DEPTH, float(end)]
        for (activation, rule), end in ends.items()
    ]
    left.set(xlabel="layer", xticks=range(1, DEPTH + 2))
    right.set(xlabel="epoch")
    legend(left, loc="lower right")
    legend(right, loc="lower left")
    assert np.abs(curvature["sigmoid"][:2]).max() < 1e-2 * curvature["sigmoid"][-1]  # it holds
    assert ends["sigmoid", "curvature"] < 0.7 * ends["sigmoid", None]
    assert curvature["tanh"][0] < 0.3 * curvature["tanh"][-1]
    assert curvature["trained"][0] > 2 * curvature["trained"][-1]  # it does not
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
