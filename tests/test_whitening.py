"""`kerasopt.layers.Whitening`: what it learns, in one pass, from any data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kerasopt.layers import Standardize, Whitening

RANDOM = np.random.default_rng(0)
DATA = (RANDOM.normal(size=(600, 6)) @ RANDOM.normal(size=(6, 6)) + 9).astype("float32")
IMAGES = DATA.reshape(600, 3, 2, 1)
TARGETS = np.arange(600)


def numpy(tensor: Any) -> np.ndarray:
    """Return the values of a tensor."""
    return np.asarray(ops.convert_to_numpy(tensor))


def covariance(rows: Any) -> np.ndarray:
    """Return the covariance, over the samples, of all values of a sample."""
    rows = numpy(rows).astype("float64")
    return np.cov(rows.reshape(len(rows), -1), rowvar=False, bias=True)


def adapted(data: Any = DATA, **arguments: Any) -> Whitening:
    """Return a layer that has seen the data."""
    layer = Whitening(**{"epsilon": 0.0, **arguments})
    layer.adapt(data)
    return layer


class Batches(keras.utils.PyDataset):
    """Batches of seven, which count how often they are asked for."""

    asked = 0

    def __len__(self) -> int:
        return -(-len(DATA) // 7)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return DATA[7 * index : 7 * index + 7], TARGETS[7 * index : 7 * index + 7]


def overwritten() -> Iterator[np.ndarray]:
    """Yield one array again and again, with other values."""
    rows = np.empty((10, 6), "float32")
    for start in range(0, 600, 10):
        rows[:] = DATA[start : start + 10]
        yield rows


def in_tensorflow(*parts: np.ndarray, size: int = 7) -> Any:
    """Return a `tf.data.Dataset` of batches, on every backend."""
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(parts if parts[1:] else parts[0]).batch(size)


SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: DATA,
    "float64": lambda: DATA.astype("float64"),
    "tensor": lambda: ops.convert_to_tensor(DATA),
    "x": lambda: in_tensorflow(DATA),
    "x, y": lambda: in_tensorflow(DATA, TARGETS),
    "x, y, w": lambda: in_tensorflow(DATA, TARGETS, TARGETS, size=600),
    "PyDataset": Batches,
    "list": lambda: [DATA[:100], DATA[:0], (DATA[100:], TARGETS)],
    "generator": overwritten,
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_output_is_uncorrelated_with_variance_one(kind: str, source: str) -> None:
    layer = adapted(SOURCES[source](), kind=kind)
    out = numpy(layer(DATA))
    assert layer.samples == 600
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(covariance(out), np.eye(6), atol=1e-5)


def test_weights_are_those_of_the_covariance() -> None:
    layer = adapted()
    values, vectors = np.linalg.eigh(covariance(DATA))
    np.testing.assert_allclose(numpy(layer.variance), values[::-1], rtol=1e-6)
    cosines = np.abs(numpy(layer.components).T @ vectors[:, ::-1])
    np.testing.assert_allclose(cosines, np.eye(6), atol=1e-5)


def test_zca_is_the_inverse_root_of_the_covariance_and_keeps_images() -> None:
    values, vectors = np.linalg.eigh(covariance(IMAGES))
    least = float(np.median(values))
    root = vectors / np.sqrt(np.maximum(values, least)) @ vectors.T
    expected = (DATA - DATA.mean(axis=0, dtype="float64")) @ root
    out = numpy(adapted(IMAGES, kind="zca", epsilon=least)(IMAGES))
    assert out.shape == IMAGES.shape
    np.testing.assert_allclose(out, expected.reshape(IMAGES.shape), atol=1e-5)


@pytest.mark.parametrize("kind", ["pca", "zca"])
@pytest.mark.parametrize("n_components", [None, 2])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_invert_maps_back(kind: str, n_components: int | None, epsilon: float) -> None:
    arguments = {"kind": kind, "n_components": n_components, "epsilon": epsilon}
    there, back = (adapted(IMAGES, invert=invert, **arguments) for invert in (False, True))
    vectors = np.linalg.eigh(covariance(IMAGES))[1][:, ::-1][:, :n_components]
    mean = DATA.mean(axis=0, dtype="float64")
    expected = (DATA - mean) @ vectors @ vectors.T + mean
    np.testing.assert_allclose(
        numpy(back(there(IMAGES))), expected.reshape(IMAGES.shape), atol=1e-4
    )


def test_components_of_the_largest_variance_are_kept() -> None:
    few, all_of_them = adapted(n_components=2), adapted()
    assert few(DATA).shape == (600, 2)
    np.testing.assert_allclose(numpy(few(DATA)), numpy(all_of_them(DATA))[:, :2], atol=1e-5)


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_constant_features_do_not_blow_up(kind: str) -> None:
    data = np.concatenate([DATA, np.full((600, 1), 0.1, "float32"), DATA[:, :1]], axis=1)
    layer = adapted(data, kind=kind)
    out = numpy(layer(data + np.float32([0, 0, 0, 0, 0, 0, 50, 0])))
    assert np.abs(out).max() < 10
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance(out))[2:], 1, atol=1e-4)
    assert (numpy(layer.variance) > 0).sum() == 6


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_fewer_samples_than_features(kind: str) -> None:
    data = RANDOM.normal(size=(5, 40)).astype("float32")
    layer = adapted(data, kind=kind)
    values = np.linalg.eigvalsh(covariance(layer(data)))
    np.testing.assert_allclose(values[-4:], 1, atol=1e-5)
    np.testing.assert_allclose(values[:-4], 0, atol=1e-5)
    new = numpy(layer(RANDOM.normal(size=(50, 40)).astype("float32")))
    assert np.abs(new).max() < 10


@pytest.mark.parametrize("make", [Whitening, lambda: Standardize(axis=(1, 2, 3)), Standardize])
def test_merged_parts_are_one_pass_over_all(make: Callable[[], Any], tmp_path: Path) -> None:
    whole, *workers, merged = (make() for _ in range(5))
    whole.adapt(IMAGES)
    for worker, (start, end) in zip(workers, ((0, 1), (1, 400), (400, 600)), strict=True):
        worker.adapt(IMAGES[start:end])
        np.savez(tmp_path / f"{start}.npz", **worker.statistics)
    merged.merge(np.load(tmp_path / f"{start}.npz") for start in (0, 1, 400))
    assert merged.samples == whole.samples == 600
    for ours, theirs in zip(merged.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_sums_are_exact_where_the_mean_is_large() -> None:
    data = np.random.default_rng(1).normal(1e4, [1, 2, 3], (20_000, 3)).astype("float32")
    layer = adapted(data)
    exact = np.linalg.eigvalsh(covariance(data))[::-1]
    np.testing.assert_allclose(numpy(layer.variance), exact, rtol=2e-7)
    statistics = layer.statistics
    np.testing.assert_allclose(
        statistics["scatter"] / 20_000, covariance(data), rtol=1e-9, atol=1e-9
    )


@pytest.mark.tensorflow  # JAX has no float64 by default
def test_float64_resolves_what_float32_does_not() -> None:
    data = DATA.astype("float64") * 1e-3 + 1e6
    out = numpy(adapted(data, dtype="float64")(data))
    np.testing.assert_allclose(covariance(out), np.eye(6), atol=1e-4)
    assert not numpy(adapted(data).variance).any()


def test_adapt_takes_one_pass_and_forgets_what_was() -> None:
    batches, layer = Batches(), adapted(DATA * 5 + 3)
    layer.adapt(batches)
    assert batches.asked == len(batches)
    np.testing.assert_array_equal(numpy(layer(DATA)), numpy(adapted(Batches())(DATA)))


def test_progress_is_shown(capsys: pytest.CaptureFixture) -> None:
    layer = Whitening()
    layer.adapt(DATA)
    assert capsys.readouterr().out == ""
    layer.adapt(DATA, verbose=True)
    assert "600/600" in capsys.readouterr().out
    layer.adapt(Batches(), verbose=True)
    assert "600/Unknown" in capsys.readouterr().out


def model_of(layer: Any) -> keras.Model:
    """Return a compiled model of the layer and a linear unit."""
    model = keras.Sequential([keras.Input((3, 2, 1)), layer, keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("kind", ["pca", "zca"])
@pytest.mark.parametrize("invert", [False, True])
def test_saved_with_a_model(kind: str, invert: bool, tmp_path: Path) -> None:
    layer = adapted(IMAGES, kind=kind, n_components=2, invert=invert)
    inputs = keras.Input(layer.input_spec.shape[1:])
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rows = RANDOM.normal(size=(4, *inputs.shape[1:])).astype("float32")
    np.testing.assert_array_equal(numpy(loaded(rows)), numpy(layer(rows)))
    assert loaded.layers[-1].get_config() == layer.get_config()
    assert loaded.layers[-1].samples == 600
    assert loaded.output_shape == (None, *layer(rows).shape[1:])


@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_fit(jit_compile: bool) -> None:
    model = model_of(adapted(IMAGES))
    model.compile("sgd", "mse", jit_compile=jit_compile, steps_per_execution=2)
    before = model.layers[0].get_weights()
    target = (DATA @ np.arange(6.0) / 9)[:, None]
    losses = model.fit(IMAGES, target, epochs=4, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    for old, new in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_adapted_after_the_model_was_built() -> None:
    model = model_of(Whitening("zca", epsilon=0.0))
    model.layers[0].adapt(IMAGES)
    first = model.predict(IMAGES, verbose=0)
    model.layers[0].adapt(IMAGES * 3)
    assert not np.allclose(first, model.predict(IMAGES, verbose=0))
    np.testing.assert_allclose(first, model.predict(IMAGES * 3, verbose=0), atol=1e-4)


@pytest.mark.parametrize("layer", [Whitening, Standardize])
def test_set_weights_is_enough(layer: Any) -> None:
    first, second = layer(), layer()
    first.adapt(IMAGES)
    second.build((None, 3, 2, 1))
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(numpy(second(IMAGES)), numpy(first(IMAGES)))


@pytest.mark.parametrize("layer", [Whitening, Standardize])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32(layer: Any, policy: str) -> None:
    exact, mixed = layer(), layer(dtype=policy)
    for each in (exact, mixed):
        each.adapt(1e4 + 100 * IMAGES)
    out = keras.Sequential([keras.Input((3, 2, 1)), mixed]).predict(1e4 + 100 * IMAGES, verbose=0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, numpy(exact(1e4 + 100 * IMAGES)), atol=1e-5)


@pytest.mark.parametrize("layer", [Whitening("zca"), Whitening(n_components=3), Standardize()])
def test_in_tf_data(layer: Any) -> None:
    layer.adapt(in_tensorflow(IMAGES))
    out = np.concatenate([*in_tensorflow(IMAGES).map(layer).as_numpy_iterator()])
    np.testing.assert_allclose(out, numpy(layer(IMAGES)), atol=1e-5)


def test_after_standardize() -> None:
    data = DATA * np.float32([1e-6, 1, 1e6, 1, 1, 1])
    first = Standardize()
    first.adapt(data)
    layer = adapted(first(data))
    np.testing.assert_allclose(covariance(layer(first(data))), np.eye(6), atol=1e-4)
    correlation = np.corrcoef(data.astype("float64"), rowvar=False)
    np.testing.assert_allclose(
        numpy(layer.variance), np.linalg.eigvalsh(correlation)[::-1], rtol=1e-4
    )


def spoilt(*places: tuple[int, int]) -> np.ndarray:
    """Return data with values that are not finite."""
    data = DATA.copy()
    for place, value in zip(places, (np.nan, np.inf, -np.inf), strict=False):
        data[place] = value
    return data


def endless(kind: str) -> Any:
    """Return a dataset that never ends."""
    if kind == "tf.data":
        return in_tensorflow(DATA).repeat()

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index: int) -> Any:
            return DATA

    return Endless()


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: spoilt((412, 3)), r"Received: 1 values .* 600 samples, .* index \(412, 3\)"),
    "inf": (
        lambda: spoilt((9, 0), (7, 5), (8, 1)),
        r"`data` must be finite\. Received: 3 .*\(7, 5",
    ),
    "late": (
        lambda: [np.zeros((4000, 6)), spoilt((99, 1))],
        r"first 4600 samples, the first of them at index \(4099, 1\)",
    ),
    "empty": (lambda: DATA[:0], "`data` must hold at least one sample. Received: none"),
    "no batches": (lambda: iter(()), "`data` must hold at least one sample. Received: none"),
    "rank 1": (lambda: DATA[0], r"must have data of rank 2 or more.* Received: data of shape \(No"),
    "rank 0": (lambda: np.array(1.0), "`data` must have an axis of samples. Received: 1.0"),
    "endless tf.data": (lambda: endless("tf.data"), "`data` must end. Received: .*`dataset.take"),
    "endless PyDataset": (lambda: endless("PyDataset"), "`data` must end. Received"),
    "uneven": (
        lambda: [DATA, DATA[:, :5]],
        r"`data` must hold samples of shape \(6,\)\. Received: samples of shape \(5,\)",
    ),
    "number": (lambda: 3, "`data` must be an array, a tensor, a dataset .* Received: data=3"),
    "words": (lambda: np.array([["a"]]), "`data` must be numbers, .* Received: .* type ndarray"),
    "dict": (
        lambda: [{"image": DATA}],
        "`data` must be numbers, in batches x, .* Received: a batch of type dict; .* `map`",
    ),
    "few": (
        lambda: DATA[:3],
        "`data` must hold at least as many samples as `n_components`. Received: 3 samples, n_.*=4",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name: str) -> None:
    data, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        Whitening(n_components=4).adapt(data())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "ica"}, r"`kind` must be one of \['pca', 'zca'\]\. Received: kind='ica'"),
        ({"n_components": 0}, "`n_components` must be an integer ≥ 1. Received: n_components=0"),
        ({"n_components": 0.9}, "`n_components` must be an integer ≥ 1. Received"),
        ({"epsilon": -1}, r"`epsilon` must be a number in \[0, inf\)"),
        ({"invert": 1}, "`invert` must be True or False. Received: invert=1"),
        ({"n_components": 7}, "`n_components` must be at most the number of features, 6. Received"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        adapted(**arguments)


@pytest.mark.parametrize("layer", [Whitening("zca"), Standardize()])
def test_not_adapted(layer: Any) -> None:
    with pytest.raises(ValueError, match=r"must be adapted before it is called\. Received"):
        model_of(layer).predict(IMAGES, verbose=0)
    with pytest.raises(ValueError, match=r"`statistics` are there after `adapt`"):
        layer.statistics  # noqa: B018


def test_not_adapted_when_saved(tmp_path: Path) -> None:
    model_of(Whitening()).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"must be adapted before it is called\. Received"):
        keras.saving.load_model(tmp_path / "model.keras").predict(IMAGES, verbose=0)


def test_other_shapes_are_refused() -> None:
    layer = adapted()
    with pytest.raises(ValueError, match=r"expected shape=\(None, 6\), found shape=\(4, 5\)"):
        layer(DATA[:4, :5])
    with pytest.raises(ValueError, match=r"`data` must hold samples of shape \(6,\)"):
        layer.adapt(IMAGES)
    with pytest.raises(ValueError, match="with `invert` and `kind='pca'` must be adapted before"):
        Whitening(invert=True)(DATA)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "`parts` must hold the `statistics` of one layer or more. Received: none"),
        ([{"mean": 0}], "`parts` must be the `statistics` of `Whitening` layers. Received: {'mea"),
    ],
)
def test_bad_parts(parts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Whitening().merge(parts)


def test_parts_of_another_layer_are_refused() -> None:
    other = Standardize()
    other.adapt(DATA)
    with pytest.raises(ValueError, match="`parts` must be the `statistics` of `Whitening` layers"):
        Whitening().merge([other.statistics])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_fashion_mnist(kind: str, shared_tfds: Path) -> None:
    import tensorflow_datasets as tfds

    images = tfds.load("fashion_mnist", split="train", data_dir=shared_tfds, batch_size=-1)["image"]
    images = np.asarray(images)
    layer = adapted(images, kind=kind, epsilon=1e-5)  # the default
    out = numpy(layer(images))
    assert layer.samples == 60_000
    np.testing.assert_allclose(covariance(out), np.eye(784), atol=1e-3)
