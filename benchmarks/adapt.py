"""What `adapt` costs on 60,000 samples of 784 features."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA, IncrementalPCA

import kerasopt
from benchmarks._race import Row, race


def samples() -> np.ndarray:
    """Return data of 40 factors, noise and a large mean."""
    random = np.random.default_rng(0)
    factors = random.standard_normal((40, 784)) * np.linspace(15, 0.5, 40)[:, None]
    noise = random.standard_normal((60_000, 784)) * 3
    return (random.standard_normal((60_000, 40)) @ factors + noise + 120).astype("float32")


def rows() -> Iterator[Row]:
    """Compare with the layer of Keras, and with scikit-learn."""
    data = samples()
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4096)
    standardize, keras_layer = kerasopt.layers.Standardize(), keras.layers.Normalization()
    for name, source in (("array", data), ("`tf.data`", dataset)):
        yield race(
            f"`Standardize.adapt`, {name} of 60,000×784",
            "`keras.layers.Normalization.adapt`",
            lambda source=source: standardize.adapt(source),  # type: ignore[misc]
            lambda source=source: keras_layer.adapt(source),  # type: ignore[misc]
            rounds=9,
        )
    whitening = kerasopt.layers.Whitening()
    for peer, make in (
        ('PCA(svd_solver="covariance_eigh")', lambda: PCA(svd_solver="covariance_eigh")),
        ("IncrementalPCA(50, batch_size=4096)", lambda: IncrementalPCA(50, batch_size=4096)),
    ):
        yield race(
            "`Whitening.adapt`, array of 60,000×784",
            f"scikit-learn's `{peer}.fit`",
            lambda: whitening.adapt(data),
            lambda make=make: make().fit(data),  # type: ignore[misc]
            rounds=9,
        )
