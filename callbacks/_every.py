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

    def reached(self, batch: int) -> bool:
        """Count up to `batch` of the epoch; return whether a multiple of `number` was reached."""
        before = self.count
        self.count += batch + 1 - self._in_epoch
        self._in_epoch = batch + 1
        return self.count // self.number > before // self.number
