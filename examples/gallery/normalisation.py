"""10. Normalising inputs, and PCA.

The lecture: inputs should be shifted and scaled to mean 0 and variance 1, so that training does not
adjust the weights of one feature while it ignores the others; and they should be uncorrelated, for
which PCA can be used: then one can solve for each weight without concern for the others.

Seen: 178 wines of 13 measured features, whose units differ by a factor of thousands, and a linear
network that tells their three kinds by least squares. On the left the eigenvalues of its Hessian,
by automatic differentiation, each three times, once for each kind; the condition number is the
largest over the least. On the right gradient descent at the rate 1 / λ_max. With inputs as they are
hardly anything is learnt; `Standardize` makes it a matter of some dozens of steps, and after
`Whitening` the first step arrives.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _gallery import BLUE, GREEN, RED, Shown, legend, panels, show
from sklearn.datasets import load_wine

import kerasopt

keras.config.set_floatx("float64")  # 1 / 10⁸ is below what float32 can tell apart
X, KINDS = load_wine(return_X_y=True)
Y = np.eye(3)[KINDS]
STEPS, CLOSER = 150, 1000
CASES = {
    "as they are": (None, RED),
    "standardised": (kerasopt.layers.Standardize(), BLUE),
    "whitened": (kerasopt.layers.Whitening(), GREEN),
}


# page: begin
def inputs(layer: keras.Layer | None) -> np.ndarray:
    """Return the features as a layer of kerasopt passes them on, once it has seen them."""
    if layer is None:
        return X
    layer.adapt(X)
    return np.asarray(layer(X))


def hessian(x: np.ndarray) -> np.ndarray:
    """Return the second derivatives of the loss by the weights, biases among them."""
    model = network(0.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_mean((model(x) - Y) ** 2)
        gradients = inner.gradient(loss, model.trainable_variables)
        flat = tf.concat([tf.reshape(each, [-1]) for each in gradients], axis=0)
    parts = outer.jacobian(flat, model.trainable_variables)
    return np.concatenate([np.reshape(part, (len(flat), -1)) for part in parts], axis=1)


# page: end


def network(rate: float) -> keras.Model:
    """Return the linear network, from zero weights."""
    layer = keras.layers.Dense(3, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((13,)), layer])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def descend(x: np.ndarray, rate: float) -> np.ndarray:
    """Return the loss above its minimum before each step."""
    model = network(rate)
    fitted = model.fit(x, Y, batch_size=len(x), epochs=STEPS, verbose=0)
    best = np.c_[x, np.ones(len(x))]
    least = np.mean((best @ np.linalg.lstsq(best, Y)[0] - Y) ** 2)
    return np.array(fitted.history["loss"]) - least


def make() -> Shown:
    """Train on inputs of three kinds."""
    figure, (left, right) = panels(["eigenvalues of the Hessian", "loss above its minimum"])
    rows: list[list[Any]] = [
        [
            "inputs",
            "condition number",
            f"steps to come {CLOSER:,} times closer",
            f"share left after {STEPS}",
        ]
    ]
    conditions, needed = [], []
    for name, (layer, colour) in CASES.items():
        x = inputs(layer)
        eigenvalues = np.linalg.eigvalsh(hessian(x))
        above = descend(x, 1 / eigenvalues[-1])
        conditions.append(eigenvalues[-1] / eigenvalues[0])
        reached = above * CLOSER < above[0]
        needed.append(int(reached.argmax()) if reached.any() else np.inf)
        steps = needed[-1] if reached.any() else f"> {STEPS}"
        rows.append([name, conditions[-1], steps, above[-1] / above[0]])
        left.semilogy(
            range(1, 43), eigenvalues[::-1], color=colour, marker="o", markersize=3, label=name
        )
        right.semilogy(range(STEPS), (above / above[0]).clip(1e-8), color=colour, label=name)
    assert conditions[0] > 1e4 * conditions[1]
    assert conditions[1] > 20
    assert abs(conditions[2] - 1) < 1e-6
    assert needed[0] > 3 * needed[1] > 50 * needed[2]
    assert needed[2] == 1
    left.set(xlabel="number")
    right.set(xlabel="steps", ylabel="share that is left", ylim=(1e-8, 2))
    legend(left)
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
