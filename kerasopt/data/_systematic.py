"""Systematic sampling: in proportion to weights, with as little chance as there can be."""

import numpy as np

BLOCK = 32  # shares, of which sums are taken: for few places the sums within most are not needed


def systematic(shares: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return `count` places, in random order, each as often as is its due, rounded down or up.

    Marks lie at equal distances along the shares, laid end to end, the first at random.
    """
    totals = np.add.reduceat(shares, np.arange(0, len(shares), BLOCK))
    ends = np.cumsum(totals)
    marks = (np.arange(count) + random.random()) * (ends[-1] / count)
    blocks = np.minimum(np.searchsorted(ends, marks, side="right"), len(ends) - 1)
    within = blocks[:, None] * BLOCK + np.arange(BLOCK)
    sums = np.cumsum(shares[np.minimum(within, len(shares) - 1)], axis=1)
    beyond = sums <= (marks - (ends - totals)[blocks])[:, None]
    places = np.minimum(blocks * BLOCK + beyond.sum(axis=1), len(shares) - 1)
    random.shuffle(places)
    return places
