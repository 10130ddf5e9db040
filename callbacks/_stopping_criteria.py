"""The criteria of early stopping, as functions of the errors after each epoch so far."""

from collections.abc import Callable, Sequence
from math import inf

STRIP = 5  # epochs


def generalisation_loss(
    errors: Sequence[float], losses: Sequence[float], alpha: float
) -> bool | None:
    """Return whether GL > α: the error is α per cent above its minimum."""
    best = min(errors)
    return 100 * (errors[-1] - best) > alpha * abs(best)


def progress_quotient(
    errors: Sequence[float], losses: Sequence[float], alpha: float
) -> bool | None:
    """Return whether GL / P > α, at the end of a strip; within one, None."""
    if len(errors) % STRIP:
        return None
    return generalisation_loss(errors, losses, alpha * progress(losses[-STRIP:]))


def progress(strip: Sequence[float]) -> float:
    """Return P: by how many per mille the mean loss of a strip is above its minimum."""
    least = min(strip)
    gain = sum(strip) / len(strip) - least
    if gain <= 0:
        return 0.0
    return 1000 * gain / abs(least) if least else inf


def uprising(errors: Sequence[float], losses: Sequence[float], alpha: float) -> bool | None:
    """Return whether the error rose over a strip, at its end; within it, None."""
    if len(errors) % STRIP:
        return None
    return len(errors) > STRIP and errors[-1] > errors[-1 - STRIP]


Criterion = Callable[[Sequence[float], Sequence[float], float], bool | None]
CRITERIA: dict[str, Criterion] = {
    "GL": generalisation_loss,
    "PQ": progress_quotient,
    "UP": uprising,
}
ALPHAS = {"GL": 5.0, "PQ": 3.0}
