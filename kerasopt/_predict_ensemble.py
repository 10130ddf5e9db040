"""The average over the many networks that dropout trains."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree

# Not public, yet the only base that all layers share which augment images.
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from kerasopt._drawing import draws, generators
from kerasopt._objective import takes_training
from kerasopt._validation import check_count


def predict_ensemble(
    model: keras.Model,
    x: Any,
    samples: int = 32,
    batch_size: int | None = None,
    seed: int | None = None,
    verbose: Any = 0,
    activation: Any = None,
) -> tuple[Any, Any]:
    """Predict by the average over many networks, and say how far they differ.

    Training with dropout can be viewed as averaging over many networks that share their weights.
    `model.predict` takes one pass through a mean network; this takes a pass through each of
    `samples` networks, drawn as in training, and returns

        mean = 1/S Σ_s f_s(x),  standard deviation = √(1/S Σ_s (f_s(x) - mean)²)

    Use it where it has to be known how sure a prediction is (the deviation), and where a network
    is too sure of itself: the mean of its softmax outputs is better calibrated than one pass. A
    network that is well calibrated already becomes less sure than it should be.

    All layers that draw random numbers while training do so: `Dropout` and its relatives,
    `GaussianNoise`, dropout within attention and recurrent layers, layers of your own that have a
    `keras.random.SeedGenerator`. All else is as in `predict`: batch normalisation goes by its
    moving averages, and layers that augment images do nothing. The model stays as it is, with
    its random generators. All samples of a batch run in one compiled graph, which is compiled for
    each call; the memory does not grow with their number.

    Args:
        model: A built Keras model with random layers. Nested models are gone through.
        x: The inputs, as `model.predict` takes them: arrays, `tf.data.Dataset`, `PyDataset`.
        samples: Number of networks S ≥ 2. Defaults to 32.
        batch_size: Number of rows in a batch, of arrays. Defaults to None, which is 32.
        seed: Integer ≥ 0 for the same networks in each call with the same batches, or None.
            Defaults to None.
        verbose: 0: silent, 1: a progress bar, 2: a line, as of `model.predict`. Defaults to 0.
        activation: Name of a Keras activation, or a function, that each output goes through before
            the average is taken. A model that returns logits needs `"softmax"` or `"sigmoid"`: the
            mean of logits is not that of the probabilities. Defaults to None.

    Returns:
        Mean and standard deviation, each of the structure of the outputs of the model, as arrays
        in at least float32.

    Raises:
        TypeError: `model` is not a Keras model, or a number is not an integer.
        ValueError: The model is not built or has no random layers, or a number is out of range.

    Reference:
        Gal and Ghahramani, Dropout as a Bayesian Approximation: Representing Model Uncertainty in
        Deep Learning, 2016; X. Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> layers = [keras.layers.Dropout(0.5), keras.layers.Dense(3, "softmax")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> mean, deviation = kerasopt.predict_ensemble(model, np.ones((2, 4)), seed=0)
        >>> mean.shape, bool(np.allclose(mean.sum(axis=1), 1)), bool((deviation > 0).all())
        ((2, 3), True, True)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    if not model.built:
        raise ValueError(
            "`model` must be built: give it an `Input`, or call it on a batch. "
            f"Received: {type(model).__name__}, not built"
        )
    samples = check_count("samples", samples, least=2)
    seed = None if seed is None else check_count("seed", seed, least=0)
    random = [layer for layer in model._flatten_layers() if _takes_part(layer)]
    if not random:
        raise ValueError(
            "`model` must have layers that draw random numbers while training, such as `Dropout` "
            "with a rate above 0: all its networks are one, which `model.predict` shows. "
            f"Received: {model.name} with {[layer.name for layer in model.layers]}"
        )
    ensemble = Ensemble(model, random, samples, keras.activations.get(activation), seed)
    with _drawing(random):
        return ensemble.predict(x, batch_size=batch_size, verbose=verbose)


class Ensemble(keras.Model):
    """Mean and standard deviation over samples of a model whose layers draw."""

    def __init__(
        self,
        model: keras.Model,
        random: Sequence[keras.Layer],
        samples: int,
        activation: Callable[[Any], Any],
        seed: int | None,
    ) -> None:
        super().__init__(dtype="float32", autocast=False)
        states = {id(each.state): each.state for layer in random for each in generators(layer)}

        def sample(x: Any, seeds: Any) -> Any:
            """Return the outputs of a network; what its layers assign is forgotten."""
            drawn = zip(states.values(), ops.unstack(seeds, len(states)), strict=True)
            with keras.StatelessScope([(state, ops.cast(s, state.dtype)) for state, s in drawn]):
                outputs = model(x, training=False)
            return tree.map_structure(lambda y: activation(_wide(y)), outputs)

        # A function: on JAX, variables that are this model's too are lost where its step fails.
        self._sample: Callable[[Any, Any], Any] = sample
        self._samples, self._generators = samples, len(states)  # layers may share a generator
        self._generator = keras.random.SeedGenerator(seed)
        self.jit_compile, self.run_eagerly = model.jit_compile, model.run_eagerly
        self.built = True

    def call(self, x: Any) -> tuple[Any, Any]:
        """Take the moments in one pass over the samples, by Welford's recurrence."""
        shape = (self._samples, self._generators, 2)
        seeds = keras.random.randint(shape, 0, 2**31 - 1, "int32", seed=self._generator)

        def add(index: Any, moments: Any) -> Any:
            outputs = tree.flatten(self._sample(x, seeds[index]))
            pairs = [
                _add(y, mean, square, index + 1)
                for y, mean, square in zip(outputs, *moments, strict=True)
            ]
            return tuple(map(list, zip(*pairs, strict=True)))

        first = self._sample(x, seeds[0])
        flat = tree.flatten(first)
        begin = (flat, [ops.zeros_like(y) for y in flat])
        mean, square = ops.fori_loop(1, self._samples, add, begin)
        deviation = [ops.sqrt(each / self._samples) for each in square]
        return tree.pack_sequence_as(first, mean), tree.pack_sequence_as(first, deviation)


def _add(y: Any, mean: Any, square: Any, count: Any) -> tuple[Any, Any]:
    """Return the mean and the sum of squared distances from it, with one more value."""
    away = y - mean
    mean = mean + away / ops.cast(count, y.dtype)
    return mean, square + away * (y - mean)


def _wide(y: Any) -> Any:
    is_double = keras.backend.standardize_dtype(y.dtype) == "float64"
    return ops.cast(y, "float64" if is_double else "float32")


def _takes_part(layer: keras.Layer) -> bool:
    """Return whether a layer is random while training; augmentation makes no other networks."""
    return draws(layer) and not isinstance(layer, BaseImagePreprocessingLayer)


@contextlib.contextmanager
def _drawing(random: Sequence[keras.Layer]) -> Iterator[None]:
    """Let layers draw, while the body runs, as if they were being trained."""
    replaced = [layer for layer in random if takes_training(layer.call)]
    for layer in replaced:
        layer.call = _in_training(layer.call)
    try:
        yield
    finally:
        for layer in replaced:
            del layer.call


def _in_training(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: call(*args, **{**kwargs, "training": True})
