"""A good start for a deep network: its layers are trained one by one, as autoencoders."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._autodiff import value_and_gradient
from kerasopt._validation import check_choice, check_count, check_number

KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def pretrain(
    model: keras.Model,
    x: Any,
    kind: str = "autoencoder",
    epochs: int = 10,
    batch_size: int | None = None,
    corruption: float = 0.2,
    optimizer: Any = None,
    layers: Sequence[Any] | None = None,
    seed: int | None = None,
    verbose: int = 1,
) -> dict[str, list[float]]:
    """Train the hidden layers of a model one by one, without targets, as a start for `fit`.

    Use it where a deep network does not begin to learn, because gradients vanish on their way
    down (sigmoid units), or where there are many samples without targets. The lower layers have
    what they need when the next one is trained. For each layer f(h) = φ(W h + b), lowest first,

        minimise  var(h' - h) / var(h)        over W and b; of a batch, summed over elements
        h' = s Wᵀ f(h̃)                        s = (φ(1) - φ(-1)) / 2, the slope of φ

    where h is what the layers below make of x, and h̃ is h, or with `kind="denoising"` h with
    random elements set to the mean of the batch, so that they have to be told from the others. The
    decoder has the transposed weights and loses nothing where f keeps distances: then neither the
    signal vanishes on its way up nor the gradient on its way down. It fits `Dense`, `Conv1D`,
    `Conv2D` and `Conv3D` of any strides and padding; their activation has to be that of the layer,
    not a layer after it. Layers between, such as `Flatten`, pooling, dropout and batch
    normalisation, do what they do in inference.

    Only the weights of the layers change. The model stays compiled as it was, and its optimizer
    has not been used. Compile and `fit` it then as usual.

    Args:
        model: A built `Sequential` or functional model. Nested models are passed through: to train
            their layers, call `pretrain` on them with the inputs that they get. A layer that is
            called more than once learns from the first call.
        x: The inputs, as for `fit`: arrays, or a `tf.data.Dataset` or `PyDataset` of batches,
            whose targets are not looked at.
        kind: `"autoencoder"` or `"denoising"`. Defaults to `"autoencoder"`.
        epochs: Number ≥ 1 of epochs for each layer. Defaults to 10.
        batch_size: Number of rows in a batch, of arrays. Defaults to None, which is 32.
        corruption: Share of the elements of h that say nothing, in (0, 1), with `"denoising"`;
            `"autoencoder"` corrupts none. Defaults to 0.2.
        optimizer: A Keras optimizer, or its name; each layer is trained by a new one of the same
            settings. Defaults to None, which is `Adam(0.01)`.
        layers: The layers to train, or their names. Defaults to None: all `Dense` and `Conv` layers
            that are trainable, but those that no other of them comes after, which are the outputs.
        seed: Integer ≥ 0 for the same random elements, or None. The order of the samples follows
            `keras.utils.set_random_seed`. Defaults to None.
        verbose: 0: silent, 1: a line for each layer, 2: with progress bars. Defaults to 1.

    Returns:
        For each layer, by its name and in the order of training, the loss of each epoch: the share
        of the variance of its inputs that is lost, between 0 and about 1 when it is trained.

    Raises:
        TypeError: `model` is not a Keras model, or an argument has the wrong type.
        ValueError: The model is not built or has no graph of layers, a layer of `layers` is not
            in it, cannot be trained or has an activation that does not rise, there is none to
            train, or an argument is out of range.

    Reference:
        Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training of deep networks, 2007;
        Vincent, Larochelle, Bengio and Manzagol, Extracting and composing robust features with
        denoising autoencoders, 2008 (noise, transposed weights); X. Wang, Optimization for
        Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> x = np.random.default_rng(0).uniform(size=(64, 8))
        >>> hidden = [keras.layers.Dense(6, "sigmoid", name=name) for name in ("lower", "upper")]
        >>> model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(3)])
        >>> losses = kerasopt.pretrain(model, x, epochs=20, seed=0, verbose=0)
        >>> [*losses], losses["upper"][-1] < losses["upper"][0]
        (['lower', 'upper'], True)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    check_choice("kind", kind, ("autoencoder", "denoising"))
    corruption = check_number("corruption", corruption, "(0, 1)")
    check_count("epochs", epochs)
    seed = None if seed is None else check_count("seed", seed, least=0)
    check_count("verbose", verbose, least=0)
    chosen_optimizer = keras.optimizers.Adam(0.01) if optimizer is None else optimizer
    settings = keras.optimizers.serialize(keras.optimizers.get(chosen_optimizer))
    below = _below(model)
    chosen = _hidden(below) if layers is None else _chosen(model, below, layers)
    shuffle = not hasattr(x, "as_numpy_iterator")  # of a `tf.data.Dataset` Keras cannot
    losses = {}
    for number, layer in enumerate(chosen, start=1):
        with _scope(model):
            share = corruption if kind == "denoising" else 0.0
            autoencoder = Autoencoder(layer, below[layer.name], share, seed)
            autoencoder.compile(keras.optimizers.deserialize(settings))
        history = autoencoder.fit(
            x, batch_size=batch_size, epochs=epochs, shuffle=shuffle, verbose=verbose // 2
        )
        losses[layer.name] = history.history["loss"]
        if verbose:
            sys.stdout.write(_line(layer.name, number, len(chosen), losses[layer.name]))
    return losses


class Autoencoder(keras.Model):
    """A layer that is trained to reconstruct what the layers below make of the inputs."""

    def __init__(
        self, layer: keras.Layer, below: keras.Model, corruption: float, seed: int | None
    ) -> None:
        super().__init__()
        self.layer, self.corruption = layer, corruption
        self.generator = keras.random.SeedGenerator(seed)
        # A function, so that the layers below are not trained.
        self._features: Callable[[Any], Any] = lambda x: below(x, training=False)
        low, high = (float(layer.activation(ops.full((1, 2), z))[0, 0]) for z in (-1.0, 1.0))
        if low == high:
            raise ValueError(
                "`layers` must have activations that rise from -1 to 1, for each unit by itself. "
                f"Received: {layer.name!r} with {layer.activation}"
            )
        self._slope = (high - low) / 2

    def call(self, x: Any) -> tuple[Any, Any]:
        """Return the reconstruction, and what it should be, up to a constant."""
        h = self._features(x)
        kept = h
        if self.corruption:
            drawn = keras.random.uniform(ops.shape(h), seed=self.generator)
            kept = ops.where(drawn < self.corruption, ops.mean(h, axis=0), h)
        return self._slope * _transposed(self.layer, self.layer(kept), h), h

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the share of the variance that is lost, whatever the targets are."""
        back, h = (ops.cast(each, "float32") for each in y_pred)
        lost, whole = (ops.mean(ops.var(each, axis=0)) for each in (back - h, h))
        return lost / (whole + keras.backend.epsilon())


def _transposed(layer: keras.Layer, y: Any, h: Any) -> Any:
    """Return Wᵀ y, of the shape of h: the derivative of (W h + b) · y, for any strides and padding.

    W h + b is what the layer does without its activation.
    """
    activation = layer.activation
    layer.activation = None
    try:
        return value_and_gradient(lambda at: ops.sum(layer(at[0]) * y), [ops.zeros_like(h)])[1][0]
    finally:
        layer.activation = activation


def _below(model: keras.Model) -> dict[str, keras.Model]:
    """Return what comes before each layer that can be trained, by its name."""
    if not model.built:
        raise ValueError(
            "`model` must be built: give it an `Input`, or call it on a batch. "
            f"Received: {type(model).__name__}, not built"
        )
    try:
        inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
        return {
            layer.name: keras.Model(inputs, layer.input)
            for layer in model.layers
            if isinstance(layer, KINDS)
        }
    except (AttributeError, ValueError) as error:
        raise ValueError(
            "`model` must be a `Sequential` or functional model, with layers of its own. "
            f"Received: {type(model).__name__} ({error})"
        ) from error


def _hidden(below: dict[str, keras.Model]) -> list[keras.Layer]:
    """Return the trainable layers that come before another one."""
    found = {
        layer.name: layer
        for lower in below.values()
        for layer in lower.layers
        if layer.name in below and layer.trainable
    }
    if not found:
        raise ValueError(
            "`model` must have a trainable `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layer before "
            f"the output layer. Received: {[*below]}. Name others by `layers`."
        )
    return [found[name] for name in below if name in found]


def _chosen(
    model: keras.Model, below: dict[str, keras.Model], layers: Sequence[Any]
) -> list[keras.Layer]:
    """Return the layers that were asked for, from the lowest on."""
    names = [getattr(each, "name", each) for each in layers]
    able = [each.name for each in model.layers if each.name in below and each.trainable]
    if not names or set(names) - set(able):
        raise ValueError(
            "`layers` must be trainable `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layers of the "
            f"model, or their names. Received: {names}; there are {able}"
        )
    return [model.get_layer(name) for name in able if name in names]


def _scope(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Return the scope of the strategy of a model."""
    strategy = getattr(model, "distribute_strategy", None)  # on Keras' TensorFlow backend only
    return strategy.scope() if strategy else contextlib.nullcontext()


def _line(name: str, number: int, count: int, losses: Sequence[float]) -> str:
    return f"{name} ({number}/{count}): loss {losses[0]:.4g} → {losses[-1]:.4g}\n"
