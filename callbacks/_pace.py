"""By how much a learning rate rises and falls."""

from math import ceil, log

FALLS = 3  # most powers of one fall


class Pace:
    """The factors of successive raises and falls of a rate.

    The p-th raise in a row is by up^p, the p-th fall in a row by down^p, with p ≤ `acceleration`
    and p ≤ `FALLS`; after falls the raises count from the one that makes up for a factor of `down`.
    """

    def __init__(
        self, up: float, down: float, acceleration: int, raises: int = 0, falls: int = 0
    ) -> None:
        self.up, self.down, self.acceleration = up, down, acceleration
        self.raises, self.falls = raises, falls

    def rise(self) -> float:
        """Return the factor of a raise."""
        self.raises, self.falls = self.raises + 1, 0
        return self.up ** min(max(self.raises, 1), self.acceleration)

    def fall(self) -> float:
        """Return the factor of a fall."""
        self.raises, self.falls = -ceil(log(self.down) / -log(self.up)), self.falls + 1
        return self.down ** min(self.falls, FALLS)
