"""14. Pre-training a deep sigmoid network.

The lecture: it is unlikely to find the global minimum of a complex error surface, and training
stops at local minima and plateaus; therefore it is important to find a good initialisation for
backpropagation, through pre-training.

Seen: ten layers of 64 sigmoid units on the digits. From the weights that Keras starts with the loss
stays where it is: on the left, it is that of guessing. On the right is why: from layer to layer
downwards the gradient gets smaller by the same factor, so that the lower layers do not learn. After
`kerasopt.pretrain`, which trains the layers one by one to reproduce their inputs, without classes,
the same training gets well below it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _gallery import BLUE, INK, RED, Shown, digits, legend, panels, show

import kerasopt

(X, Y), TEST = digits()
DEPTH, UNITS, EPOCHS = 10, 64, 30


def network() -> keras.Model:
    """Return the network."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(UNITS, "sigmoid") for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model


# page: begin
def train(pretrained: bool) -> tuple[list[float], dict[str, list[float]]]:
    """Return the gradient of each layer at the start, and the curves of the training."""
    model = network()
    if pretrained:
        kerasopt.pretrain(model, X, epochs=10, seed=0, verbose=0)
    start = gradients(model)
    how = {"batch_size": 128, "epochs": EPOCHS, "validation_data": TEST, "verbose": 0}
    return start, model.fit(X, Y, **how).history


def gradients(model: keras.Model) -> list[float]:
    """Return the norm of the loss's gradient by the weights of each layer, from the lowest one."""
    kernels = [layer.kernel.value for layer in model.layers]
    with tf.GradientTape() as tape:
        loss = model.loss(Y, model(X))
    return [float(tf.norm(gradient)) for gradient in tape.gradient(loss, kernels)]


# page: end


def make() -> Shown:
    """Train with and without pre-training."""
    figure, (left, right) = panels(["loss on the training set", "norm of the first gradient"])
    rows: list[list[Any]] = [
        ["", "loss", "test accuracy, %", "gradient of layer 1 / of layer 10, at the start"]
    ]
    for name, pretrained, colour in (("as Keras starts", False, RED), ("pre-trained", True, BLUE)):
        norms, curves = train(pretrained)
        left.plot(range(1, EPOCHS + 1), curves["loss"], color=colour, label=name)
        right.semilogy(range(1, DEPTH + 2), norms, color=colour, marker="o", label=name)
        accuracy = 100 * curves["val_accuracy"][-1]
        rows.append([name, curves["loss"][-1], accuracy, norms[0] / norms[DEPTH - 1]])
    guess = np.log(10)
    left.axhline(guess, color=INK, linestyle=":", linewidth=1)
    (_, stuck, low, vanished), (_, loss, high, kept) = rows[1:]
    assert stuck > 0.97 * guess > 2 * loss
    assert low < 25 < 75 < high
    assert 100 * vanished < kept
    left.set(xlabel="epoch", ylim=(0, None))
    right.set(xlabel="layer, the lowest first", xticks=range(1, DEPTH + 2))
    legend(left)
    legend(right)
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
