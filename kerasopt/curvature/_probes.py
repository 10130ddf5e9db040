"""Random vectors whose quadratic forms have the trace, and the diagonal, in their mean."""

from collections.abc import Iterator

import numpy as np

from kerasopt.curvature._curvature import Curvature

BLOCK = 16  # at a time


def probe(curvature: Curvature, kind: str, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of v ⊙ H v, whose mean over all rows estimates the diagonal of H.

    The v are random signs; where there would be as many of them as there are weights, they are unit
    vectors times √n, with which the mean is exact.
    """
    n, random = curvature.size, np.random.default_rng(seed)
    count = min(samples, n)
    for start in range(0, count, BLOCK):
        exact, shape = count == n, (BLOCK, n)
        v = np.sqrt(n) * np.eye(*shape, start) if exact else random.choice([-1.0, 1.0], shape)
        yield (v * curvature.products(v, kind))[: count - start]
