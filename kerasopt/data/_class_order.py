"""An order in which classes take turns."""

from collections.abc import Iterator

import numpy as np


def class_order(labels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the places of labels 0, 1, … in random order, so that classes take turns.

    Each batch of `size` places has of each class its share, rounded down or up. Two places in a
    row share a class only where one has more than half of the batch.
    """
    counts = np.bincount(labels)
    # The batch that is smaller is dealt first and, as the order is turned round, comes last.
    classes = np.concatenate([*_batches(counts, size, random)])[::-1]
    order = np.empty(len(labels), np.int64)
    order[np.argsort(classes, kind="stable")] = np.argsort(labels + random.random(len(labels)))
    return order


def _batches(counts: np.ndarray, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the classes at the places of each batch."""
    total, last = int(counts.sum()), -1
    full, rest = divmod(total, size)
    sizes = [rest] * bool(rest) + [size] * full
    left, due = counts.copy(), random.random(len(counts))
    usual = counts * size // total  # the least in a whole batch
    for later, places in zip(range(len(sizes))[::-1], sizes, strict=True):
        least, part = np.divmod(counts * places, total)
        due += part / total
        more = left - least - later * usual  # than the least, in this batch and all later ones
        # With one more, a class that has almost half meets itself: in the batch, or at its ends.
        apart = np.where(2 * usual < size - 1, later, (2 * usual < size) * ((later + 1) // 2))
        urgent = 200 * (more > later) + 100 * (more > apart)
        turn = np.where((part > 0) & (more > 0), due + urgent, -np.inf)
        turn[last] -= 50 * (last >= 0 and 2 * (least[last] + 1) > places)
        chosen = np.argsort(-turn)[: places - least.sum()]
        due[chosen] -= 1
        least[chosen] += 1
        left -= least
        batch = _spread(least, counts, last, random)
        last = batch[-1]
        yield batch


def _spread(
    amounts: np.ndarray, counts: np.ndarray, last: int, random: np.random.Generator
) -> np.ndarray:
    """Return so many of each class, evenly spread; the first is not `last`, if that can be.

    Only the largest class can meet itself: those that do have none of it in between.
    """
    phase = random.random(len(amounts))
    phase[last] = 1.0 if last >= 0 else phase[last]
    classes = np.repeat(np.arange(len(amounts)), amounts)
    ranks = np.arange(len(classes)) - np.repeat(np.cumsum(amounts) - amounts, amounts)
    times = (ranks + phase[classes]) / amounts[classes]
    top = np.lexsort((counts, amounts))[-1]  # of equal ones that which is larger in all
    mine = classes == top
    sequence = np.argsort(times[~mine])
    gaps = np.searchsorted(times[~mine][sequence], times[mine])
    place = _apart(gaps, len(sequence), int(top == last)) + np.arange(len(gaps))
    batch = np.full(len(classes), top)
    batch[np.delete(np.arange(len(classes)), place)] = classes[~mine][sequence]
    return batch


def _apart(gaps: np.ndarray, end: int, first: int) -> np.ndarray:
    """Move items that share a gap to the next one; of the gaps 0 to `end` use those from `first`.

    The last is left free if there is room: the next batch may have to begin with this class.
    """
    count = np.arange(len(gaps))
    room = end - first  # without the last
    if len(gaps) > room + 1:
        return first * (end > 0) + count * (room + 1) // len(gaps)
    end -= len(gaps) <= room
    gaps = np.maximum.accumulate(np.maximum(gaps, first) - count)
    return np.minimum(gaps, end + 1 - len(gaps)) + count
