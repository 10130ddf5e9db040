"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs TensorFlow on the other backends."""
    skip = pytest.mark.skip(reason=f"needs the TensorFlow backend, not {BACKEND}")
    for item in items:
        if BACKEND != "tensorflow" and item.get_closest_marker("tensorflow"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Give each test the same random numbers and the default precision."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """128 handwritten digits, 8×8 pixels in 0-1, with their classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images[:128, ..., None] / 16).astype("float32"), bunch.target[:128]


@pytest.fixture(scope="session")
def shared_tfds() -> Path:
    """A TFDS folder in which `fashion_mnist` is prepared."""
    folder = Path(os.environ.get("TFDS_DATA_DIR", "missing"))
    if not (folder / "fashion_mnist").is_dir():
        pytest.skip("`fashion_mnist` is not prepared in TFDS_DATA_DIR")
    return folder


@pytest.fixture
def float64() -> Iterator[None]:
    """Let Keras compute in float64."""
    if BACKEND == "jax":
        pytest.skip("JAX has no float64 by default")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
