"""Handwritten digits that need no network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8×8 pixels, from scikit-learn, as a TFDS dataset.

    Real data of a size that trains in seconds, for examples and tests. Importing `kerasopt.data`
    registers the dataset, so that `tfds.load("digits")` finds it and prepares it once. The splits
    are `train` (1,437 images) and `test` (360), drawn at random, with the classes in equal shares,
    by a fixed seed. Grey values are scaled from scikit-learn's 0-16 to 0-255.

    Raises:
        ImportError: scikit-learn, which ships the images, is not installed.

    Reference:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository, 1998 (its test set).

    Example:
        >>> import tempfile
        >>> import tensorflow_datasets as tfds, kerasopt.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     info = tfds.builder("digits", data_dir=folder).info
        >>> info.features["image"].shape, info.features["label"].num_classes
        ((8, 8, 1), 10)
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8×8 pixels, as scikit-learn ships them.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise ImportError(
                "The dataset `digits` comes with scikit-learn, which is not installed. "
                "Install it with: pip install 'kerasopt[examples]'"
            ) from error
        digits = load_digits()
        images = np.round(digits.images[..., None] * (255 / 16)).astype("uint8")
        train, test = train_test_split(
            np.arange(len(images)), test_size=360, stratify=digits.target, random_state=0
        )
        return {
            split: self._generate_examples(images, digits.target, rows)
            for split, rows in (("train", train), ("test", test))
        }

    def _generate_examples(
        self, images: Any, labels: Any, rows: Any
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row in rows:
            yield int(row), {"image": images[row], "label": int(labels[row])}
