"""The TFDS dataset `digits`."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

import kerasopt.data

pytestmark = pytest.mark.tensorflow  # which TFDS needs to write and to read


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    kerasopt.data.Digits(data_dir=folder).download_and_prepare()
    return folder


def test_is_a_tfds_dataset(prepared: Path) -> None:
    train, info = tfds.load("digits", split="train", data_dir=prepared, with_info=True)
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 1437,
        "test": 360,
    }
    example = next(iter(train.as_numpy_iterator()))
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8


def test_splits_share_no_image_and_leave_out_none(prepared: Path) -> None:
    parts = tfds.load("digits", data_dir=prepared, as_supervised=True, batch_size=-1)
    images, labels = (
        np.concatenate([np.asarray(parts[split][part]) for split in ("train", "test")])
        for part in (0, 1)
    )
    original = load_digits()
    expected = np.round(original.images * 255 / 16).astype("uint8").reshape(-1, 64)
    ours = np.column_stack([images.reshape(-1, 64), labels])
    theirs = np.column_stack([expected, original.target])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    counts = np.bincount(np.asarray(parts["test"][1]))
    assert np.ptp(counts) <= 2


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'kerasopt\[examples\]'"):
        kerasopt.data.Digits(data_dir=tmp_path).download_and_prepare()
