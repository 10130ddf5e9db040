"""The generator of the layers: is it as good as random, and the same wherever it runs?"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from kerasopt.layers import _random

MILLION = 1_000_000
SEEDS = (0, 1, 2, 12345, 2**32 - 1)


def seed(first: int, calls: int = 0) -> Any:
    """Return the seed that a `SeedGenerator` gives after some calls."""
    generator = keras.random.SeedGenerator(first)
    generator.state.assign([first, calls])
    return generator.next()


def normal(first: int, calls: int = 0, shape: tuple[int, ...] = (MILLION,)) -> np.ndarray:
    return ops.convert_to_numpy(_random.normal(seed(first, calls), shape))


def bits(first: Any, calls: Any, place: Any) -> np.ndarray:
    """Return what the generator is defined to be, in NumPy; the arguments are broadcast."""

    def mix(h: np.ndarray) -> np.ndarray:
        for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
            h = (h ^ (h >> shift)) * factor % 2**32
        return h

    k0, k1, i = (np.asarray(each, "uint64") for each in (first, calls, place))
    a, b = mix(k1 ^ mix(k0 ^ 0x9E3779B9)), mix(k0 ^ mix(k1 ^ 0x85EBCA6B))
    return mix(mix(mix(i ^ a) ^ b) ^ a)


def uniform(h: np.ndarray) -> np.ndarray:
    return (h // 2**9 + 0.5) / 2**23


def correlations(rows: np.ndarray) -> np.ndarray:
    """Return the correlations of all pairs of rows, in units of what is left to chance."""
    each = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    return np.abs(each) * rows.shape[1] ** 0.5


@pytest.mark.parametrize("first", SEEDS)
@pytest.mark.parametrize("calls", [0, 7])
def test_numbers_are_those_of_the_definition(first: int, calls: int) -> None:
    place = np.arange(6000)
    expected = uniform(bits(first, calls, place)).reshape(10, 20, 30)
    drawn = ops.convert_to_numpy(_random.uniform(seed(first, calls), (10, 20, 30)))
    np.testing.assert_array_equal(drawn, expected.astype("float32"))
    z = normal(first, calls, (6000,))
    np.testing.assert_allclose(z, stats.norm.ppf(expected.ravel()), rtol=1e-6)


def test_quantile_of_all_numbers_that_can_be_drawn() -> None:
    u = uniform(2**9 * np.arange(2**23))
    z = _random._quantile(_random.BACKEND, ops.convert_to_tensor(u, "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(z), special.ndtri(u), rtol=1e-6)


@pytest.mark.parametrize("first", SEEDS)
def test_normal_by_kolmogorov_and_smirnov(first: int) -> None:
    z = normal(first).astype("float64")
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert abs(stats.skew(z)) < 4 * (6 / MILLION) ** 0.5
    assert abs(stats.kurtosis(z)) < 4 * (24 / MILLION) ** 0.5
    assert 4.5 < np.abs(z).max() < 5.5


@pytest.mark.parametrize(
    "draws",
    [
        lambda n: bits(3, np.arange(n)[:, None], np.arange(1000)),  # calls
        lambda n: bits(np.arange(n)[:, None], 0, np.arange(1000)),  # seeds
        lambda n: bits(np.arange(n * 1000).reshape(n, -1), 0, 0),  # the first number of each seed
        lambda n: bits(3, np.arange(n * 1000).reshape(n, -1), 0),  # the first number of each call
        lambda n: bits(3, 0, np.arange(n)[:, None] + n * np.arange(1000)),  # a column
    ],
    ids=["calls", "seeds", "first of seeds", "first of calls", "stride"],
)
def test_p_values_are_uniform(draws: Callable[[int], np.ndarray]) -> None:
    rows = uniform(draws(500))
    assert stats.kstest(stats.kstest(rows, "uniform", axis=1).pvalue, "uniform").pvalue > 0.01
    pairs = np.histogram2d(rows[:, :-1].ravel(), rows[:, 1:].ravel(), 64)[0]
    assert 0.01 < stats.chisquare(pairs.ravel()).pvalue < 0.99


def test_millions_are_neither_uneven_nor_too_even() -> None:
    statistic, bins = 0.0, 2**16
    for first in range(8):
        counts = np.bincount(bits(first, 0, np.arange(MILLION)) >> 16, minlength=bins)
        statistic += stats.chisquare(counts).statistic
    assert 0.01 < stats.chi2.sf(statistic, 8 * (bins - 1)) < 0.99


def test_bits_are_fair_and_independent() -> None:
    h = bits(3, 0, np.arange(40_000))
    signs = 1 - 2.0 * (h >> np.arange(32, dtype="uint64")[:, None] & 1)
    assert np.abs(signs.mean(axis=1)).max() < 4 / 40_000**0.5
    assert correlations(signs).max() < 4.5
    assert correlations(np.concatenate([signs[:, 1:], signs[:, :-1]])).max() < 5


@pytest.mark.parametrize("word", range(3))
def test_each_bit_of_seed_call_and_place_turns_half_of_all_bits(word: int) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, (3, 4000, 1), dtype="uint64")
    each = np.arange(32, dtype="uint64")
    flipped = [w ^ 2**each if i == word else w for i, w in enumerate(words)]
    turned = (bits(*words) ^ bits(*flipped))[..., None] >> each & 1
    assert np.abs(turned.mean(axis=0) - 0.5).max() < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("of", [np.asarray, np.abs, np.sign], ids=["values", "sizes", "signs"])
def test_neighbours_are_not_correlated(of: Callable[[np.ndarray], np.ndarray]) -> None:
    z = of(normal(3))
    z = z - z.mean()
    for lag in (1, 2, 3, 4, 16, 32, 96, 256, 1024, 3072):
        r = np.mean(z[lag:] * z[:-lag]) / z.var()
        assert abs(r) < 4 / 1000, lag


@pytest.mark.parametrize(
    "rows",
    [
        lambda: [normal(5, 0, (64, 32, 32, 3))[i].ravel() for i in range(64)],
        lambda: [normal(5, calls, (4096,)) for calls in range(64)],
        lambda: [normal(first, 0, (4096,)) for first in range(64)],
    ],
    ids=["images", "calls", "seeds"],
)
def test_draws_are_not_correlated(rows: Callable[[], list[np.ndarray]]) -> None:
    draws = np.array(rows())
    assert correlations(draws).max() < 4.5  # of 2016 pairs
    assert correlations(draws**2).max() < 4.5 * 1.2  # the tails of products of squares are long


@pytest.mark.parametrize(
    ("first", "calls"), [(1, 0), (2, 0), (0, 1), (0, 2), (2**16, 0), (0, 2**16)]
)
def test_no_draw_is_another_one_shifted_or_permuted(first: int, calls: int) -> None:
    place = np.arange(2**18)
    one, other = bits(0, 0, place), bits(first, calls, place)
    # 2¹⁸ and 2¹⁸ numbers of 2³² have 16 in common by chance.
    assert np.intersect1d(one, other).size < 40
    one, other = (np.fft.rfft(stats.norm.ppf(uniform(h))) for h in (one, other))
    at_all_lags = np.fft.irfft(one * other.conj()) / 2**18
    assert np.abs(at_all_lags).max() < 6 / 2**9


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_share_that_is_dropped(rate: float) -> None:
    factors = ops.convert_to_numpy(_random.dropout(seed(1), (MILLION,), rate))
    np.testing.assert_allclose(np.unique(factors), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs(np.mean(factors == 0) - rate) < 4 * (rate * (1 - rate) / MILLION) ** 0.5


def modes(function: Callable[[Any], Any]) -> list[np.ndarray]:
    """Return what a function of a seed gives as it is, in a graph and compiled by XLA."""
    if keras.backend.backend() == "jax":
        import jax

        ways = [function, jax.jit(function)]
    else:
        import tensorflow as tf

        compiled = [tf.function(function, jit_compile=j, autograph=False) for j in (False, True)]
        ways = [function, *compiled]
    return [ops.convert_to_numpy(way(seed(9, 4))) for way in ways]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_mode_draws_the_same(dtype: str) -> None:
    first, *others = modes(lambda key: _random.normal(key, (300, 400), 1.0, 2.0, dtype))
    assert str(first.dtype) == dtype
    for other in others:
        apart = np.abs(other.astype("float64") - first.astype("float64"))
        assert apart.max() <= (2e-6 if dtype == "float32" else 0.07)
        assert np.mean(apart > 2e-6) < 1e-3  # else rounded to the neighbour in few places
    for draw in (_random.uniform, lambda key, shape: _random.dropout(key, shape, 0.3, dtype)):
        first, *others = modes(lambda key, draw=draw: draw(key, (300, 400)))
        for other in others:
            np.testing.assert_array_equal(other, first)


@pytest.mark.tensorflow
def test_many_ranks_and_sizes_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for rank in range(8):
        assert _random.uniform(seed(1), (2,) * rank).shape == (2,) * rank
    assert "retracing" not in caplog.text
