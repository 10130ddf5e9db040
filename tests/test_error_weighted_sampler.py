"""`ErrorWeightedSampler`: large errors more often, without bias, and without the outliers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from kerasopt.callbacks._callback_states import states
from kerasopt.data import ErrorWeightedSampler
from kerasopt.data._loss_pass import loss_function
from tests.contract.cases import Case, bad_rows, dense_model
from tests.test_resume import BreakOff, Script, X, Y

ROWS = np.arange(40)
LOSSES = np.random.default_rng(0).gamma(0.5, size=40)


def sampler_of(count: int = 40, batch_size: int = 8, seed: int = 0, **kwargs: Any) -> Any:
    rows = np.arange(count)
    arguments = {"x": rows, "y": rows, "batch_size": batch_size, "seed": seed}
    return ErrorWeightedSampler(**{**arguments, **kwargs})


def counts(sampler: Any, size: int = 40) -> np.ndarray:
    """Return how often each sample comes in an epoch."""
    drawn = [sampler.rows(index) for index in range(len(sampler))]
    return np.bincount(np.concatenate(drawn), minlength=size)


@pytest.mark.parametrize(("alpha", "floor"), [(1.0, 0.1), (0.5, 0.0), (2.0, 0.3), (0.0, 1.0)])
def test_each_comes_in_proportion_to_its_loss(alpha: float, floor: float) -> None:
    sampler = sampler_of(alpha=alpha, floor=floor)
    np.testing.assert_array_equal(counts(sampler), 1)  # before there are losses
    sampler.update(LOSSES)
    shares = np.maximum(LOSSES**alpha, floor * (LOSSES**alpha).mean())
    expected = 40 * shares / shares.sum()
    assert (np.abs(counts(sampler) - expected) < 1).all()
    rows, _, weights = sampler[0]
    np.testing.assert_allclose(weights, 1 / expected[rows], rtol=1e-6)


def test_losses_of_zero_are_drawn_alike() -> None:
    sampler = sampler_of()
    sampler.update(np.zeros(40))
    np.testing.assert_array_equal(counts(sampler), 1)


@pytest.mark.parametrize("by_batch", [False, True])
def test_gradient_is_that_of_all_data(by_batch: bool) -> None:
    """The gradient of one batch, in the mean over 3,000 draws; outliers are among them."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 3)), random.normal(size=50)
    y[:3] += 20
    gradients = (x @ np.ones(3) - y)[:, None] * x
    sampler = ErrorWeightedSampler(x, y, 10, patience=1)
    losses = (x @ np.ones(3) - y) ** 2
    sampler.update(losses)
    if by_batch:
        sampler.update(losses[:5] / 2, np.arange(5))
    assert {0, 1, 2} <= set(sampler.outliers.indices)
    draws, weights = [], []
    for seed in range(3000):
        sampler.set_state({**sampler.get_state(), "seed": seed})
        inputs, targets, weight = sampler[2]
        residuals = weight * (inputs @ np.ones(3) - targets)
        draws.append(residuals @ inputs / 10)
        weights.append(weight.mean())
    error = np.std(draws, axis=0) / np.sqrt(3000)
    assert (np.abs(np.mean(draws, axis=0) - gradients.mean(axis=0)) < 3 * error).all()
    assert (error < 0.1 * np.abs(gradients).mean(axis=0)).all()
    assert np.mean(weights) == pytest.approx(1, abs=0.02)


def test_without_correction_there_are_no_weights() -> None:
    assert len(sampler_of(importance_correction=False)[0]) == 2
    weighted = sampler_of(importance_correction=False, sample_weight=ROWS + 1)
    rows, _, weights = weighted[0]
    np.testing.assert_array_equal(weights, rows + 1)


def test_sample_weights_are_multiplied() -> None:
    sampler = sampler_of(sample_weight=ROWS + 1)
    sampler.update(LOSSES)
    plain = sampler_of()
    plain.update(LOSSES)
    np.testing.assert_allclose(sampler[1][2], plain[1][2] * (plain.rows(1) + 1), rtol=1e-6)


def test_losses_of_a_batch_count_at_once() -> None:
    """In a loop of one's own, each batch is drawn by the newest losses."""
    sampler = sampler_of(400, 20, floor=0.0)
    sampler.update(np.ones(400))
    for index in range(len(sampler) - 1):
        rows = sampler.rows(index)
        np.testing.assert_array_equal(rows, sampler[index][0])
        sampler.update(np.where(rows < 200, 0.0, 1.0), rows)
    seen = np.flatnonzero(sampler.history.losses == 0)
    assert len(seen) > 50
    assert not np.isin(sampler.rows(19), seen).any()
    sampler.update(np.ones(20), np.arange(20))
    assert sampler.history.epochs == 2


def test_batch_is_drawn_by_the_newest_losses() -> None:
    """Of which the mean is that of the last whole epoch."""
    sampler, losses = sampler_of(399, 100, floor=0.2), np.resize(LOSSES, 399)
    sampler.update(losses)
    level = losses.mean()
    for start in (0, 1):
        some = np.arange(start, 399, 3)
        losses[some] = 5 * losses[::-1][some]
        sampler.update(losses[some], some)
    shares = np.maximum(losses, 0.2 * level)
    expected = shares / shares.sum()
    rows, _, weights = sampler[1]
    assert (np.abs(np.bincount(rows, minlength=399) - 100 * expected) < 1).all()
    np.testing.assert_allclose(weights, 1 / (399 * expected[rows]), rtol=1e-6)


def test_each_comes_once_until_there_are_losses_of_all() -> None:
    sampler, seen = sampler_of(), []
    for index in range(len(sampler)):
        rows = sampler.rows(index)
        sampler.update(LOSSES[rows], rows)
        seen += [*rows]
    np.testing.assert_array_equal(np.sort(seen), ROWS)
    np.testing.assert_array_equal(sampler.history.losses, LOSSES)
    assert counts(sampler).max() > 1


def test_outliers_are_held_to_the_mean_and_listed() -> None:
    losses = np.append(np.linspace(0.1, 1, 96), [30, 50, 40, 20])
    sampler = sampler_of(100, 10, patience=2)
    sampler.update(losses)
    assert len(sampler.outliers.indices) == 0
    assert counts(sampler, 100)[96:].min() >= 10
    sampler.update(losses)
    np.testing.assert_array_equal(sampler.outliers.indices, [97, 98, 96, 99])
    np.testing.assert_allclose(sampler.outliers.losses, [50, 40, 30, 20])
    assert counts(sampler, 100)[96:].max() <= 2
    sampler.update(np.where(losses > 19, 0, losses))
    sampler.update(np.where(losses == 20, 0, losses))
    assert 99 not in sampler.outliers.indices[:3]


def test_without_guard_nothing_is_listed() -> None:
    sampler = sampler_of(outlier_quantile=1.0, patience=1)
    sampler.update(LOSSES)
    assert len(sampler.outliers.indices) == 0


def network(inputs: np.ndarray, outputs: int = 1, **kwargs: Any) -> keras.Model:
    dense = keras.layers.Dense(outputs, **kwargs)
    return keras.Sequential([keras.Input(inputs.shape[1:]), keras.layers.Dropout(0.5), dense])


def two_outputs(inputs: np.ndarray) -> keras.Model:
    given = keras.Input(inputs.shape[1:])
    outputs = {"a": keras.layers.Dense(1, name="a")(given), "b": keras.layers.Dense(3)(given)}
    model = keras.Model(given, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 2.0, "b": 3.0})
    return model


def squared(y: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    return np.square(y - y_pred).mean(axis=-1)


TARGETS = np.random.default_rng(1).normal(size=(44, 3)).astype("float32")
COMPILED = {  # with what becomes of the loss where all weights are 2
    "name": ({"loss": "mse"}, 2),
    "compiled by XLA": ({"loss": "mse", "jit_compile": True}, 2),
    "eager": ({"loss": "mse", "run_eagerly": True}, 2),
    "mean": ({"loss": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")}, 1),
    "function": ({"loss": lambda y, y_pred: keras.ops.mean((y - y_pred) ** 2, axis=-1)}, 2),
}


@pytest.mark.parametrize(("arguments", "scale"), COMPILED.values(), ids=COMPILED)
def test_losses_of_samples(arguments: dict, scale: float) -> None:
    model = network(X, 3, kernel_regularizer="l2", activity_regularizer="l1")
    model.compile("sgd", **arguments)
    losses, twice = loss_function(model), np.full(44, 2.0, "float32")
    expected = squared(TARGETS, model.predict(X, verbose=0))
    np.testing.assert_allclose(losses((X, TARGETS, None)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses((X, TARGETS, twice)), scale * expected, rtol=1e-4, atol=1e-5)


def test_losses_that_are_nothing_beside_the_penalties() -> None:
    """They are not lost in rounding, and none is below zero."""
    model = network(X, 3, kernel_regularizer=keras.regularizers.L2(1e3))
    model.compile("sgd", "mse")
    y = model.predict(X, verbose=0) + 1e-3 * np.arange(44)[:, None] / 44
    found = loss_function(model)((X, y, None))
    np.testing.assert_allclose(found, 1e-6 * (np.arange(44) / 44) ** 2, atol=1e-9)
    assert found.min() >= 0


def test_losses_of_several_outputs() -> None:
    model = two_outputs(X)
    y = {"a": TARGETS[:, :1], "b": TARGETS}
    predicted = model.predict(X, verbose=0)
    errors = np.abs(TARGETS - predicted["b"]).mean(axis=-1)
    expected = 2 * squared(y["a"], predicted["a"]) + 3 * errors
    np.testing.assert_allclose(loss_function(model)((X, y, None)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("policy", "arguments"),
    [("mixed_bfloat16", {"steps_per_execution": 3}), ("float32", {"jit_compile": True})],
)
def test_fit(policy: str, arguments: dict, digits: tuple) -> None:
    keras.config.set_dtype_policy(policy)
    model = dense_model(keras.optimizers.SGD(0.2), **arguments)
    sampler = ErrorWeightedSampler(*digits, batch_size=30, seed=0)  # of which 128 is no multiple
    before = model.evaluate(*digits, verbose=0)[0]
    model.fit(sampler, epochs=4, verbose=0, callbacks=[sampler.callback])
    losses = loss_function(model)((*digits, None))
    np.testing.assert_allclose(sampler.history.losses, losses, rtol=0.02, atol=0.02)
    np.testing.assert_array_equal(sampler.history.visits, 4)
    assert losses.mean() < 0.7 * before


def test_second_fit_goes_on(digits: tuple) -> None:
    histories = []
    for epochs in ((4,), (2, 2)):
        sampler = ErrorWeightedSampler(*digits, seed=0)
        model = dense_model(keras.optimizers.SGD(0.1))
        history = []
        for count in epochs:
            fit = {"epochs": count, "verbose": 0, "callbacks": [sampler.callback]}
            history += model.fit(sampler, **fit).history["loss"]
        histories.append(history)
    assert histories[0] == histories[1]


@pytest.mark.tensorflow
def test_under_a_strategy(digits: tuple) -> None:
    weights = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        with kerasopt.strategies.DataParallel(devices).scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        sampler = ErrorWeightedSampler(*digits, batch_size=30, seed=0)
        model.fit(sampler, epochs=3, verbose=0, callbacks=[sampler.callback])
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def resumable() -> Script:
    """Return a script that makes a sampler at the beginning of each run."""

    def data() -> dict:
        sampler = ErrorWeightedSampler(X, Y, 8, patience=1, seed=0)
        return {"x": sampler, "callbacks": [sampler.callback]}

    return Script(data, epochs=4)


@pytest.mark.parametrize(("every", "first"), [("epoch", False), (4, True)])
def test_resumed(every: Any, first: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    script = resumable()
    vars(script).update(every=every, first=first)
    expected = script(directory="whole")
    with pytest.raises(InterruptedError):
        script(BreakOff(2, 5))
    assert script() == expected


def test_state_in_the_middle_of_an_epoch() -> None:
    sampler, again = sampler_of(seed=1), sampler_of(seed=2)
    for _ in range(3):
        sampler.update(LOSSES)
    sampler.update(LOSSES[:8] + 1, ROWS[:8])
    again.callback.set_state(sampler.callback.get_state())
    sampler.update(LOSSES[:8], ROWS[:8])
    again.update(LOSSES[:8], ROWS[:8])
    np.testing.assert_array_equal(counts(again), counts(sampler))
    assert repr(again.get_state()) == repr(sampler.get_state())
    assert states([again.callback]).keys() == {"LossPass 1"}


def test_without_seed_that_of_keras() -> None:
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        drawn.append(ErrorWeightedSampler(ROWS, ROWS, 8).rows(0))
    np.testing.assert_array_equal(*drawn)


def test_shards(digits: tuple) -> None:
    x, y = digits[0][:127], digits[1][:127]
    seen = []
    for index in range(2):
        sampler = ErrorWeightedSampler(x, y, 8, seed=0, num_shards=2, shard_index=index)
        assert len(sampler) == 8
        model = dense_model(keras.optimizers.SGD(0.1))
        model.fit(sampler, epochs=4, verbose=0, callbacks=[sampler.callback])
        rows = np.unique(np.concatenate([sampler.rows(batch) for batch in range(8)]))
        assert (rows % 2 == index).all()
        assert (sampler.outliers.indices % 2 == index).all()
        losses = loss_function(model)((x, y, None))[index::2]
        np.testing.assert_allclose(sampler.history.losses, losses, rtol=1e-4, atol=1e-6)
        seen += [*rows]
    assert len(seen) == len(set(seen))


def test_outliers_are_noted() -> None:
    model = network(X)
    model.compile("sgd", "mse")
    y = np.where(np.arange(44) == 7, 30.0, Y[:, 0])
    sampler = ErrorWeightedSampler(X, y, 11, seed=0)
    model.fit(sampler, epochs=4, verbose=0, callbacks=[sampler.callback])
    assert sampler.outliers.indices[0] == 7
    assert [event.epoch for event in sampler.callback.events] == [3]
    assert sampler.callback.events[0].text.endswith("outliers")


def wrong_labels(data: tuple, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which 5 % are wrong, and which."""
    random = np.random.default_rng(seed)
    labels = data[1].copy()
    wrong = random.choice(len(labels), len(labels) // 20, replace=False)
    labels[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    return labels, wrong


def classifier(inputs: np.ndarray, units: int, rate: float) -> keras.Model:
    layers = keras.layers
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layers.Flatten()])
    model.add(layers.Dense(units, "relu"))
    model.add(layers.Dense(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=40)
    return model


def compare(train: tuple, test: tuple, seed: int, network: tuple, **fit: Any) -> list[float]:
    """Return the recall and precision of the list, and the test errors with and without."""
    labels, wrong = wrong_labels(train, seed)
    sampler = ErrorWeightedSampler(train[0], labels, fit.pop("batch_size"), seed=seed)
    weighted = {"x": sampler, "callbacks": [sampler.callback]}
    errors = []
    for data in (weighted, {"x": train[0], "y": labels, "batch_size": sampler.batch_size}):
        keras.utils.set_random_seed(seed)
        model = classifier(train[0], *network)
        model.fit(**data, **fit, verbose=0)
        errors.append(1 - model.evaluate(*test, batch_size=500, verbose=0)[1])
    listed = sampler.outliers.indices
    return [np.isin(wrong, listed).mean(), np.isin(listed, wrong).mean(), *errors]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_wrong_labels_of_digits(seed: int) -> None:
    """Most are listed, most that are listed are wrong, and what is learned is no worse."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = (bunch.images[..., None] / 16).astype("float32"), bunch.target
    fit = {"epochs": 10, "batch_size": 32}
    found = compare((x[:1400], y[:1400]), (x[1400:], y[1400:]), seed, (64, 0.003), **fit)
    recall, precision, error, uniform = found
    assert recall >= 0.85
    assert precision >= 0.6
    assert error <= uniform + 0.01


@pytest.mark.slow
@pytest.mark.tensorflow  # which TFDS needs to read
@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_of_fashion_mnist(shared_tfds: Path, seed: int) -> None:
    import tensorflow_datasets as tfds

    parts = {
        "split": ["train", "test"],
        "batch_size": -1,
        "as_supervised": True,
        "data_dir": shared_tfds,
    }
    train, test = (
        (np.asarray(x, "float32") / 255, np.asarray(y))
        for x, y in tfds.load("fashion_mnist", **parts)
    )
    fit = {"epochs": 5, "batch_size": 128}
    recall, precision, error, uniform = compare(train, test, seed, (128, 0.001), **fit)
    assert recall >= 0.9
    assert precision >= 0.5
    assert error <= uniform + 0.003


BAD = Case(
    sampler_of,
    bad=(
        ({"alpha": -1}, r"`alpha` must be a number in \[0, inf\)"),
        ({"floor": 1.5}, r"`floor` must be a number in \[0, 1\]"),
        ({"outlier_quantile": 98}, r"`outlier_quantile` must be a number in \[0, 1\]"),
        ({"importance_correction": 1}, "`importance_correction` must be True or False"),
        ({"patience": 0}, "`patience` must be an integer ≥ 1"),
        ({"batch_size": 41}, "`batch_size` must be at most the number of samples, 40. Received"),
        ({"seed": 0.5}, "`seed` must be an integer ≥ 0"),
        ({"sample_weight": np.ones(39)}, r"same number of rows. Received: \[39, 40\]"),
        ({"count": 0}, "must have samples, one for each worker at least. Received: 0 samples"),
        ({"y": None}, "`y` must be given.* For autoencoders pass `x` as targets"),
        ({"num_shards": 41, "shard_index": 40}, "Received: 40 samples, num_shards=41"),
        ({"num_shards": 2, "shard_index": 2}, "`shard_index` must be less than `num_shards`"),
    ),
)


@bad_rows(BAD)
def test_bad_arguments(case: Case, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        case.make(**arguments)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.ones(39), r"one for each of 40 samples. Received: losses of shape \(39,\)"),
        (-LOSSES, r"must be finite and ≥ 0.* 40 of 40\. If all are, training diverged"),
        (np.where(ROWS == 3, np.nan, LOSSES), r"Received: \[nan\] and others, 1 of 40"),
    ],
)
def test_bad_losses(losses: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler_of().update(losses)


def test_losses_that_are_negative_in_rounding() -> None:
    sampler = sampler_of()
    sampler.update(np.where(ROWS == 3, -1e-8, LOSSES))
    assert sampler.history.losses[3] == 0


def test_without_callback() -> None:
    model = network(X)
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"needs its callback .*callbacks=\[sampler.callback\]"):
        model.fit(ErrorWeightedSampler(X, Y, 8), epochs=2, verbose=0)
