"""Train a network of ten sigmoid layers, which does not begin to learn without pre-training.

    python examples/deep_sigmoid.py
    python examples/deep_sigmoid.py --dataset fashion_mnist

The network has ten layers of 128 sigmoid units, the weights that Keras starts from, and ten
outputs. It is trained by SGD with momentum 0.9, twice from the same weights: as they are, and after
`kerasopt.pretrain`. The digits come with scikit-learn; fashion_mnist is taken from TFDS_DATA_DIR.

On a CPU, TensorFlow, 8.1 % of the test digits are right without pre-training and 92.2 % with it; of
fashion_mnist, after 10 epochs and one of pre-training for each layer, 10.0 % and 86.4 %.
"""

import argparse
import sys
from typing import Any, NamedTuple

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kerasopt

DEPTH, UNITS = 10, 128


class Settings(NamedTuple):
    """How long is trained, and by which rate."""

    pretraining: int  # epochs for each layer
    epochs: int
    learning_rate: float


SETTINGS = {"digits": Settings(10, 40, 0.1), "fashion_mnist": Settings(1, 10, 0.05)}


def data(dataset: str) -> tuple[Any, Any, Any, Any]:
    """Return pixels and classes to train on, then those to test on."""
    if dataset == "digits":
        images, classes = load_digits(return_X_y=True)
        parts = train_test_split(images / 16, classes, test_size=360, random_state=0)
        return parts[0], parts[2], parts[1], parts[3]
    import tensorflow_datasets as tfds

    found = tfds.as_numpy(tfds.load("fashion_mnist", batch_size=-1))
    pairs = [(found[name]["image"], found[name]["label"]) for name in ("train", "test")]
    (x, y), (test_x, test_y) = [(i.reshape(-1, 784).astype("float32") / 255, c) for i, c in pairs]
    return x, y, test_x, test_y


def accuracy(dataset: str, pretrained: bool, verbose: int = 2) -> float:
    """Train a network from the same first weights; return its accuracy on the test set."""
    keras.utils.set_random_seed(0)
    x, y, test_x, test_y = data(dataset)
    settings = SETTINGS[dataset]
    hidden = [keras.layers.Dense(UNITS, "sigmoid", name=f"hidden_{i + 1}") for i in range(DEPTH)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(settings.learning_rate, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"])
    if pretrained:
        kerasopt.pretrain(model, x, epochs=settings.pretraining, seed=0, verbose=verbose // 2)
    model.fit(x, y, batch_size=128, epochs=settings.epochs, verbose=verbose)
    return model.evaluate(test_x, test_y, batch_size=500, verbose=0)[1]


def main(arguments: list[str] | None = None) -> int:
    """Train both; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=[*SETTINGS], default="digits")
    options = parser.parse_args(arguments)
    for pretrained, name in ((False, "as they are"), (True, "pre-trained")):
        found = accuracy(options.dataset, pretrained)
        print(f"weights {name}: {found:.1%} of the test set right", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
