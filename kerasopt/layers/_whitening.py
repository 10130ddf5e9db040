"""Inputs that are uncorrelated."""

from math import prod
from typing import Any

import keras
import numpy as np

# Not public, yet the only base whose layers run in `tf.data` on every backend.
from keras.src.layers.preprocessing.data_layer import DataLayer

from kerasopt._validation import check_choice, check_count, check_flag, check_number
from kerasopt.layers._adapting import Adapting
from kerasopt.layers._moments import Moments


@keras.saving.register_keras_serializable("kerasopt")
class Whitening(Adapting, DataLayer):
    """Shifts inputs to mean 0, decorrelates them and scales them to variance 1.

    With uncorrelated inputs the error surface of a linear unit has axes along its weights, and one
    learning rate fits them all; with correlated ones, weights have to be solved for together. The
    features of a sample are all its values, whatever its rank. With the eigenvectors V of their
    covariance over `data` and its eigenvalues λ, largest first:

        z = (x - mean) V / √max(λ, ε)           `kind="pca"`: the Karhunen-Loève expansion, scaled
        y = z Vᵀ                                `kind="zca"`: turned back, in the shape of x
        x = z √max(λ, ε) Vᵀ + mean              with `invert`

    The covariance of z over `data` is diagonal: 1 where λ ≥ ε, else λ / ε. A direction in which
    `data` do not vary, as of a constant feature or where samples are fewer than features, has λ = 0
    and is mapped to 0, in both ways. So is one whose deviation is less than 1.2e-7 √features of the
    largest, or of the largest value, which float32 cannot resolve: let `Standardize` come first
    where features have very different units.

    `adapt` must come before training. It takes one pass, and memory for a few matrices in
    float64 of features × features. In mixed precision the layer computes in float32 and returns it.

    Args:
        kind: `"pca"`: components, the one of the largest variance first; `"zca"`: inputs that
            changed as little as whitening allows, images that stay images. Defaults to `"pca"`.
        n_components: How many of the components of the largest variance to keep, ≥ 1, or None: all.
            Defaults to None.
        epsilon: The least variance ε ≥ 0 that is scaled up to 1, in units of the variance of the
            inputs. More of it keeps noise in directions of small variance small. Defaults to 1e-5.
        invert: Whether to map whitened data back; `adapt` takes the data themselves then, too. With
            fewer components the result is the projection on these. Defaults to False.
        **kwargs: What every Keras layer takes: `name`, `dtype`.

    Attributes:
        samples: How many samples `adapt` has seen.
        statistics: What it has seen, for `merge` in another layer.
        mean, components, variance: The weights: mean, V and λ.

    Raises:
        TypeError: An argument has the wrong type; `data` are not numbers.
        ValueError: An argument is outside its range; there are fewer features than components;
            `adapt` got fewer samples than components, none, of another shape, of rank 1 or not
            finite; the layer is called before `adapt`.

    Reference:
        LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.3; Bell and Sejnowski,
        The "independent components" of natural scenes are edge filters, 1997 (ZCA); X. Wang,
        Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import kerasopt, numpy as np
        >>> data = np.random.default_rng(0).normal(size=(1000, 2)) @ [[1, 2], [0, 9]]
        >>> layer = kerasopt.layers.Whitening("zca")
        >>> layer.adapt(data)
        >>> covariance = np.cov(np.asarray(layer(data)), rowvar=False)
        >>> np.abs(covariance).round(2).tolist(), layer.samples
        ([[1.0, 0.0], [0.0, 1.0]], 1000)
    """

    products = True

    def __init__(
        self,
        kind: str = "pca",
        n_components: int | None = None,
        epsilon: float = 1e-5,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = check_choice("kind", kind, ("pca", "zca"))
        self.n_components = (
            None if n_components is None else check_count("n_components", n_components)
        )
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")
        self.invert = check_flag("invert", invert)

    @property
    def features(self) -> tuple[int | None, ...]:
        """The shape of a sample."""
        return self._shape

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for inputs of this shape."""
        if self.invert and self.kind == "pca":
            raise ValueError(
                "`Whitening` with `invert` and `kind='pca'` must be adapted before it is called: "
                f"only data tell their shape. Received: whitened inputs of shape {input_shape}"
            )
        self.build_from_config({"input_shape": input_shape})

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the weights for data of this shape, those that `invert` returns."""
        shape = tuple(config["input_shape"][1:])
        if not shape or not all(shape):
            raise ValueError(
                "`Whitening` must have data of rank 2 or more, (samples, features…), and of known "
                f"sizes. Received: data of shape {(None, *shape)}"
            )
        count = prod(shape)
        if (self.n_components or 1) > count:
            raise ValueError(
                f"`n_components` must be at most the number of features, {count}. Received: "
                f"n_components={self.n_components}"
            )
        self._shape = shape
        kept = self.n_components or count
        self.mean = self._weight("mean", (count,))
        self.components = self._weight("components", (count, kept))
        self.variance = self._weight("variance", (kept,))
        self.count = self._weight("count", (), "int32")
        expected = (kept,) if self.invert and self.kind == "pca" else shape
        self.input_spec = keras.layers.InputSpec(shape=(None, *expected))
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        return self.add_weight(shape, "zeros", dtype, trainable=False, name=name)

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the shape of the data."""
        return {"input_shape": (None, *self._shape)} if self.built else None

    def settle(self, moments: Moments) -> None:
        """Give the weights the eigenvectors and eigenvalues of the covariance."""
        kept = self.variance.shape[0]
        if moments.samples < (self.n_components or 1):
            raise ValueError(
                f"`data` must hold at least as many samples as `n_components`. Received: "
                f"{moments.samples} samples, n_components={self.n_components}"
            )
        values, vectors = np.linalg.eigh(moments.scatter / moments.count)
        values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
        rounding = max(
            max(self.resolution**2, np.finfo("float64").eps) * values[0],
            self.resolution**2 * (moments.mean**2).max(),
        )
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
        self.mean.assign(moments.mean.ravel())
        self.components.assign(vectors * signs)  # which else differ between two runs
        self.variance.assign(np.where(values > rounding * moments.mean.size, values, 0))

    def call(self, inputs: Any) -> Any:
        """Whiten the inputs, or map them back."""
        self.check_adapted()
        numpy = self.backend.numpy
        weights = (self.mean, self.components, self.variance)
        mean, components, variance = map(self.convert_weight, weights)
        scale = numpy.where(variance > 0, numpy.sqrt(numpy.maximum(variance, self.epsilon)), 0)
        rows = self.backend.cast(inputs, self.compute_dtype)
        rows = numpy.reshape(rows, (-1, prod(self.input_spec.shape[1:])))
        if self.invert:
            whitened = numpy.matmul(rows, components) if self.kind == "zca" else rows
            rows = numpy.matmul(whitened * scale, numpy.transpose(components)) + mean
        else:
            rows = numpy.divide_no_nan(numpy.matmul(rows - mean, components), scale)
            if self.kind == "pca":
                return rows
            rows = numpy.matmul(rows, numpy.transpose(components))
        return numpy.reshape(rows, (-1, *self._shape))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the data, or the number of components."""
        if self.kind == "zca":
            return tuple(input_shape)
        if self.invert:
            return (input_shape[0], *self._shape)
        return (input_shape[0], self.n_components or prod(input_shape[1:]))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "n_components": self.n_components,
            "epsilon": self.epsilon,
            "invert": self.invert,
        }
