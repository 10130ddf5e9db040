"""Every so many training batches."""

from typing import Any

from kerasopt._validation import check_count


class Every:
    """Counts training batches, and tells where another `number` of them is done.

    An execution of several steps is one call, so that `number` may be passed over.
    """

    def __init__(self, name: str, number: Any) -> None:
        self.number = check_count(name, number)
        self.count = self._in_epoch = 0

    def begin_epoch(self) -> None:
        """Expect the first batch of an epoch."""
        self._in_epoch = 0

    def reached(self, batch: int, steps: int | None) -> bool:
        """Count up to `batch` of the `steps` of an epoch; return whether a multiple was reached."""
        before, done = self.count, steps_done(batch, steps)
        self.count += done - self._in_epoch
        self._in_epoch = done
        return self.count // self.number > before // self.number


def steps_done(batch: int, steps: int | None) -> int:
    """Return how many of the `steps` of an epoch are done; the last execution may be shorter."""
    return min(batch + 1, steps or batch + 1)


def position(epoch: int, batch: int, steps: int | None) -> float:
    """Return where in the training a batch ends, in epochs."""
    return epoch + (min(1.0, (batch + 1) / steps) if steps else 1.0)
