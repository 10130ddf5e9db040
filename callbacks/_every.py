"""Every so many training batches."""

from typing import Any

from kerasopt._validation import check_count


class Every:
    """Counts training batches, and tells where another `number` of them is done.

    An execution of several steps is one call, so that `number` may be passed over. `count` goes on
    from one training to the next; the multiples are counted from the beginning of each.
    """

    def __init__(self, name: str, number: Any) -> None:
        self.number = check_count(name, number)
        self.count = self._begin = self._in_epoch = 0
        self._resumes = False

    def begin_training(self) -> None:
        """Count anew, unless a state has been set."""
        if not self._resumes:
            self._begin = self.count

    def begin_epoch(self) -> None:
        """Expect the first batch of an epoch."""
        self._in_epoch, self._resumes = 0, False

    def reached(self, batch: int, steps: int | None) -> bool:
        """Count up to `batch` of the `steps` of an epoch; return whether a multiple was reached."""
        before, done = self.count - self._begin, steps_done(batch, steps)
        self.count += done - self._in_epoch
        self._in_epoch = done
        return (self.count - self._begin) // self.number > before // self.number

    def get_state(self) -> list[int]:
        """Return where the counting is, also in the middle of an epoch."""
        return [self.count, self._begin, self._in_epoch]

    def set_state(self, state: list[int]) -> None:
        """Go on from what `get_state` returned."""
        self.count, self._begin, self._in_epoch = state
        self._resumes = True


def steps_done(batch: int, steps: int | None) -> int:
    """Return how many of the `steps` of an epoch are done; the last execution may be shorter."""
    return int(min(batch + 1, steps or batch + 1))


def position(epoch: int, batch: int, steps: int | None) -> float:
    """Return where in the training a batch ends, in epochs."""
    return epoch + (min(1.0, (batch + 1) / steps) if steps else 1.0)
