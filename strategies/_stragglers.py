"""How much longer a step takes because all wait for the slowest worker."""

import math

import numpy as np

from kerasopt._validation import check_count, check_number

# Nodes of the standard normal distribution: beyond ±12 there is less than 1e-32 of it.
NORMAL = np.linspace(-12.0, 12.0, 4801)
STEP = NORMAL[1] - NORMAL[0]
BELOW = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in NORMAL])


def straggler_factor(workers: int, variation: float, backups: int = 0) -> float:
    """Return by what a synchronous step is longer than that of a worker alone, on average.

    Each worker takes its mean time, in every step anew, times a factor X of log-normal
    distribution, log X ~ N(-σ²/2, σ²) with σ = `variation`. Of n + b workers that compute the step
    is over when n are done. Use it to see what waiting costs, and whether backup workers pay.

        f(n, 0) = E[max of n] = n E[Φ(z + σ)ⁿ⁻¹],       z ~ N(0, 1);   f(2, 0) = 2 Φ(σ / √2)
        f(n, b) = E[n-th smallest of m] = m! / ((n-1)! b!) E[Φ(z + σ)ⁿ⁻¹ Φ(-z - σ)ᵇ],   m = n + b

    The expectations, of one normal number, are summed to ten digits.

    Args:
        workers: Number n of workers that a step waits for, at least 1.
        variation: Standard deviation σ of the logarithm of the times, in [0, 3].
        backups: Number b of workers beside them, whose results, where they come last, are dropped,
            at least 0. Defaults to 0.

    Raises:
        TypeError: `workers` or `backups` is no integer, `variation` no number.
        ValueError: An argument is outside its range.

    Reference:
        Chen et al., Revisiting distributed synchronous SGD, 2016, on backup workers. David and
        Nagaraja, Order Statistics, 3rd edition, 2003, section 3.1.

    Example:
        >>> from kerasopt.strategies import straggler_factor
        >>> round(straggler_factor(64, 0.2), 3), round(straggler_factor(64, 0.2, backups=4), 3)
        (1.573, 1.323)
    """
    _check(workers, variation, backups)
    # exp(σ z - σ²/2) φ(z) = φ(z - σ): the mean is taken under the shifted density.
    density = np.exp(-((NORMAL - variation) ** 2) / 2) / math.sqrt(2 * math.pi)
    total = workers + backups
    logarithm = math.lgamma(total + 1) - math.lgamma(workers) - math.lgamma(backups + 1)
    with np.errstate(divide="ignore"):
        powers = logarithm + (workers - 1) * np.log(BELOW)
        if backups:
            powers = powers + backups * np.log(BELOW[::-1])
    return float(STEP * np.sum(np.exp(powers) * density))


def simulated_straggler_factor(
    workers: int, variation: float, backups: int = 0, steps: int = 10_000, seed: int = 0
) -> float:
    """Return the same as `straggler_factor`, by drawing the times of the workers.

    Use it to check the formula, or as a start for other distributions.

        f ≈ mean over steps of the n-th smallest of n + b numbers exp(σ z - σ²/2)

    Args:
        workers: Number n of workers that a step waits for, at least 1.
        variation: Standard deviation σ of the logarithm of the times, in [0, 3].
        backups: Number b of workers beside them, at least 0. Defaults to 0.
        steps: Number of steps to draw, at least 1. Defaults to 10,000.
        seed: Of the random numbers, at least 0. Defaults to 0.

    Raises:
        TypeError: As with `straggler_factor`; `steps` or `seed` is no integer.
        ValueError: An argument is outside its range.

    Reference:
        Dean and Barroso, The tail at scale, 2013.

    Example:
        >>> from kerasopt.strategies import simulated_straggler_factor
        >>> 1.56 < simulated_straggler_factor(64, 0.2) < 1.6
        True
    """
    _check(workers, variation, backups)
    check_count("steps", steps)
    check_count("seed", seed, least=0)
    normal = np.random.default_rng(seed).standard_normal((steps, workers + backups))
    last = np.partition(normal, workers - 1, axis=1)[:, workers - 1]
    return float(np.exp(variation * last - variation**2 / 2).mean())


def _check(workers: int, variation: float, backups: int) -> None:
    check_count("workers", workers)
    check_number("variation", variation, "[0, 3]")
    check_count("backups", backups, least=0)
