"""`interleave_classes`: every sample once an epoch, and neighbours of different classes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.data import interleave_classes
from tests.contract.cases import dense_model
from tests.test_growing_batch_size import NUMBERS, watched_model
from tests.test_resume import BreakOff, Script, X, Y


def labels_of(*counts: int) -> np.ndarray:
    """Return shuffled labels with so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(1).permutation(labels)


def order(dataset: Any) -> np.ndarray:
    return np.concatenate([dataset.rows(index) for index in range(len(dataset))])


def neighbours(classes: np.ndarray) -> int:
    """Return how many samples have the class of the one before them."""
    return int((classes[1:] == classes[:-1]).sum())


EQUAL = [((60,) * 10, 32), ((60,) * 10, 25), ((6, 6), 5), ((4,) * 7, 1), ((9,) * 3, 27)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("counts", "batch_size"), EQUAL)
def test_equal_classes(counts: tuple, batch_size: int, seed: int) -> None:
    labels = labels_of(*counts)
    dataset = interleave_classes((labels, labels), None, batch_size, seed)
    batches = [np.bincount(y, minlength=len(counts)) for _, y in dataset]
    assert max(np.ptp(batch) for batch in batches) <= 1
    assert sorted(order(dataset)) == list(range(len(labels)))
    assert neighbours(labels[order(dataset)]) == 0


UNEQUAL = [
    ((50, 30, 15, 5), 10),
    ((60, 50, 40), 7),
    ((16, 17), 7),
    ((1, 2), 2),
    ((5, 1, 1, 1, 1), 3),
    ((0, 7, 3, 0, 9), 4),
    ((300, 3, 297), 64),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("counts", "batch_size"), UNEQUAL)
def test_shares_of_unequal_classes(counts: tuple, batch_size: int, seed: int) -> None:
    labels = labels_of(*counts)
    dataset = interleave_classes((labels, labels), None, batch_size, seed)
    for _, y in dataset:
        share = np.array(counts) * len(y) / len(labels)
        found = np.bincount(y, minlength=len(counts))
        assert (found >= np.floor(share)).all()
        assert (found <= np.ceil(share)).all()
    assert sorted(order(dataset)) == list(range(len(labels)))
    assert neighbours(labels[order(dataset)]) == 0


@pytest.mark.parametrize("batch_size", [16, 32, 64])
def test_all_digits(batch_size: int) -> None:
    """Real classes are nearly equal, in nature: 174 to 183 of each."""
    from sklearn.datasets import load_digits

    labels = load_digits().target
    dataset = interleave_classes((labels, labels), None, batch_size, 0)
    assert max(np.ptp(np.bincount(y, minlength=10)) for _, y in dataset) <= 1
    assert neighbours(labels[order(dataset)]) == 0


@pytest.mark.parametrize("counts", [(70, 30), (10, 80, 10), (5, 0)])
def test_majority_meets_itself_no_more_than_it_must(counts: tuple) -> None:
    labels = labels_of(*counts)
    found = neighbours(labels[order(interleave_classes((labels, labels), None, 5, 0))])
    least = 2 * max(counts) - sum(counts) - 1
    assert least <= found <= least + 1


def test_random_counts() -> None:
    """Classes without a majority: shares are kept, and hardly ever do neighbours agree."""
    random = np.random.default_rng(0)
    agree = 0
    for seed in range(300):
        counts = random.integers(0, 20, random.integers(2, 8))
        labels = labels_of(*counts, counts.max() + 1, counts.max() + 1)
        size = int(random.integers(1, len(labels) + 1))
        dataset = interleave_classes((labels, labels), None, size, seed)
        share = np.bincount(labels) * size / len(labels)
        whole = [np.bincount(y, minlength=len(share)) for _, y in dataset if len(y) == size]
        assert (np.abs(whole - share) < 1).all()
        agree += neighbours(labels[order(dataset)])
    assert agree <= 2


def test_order_is_that_of_seed_and_epoch() -> None:
    labels = labels_of(8, 8, 8)
    first, again, other = (interleave_classes(labels, labels, 5, seed) for seed in (1, 1, 2))
    epochs = [order(first)]
    for _ in range(2):
        first.on_epoch_begin()
        epochs.append(order(first))
    assert len({epoch.tobytes() for epoch in [*epochs, order(other)]}) == 4
    again.set_state(json.loads(json.dumps({**first.get_state(), "epoch": 2})))
    np.testing.assert_array_equal(order(again), epochs[2])


def test_classes_take_turns_in_many_ways() -> None:
    labels = np.arange(5)
    dataset, seen = interleave_classes(labels, labels, 5, 0), set()
    for _ in range(20):
        dataset.on_epoch_begin()
        seen.add(tuple(order(dataset)))
    assert len(seen) > 15


def test_without_seed_that_of_keras() -> None:
    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        orders += [order(interleave_classes(np.arange(20), labels_of(10, 10), 4)) for _ in "ab"]
    np.testing.assert_array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 3}, {"jit_compile": True}])
def test_fit_sees_every_sample_once(arguments: dict) -> None:
    model, epochs = watched_model(**arguments)
    data = (np.arange(50)[:, None], NUMBERS)
    dataset = interleave_classes(data, np.arange(50) % 7, 8, 0)
    model.fit(dataset, epochs=3, verbose=0, callbacks=[epochs])
    np.testing.assert_array_equal(epochs.seen, np.arange(1, 4)[:, None] * np.ones(50))


@pytest.mark.tensorflow
def test_under_a_strategy(digits: tuple) -> None:
    weights = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        with kerasopt.strategies.DataParallel(devices).scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        model.fit(interleave_classes(digits, None, 24, 0), epochs=2, verbose=0)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


LABELS = labels_of(4, 4)
FORMS = {
    "arrays": (LABELS * 2, LABELS),
    "weights": (LABELS * 2, LABELS, LABELS * 3),
    "structure": ({"a": LABELS * 2, "b": [LABELS]}, LABELS),
    "inputs": (LABELS * 2,),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_forms_of_data(data: tuple) -> None:
    dataset = interleave_classes(data, LABELS, 3, 0)
    batch = dataset[1]
    expected = keras.tree.map_structure(lambda array: array[dataset.rows(1)], data)
    expected = expected[0] if len(expected) == 1 else expected
    keras.tree.map_structure(np.testing.assert_array_equal, batch, expected)


def test_inputs_alone_have_the_labels_as_targets() -> None:
    inputs, targets = interleave_classes(LABELS * 2, LABELS[:, None], 3, 0)[0]
    np.testing.assert_array_equal(inputs, targets[:, 0] * 2)


@pytest.mark.parametrize("given", [None, LABELS])
def test_dataset_of_tensorflow(given: Any) -> None:
    tf = pytest.importorskip("tensorflow")  # on every backend
    samples = tf.data.Dataset.from_tensor_slices(({"a": np.arange(8)}, LABELS))
    dataset = interleave_classes(samples, given, 3, 0)
    for index, (inputs, targets) in enumerate(dataset):
        np.testing.assert_array_equal(inputs["a"], dataset.rows(index))
        np.testing.assert_array_equal(targets, LABELS[dataset.rows(index)])


@pytest.mark.parametrize("num_shards", [2, 3, 4])
def test_shards(num_shards: int) -> None:
    labels = np.arange(62) % 2  # every second one would be of one class
    shards = [
        interleave_classes(labels, labels, 4, 0, num_shards=num_shards, shard_index=index)
        for index in range(num_shards)
    ]
    orders = [order(dataset) for dataset in shards]
    assert sorted(np.concatenate(orders)) == list(range(62))
    assert np.ptp([len(each) for each in orders]) <= 1
    assert max(np.ptp(np.bincount(labels[each])) for each in orders) <= 1


@pytest.mark.parametrize("every", [pytest.param("epoch", marks=pytest.mark.slow), 4])
def test_resumed(every: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    script = Script(
        lambda: {"x": interleave_classes((X, Y), Y.astype(int), 8, 0)}, every=every, epochs=3
    )
    expected = script(directory="whole")
    with pytest.raises(InterruptedError):
        script(BreakOff(1, 5))
    assert script() == expected


ONE_HOT = np.eye(3)[[0, 1, 2, 0]]
BAD = {
    "float": ({"labels": [0.0, 1.0, 1.0, 0.0]}, TypeError, r"dtype float64;.*astype\(int\)"),
    "one-hot": ({"labels": ONE_HOT}, ValueError, r"shape \(4, 3\).*`labels.argmax\(axis=-1\)`"),
    "negative": ({"labels": [0, -1, 1, -1]}, ValueError, r"≥ 0. Received: \[-1\] in 2 .* is 1"),
    "outside": (
        {"labels": [0, 1, 3, 2], "num_classes": 3},
        ValueError,
        r"in \[0, 3\). Received: \[3\] in 1 samples, the first of which is 2",
    ),
    "missing": (
        {"labels": [0, 1, 3, 1], "num_classes": 4},
        ValueError,
        r"each of the 4 classes. Received: none of \[2\]",
    ),
    "short": ({"labels": [0, 1, 1]}, ValueError, r"same number of rows. Received: \[3, 4\]"),
    "none": ({"labels": None}, ValueError, "`labels` must be given where `data` has no targets"),
    "batch": ({"batch_size": 5}, ValueError, "at most the number of samples, 4. Received: .*=5"),
    "batch 0": ({"batch_size": 0}, ValueError, "`batch_size` must be an integer ≥ 1"),
    "seed": ({"seed": -1}, ValueError, "`seed` must be an integer ≥ 0"),
    "classes": ({"num_classes": 2.0}, TypeError, "`num_classes` must be an integer ≥ 1"),
    "shards": ({"num_shards": 0}, ValueError, "`num_shards` must be an integer ≥ 1"),
    "shard": (
        {"num_shards": 2, "shard_index": 2},
        ValueError,
        "`shard_index` must be less than `num_shards`. Received: shard_index=2, num_shards=2",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        interleave_classes(
            **{"data": np.zeros(4), "labels": [0, 1, 0, 1], "batch_size": 2, **arguments}
        )


def test_bad_data() -> None:
    with pytest.raises(ValueError, match=r"same number of rows. Received: \[4, 5\]"):
        interleave_classes((np.zeros(4), np.zeros(5)), [0, 1, 0, 1], 2)
    with pytest.raises(ValueError, match="Received: 3 labels, 4 samples"):
        interleave_classes((np.zeros(4), np.zeros(4)), [0, 1, 1], 2)
    with pytest.raises(ValueError, match=r"at least one\. Received: 0 labels, 0 samples"):
        interleave_classes(np.zeros((0, 2)), np.zeros(0, int), 2)
    with pytest.raises(IndexError, match=r"one of the 3 batches\. Received: index=3"):
        interleave_classes(np.zeros(8), LABELS, 3)[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.repeat(), r"must end. Received: .* leave out `repeat\(\)`"),
        (lambda data: data.take(0), "must have samples. Received: an empty dataset"),
        (lambda data: data.batch(4), r"shape \(2, 4\).* pass `dataset.unbatch\(\)`"),
    ],
    ids=["endless", "empty", "batches"],
)
def test_bad_dataset(change: Any, message: str) -> None:
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(ValueError, match=message):
        interleave_classes(change(tf.data.Dataset.from_tensor_slices((LABELS, LABELS))), None, 2)


@pytest.mark.tensorflow  # once is enough
def test_no_tensorflow_on_jax() -> None:
    script = "import sys, kerasopt.data; assert 'tensorflow' not in sys.modules"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
