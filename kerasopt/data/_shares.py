"""Systematic sampling: in proportion to weights, with as little chance as there can be."""

import numpy as np

BLOCK = 32


class Shares:
    """How often places are due, in blocks whose sums are known: few are looked at in a draw."""

    def __init__(self, shares: np.ndarray) -> None:
        self._count = len(shares)
        self._blocks = np.zeros((-(-len(shares) // BLOCK), BLOCK))
        self._flat = self._blocks.reshape(-1)
        self._flat[: self._count] = shares
        self._totals = self._blocks.sum(axis=1)

    def put(self, places: np.ndarray, shares: np.ndarray) -> None:
        """Change what is due to these places."""
        self._flat[places] = shares
        blocks = places // BLOCK
        self._totals[blocks] = self._blocks[blocks].sum(axis=1)

    def draw(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return `count` places and, for each, the mean share over its own.

        They are in random order, and each place is there as often as is its due, rounded down or
        up: marks lie at equal distances along the shares, laid end to end, the first at random.
        """
        ends = np.cumsum(self._totals)
        marks = (np.arange(count) + random.random()) * (ends[-1] / count)
        blocks = np.minimum(np.searchsorted(ends, marks, side="right"), len(ends) - 1)
        sums = np.cumsum(self._blocks[blocks], axis=1)
        beyond = sums <= (marks - (ends - self._totals)[blocks])[:, None]
        places = np.minimum(blocks * BLOCK + beyond.sum(axis=1), self._count - 1)
        random.shuffle(places)
        return places, ends[-1] / self._count / self._flat[places]
