"""What is known of the losses of samples."""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np


@dataclass
class LossHistory:
    """The losses of samples, and which of them stay in the top.

    The top are the samples whose mean loss lies above a limit, and a streak is for how many visits
    in a row a sample was there. As many losses as there are samples make an epoch, with which the
    limit and the mean share are taken anew: between, a loss changes what is known of its sample.
    """

    losses: np.ndarray  # the newest
    means: np.ndarray  # of all losses so far
    visits: np.ndarray
    streaks: np.ndarray
    epochs: int = 0
    seen: int = 0  # losses in this epoch
    limit: float = inf
    mean: float = 1.0  # share of those that do not stay in the top

    @classmethod
    def of(cls, count: int) -> "LossHistory":
        """Return that of samples which have had no losses."""
        none = np.zeros(count, int)
        return cls(np.ones(count), np.zeros(count), none, none.copy())

    def update(self, places: np.ndarray, losses: np.ndarray, quantile: float) -> None:
        """Take in the losses of the samples at these places."""
        self.visits[places] += 1
        self.losses[places] = losses
        self.means[places] += (losses - self.means[places]) / self.visits[places]
        self.seen += len(places)
        if self.seen >= len(self.losses):
            self.seen, self.epochs = 0, self.epochs + 1
            self.limit = _limit(self.means, quantile)
        in_top = self.means[places] > self.limit
        self.streaks[places] = np.where(in_top, self.streaks[places] + 1, 0)

    def outliers(self, patience: int) -> np.ndarray:
        """Return the places of those that stay in the top, largest means first."""
        listed = np.flatnonzero(self.streaks >= patience)
        return listed[np.argsort(-self.means[listed], kind="stable")]

    def take_mean(self, alpha: float, patience: int) -> None:
        """Find the mean share of those that do not stay in the top."""
        self.mean = float((self.losses[self.streaks < patience] ** alpha).mean())

    def shares(self, places: Any, alpha: float, floor: float, patience: int) -> np.ndarray:
        """Return how often samples are due: outliers no more often than the others in the mean."""
        powers = self.losses[places] ** alpha
        if not self.epochs or not self.mean:
            return np.ones_like(powers)
        held = np.minimum(powers, self.mean)
        shares = np.where(self.streaks[places] >= patience, held, powers)
        return np.maximum(shares, floor * self.mean)


def _limit(means: np.ndarray, quantile: float) -> float:
    """Return √(a b) of the means a in the top quantile and b of the others, or its beginning."""
    start = np.quantile(means, quantile)
    top = means > start
    if not top.any():
        return inf
    return float(min(start, np.sqrt(means[top].mean() * means[~top].mean())))
