"""Train the digits by workers that do not wait for each other, beside one device that waits.

    python examples/asynchronous.py
    python examples/asynchronous.py --workers 4 --fetch-every 4

It starts itself as a coordinator, its workers and two parameter servers on this machine, by
`kerasopt launch --parameter-servers 2`. On several machines TF_CONFIG has to be set for each
process instead. The coordinator prints the staleness of the gradients in every epoch, then the
test accuracy and that of one device, which from the same weights takes as many steps on batches of
the same size.

Measured with the defaults on every fifth of the 1,797 digits, on two CPU cores beside other work,
with the seeds 0, 1 and 2: test accuracy 96.4, 96.1 and 96.7 %; one device 95.6, 95.8 and 96.9 %.
They differ by less than 1 point. The mean staleness was 0.31, 0.34 and 0.41, the largest 1, 9 and
13.
"""

import argparse
import os
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import kerasopt


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    add("--workers", type=int, default=2, help="processes that compute gradients (2)")
    add("--fetch-every", type=int, default=1, help="steps between two fetches (1)")
    add("--push-every", type=int, default=1, help="steps between two pushes (1)")
    add("--epochs", type=int, default=12, help="times through the training images (12)")
    add("--batch-size", type=int, default=32, help="images in a step of a worker (32)")
    add("--learning-rate", type=float, default=0.1, help="of gradient descent (0.1)")
    add("--seed", type=int, default=0, help="of weights, order and dropout (0)")
    return parser.parse_args()


def network(learning_rate: float) -> keras.Model:
    """Return the same network for both."""
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(10),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kerasopt.optimizers.Momentum(learning_rate), loss, metrics=["accuracy"])
    return model


def main() -> int:
    """Run the part of this process."""
    chosen = options()
    if "TF_CONFIG" not in os.environ:
        command = ["-m", "kerasopt", "launch", "--parameter-servers", "2"]
        command += ["--workers", str(chosen.workers), *sys.argv]
        return subprocess.run([sys.executable, *command], check=False).returncode
    strategy = kerasopt.strategies.ParameterServer(
        fetch_every=chosen.fetch_every, push_every=chosen.push_every
    )  # workers and servers go no further
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype("float32"), digits.target
    tested = np.arange(len(x)) % 5 == 0
    test = x[tested], y[tested]

    def batches() -> tf.data.Dataset:
        data = tf.data.Dataset.from_tensor_slices((x[~tested], y[~tested]))
        return data.shuffle(len(x), seed=chosen.seed).batch(chosen.batch_size)

    keras.utils.set_random_seed(chosen.seed)
    with strategy.scope():
        model = network(chosen.learning_rate)
    alone = network(chosen.learning_rate)
    alone.set_weights(model.get_weights())
    history = strategy.fit(
        model, batches, epochs=chosen.epochs, validation_data=test, verbose=2
    ).history
    alone.fit(batches(), epochs=chosen.epochs, shuffle=False, verbose=0)
    print(
        f"staleness: {np.mean(history['staleness']):.2f}, at most {max(history['max_staleness'])}"
    )
    for name, each in (("asynchronous", model), ("one device", alone)):
        accuracy = each.evaluate(*test, verbose=0)[1]
        print(f"{name}: test accuracy {100 * accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
