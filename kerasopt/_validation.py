"""The checks that constructors make of their arguments."""

from collections.abc import Sequence
from numbers import Real
from typing import Any


def check_number(name: str, value: Any, interval: str) -> float:
    """Return `value` as a float if it lies in `interval`, such as `"[0, 1)"`; else raise."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}")
    number = float(value)
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    if not (above and below):  # not-a-number fails both
        raise ValueError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}")
    return number


def check_range(name: str, value: Any, interval: str = "(-inf, inf)") -> tuple[float, float]:
    """Return `value` as a pair of floats, low ≤ high, both in `interval`; else raise."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"`{name}` must be a pair (low, high). Received: {name}={value!r}")
    low, high = (check_number(name, bound, interval) for bound in value)
    if low > high:
        raise ValueError(f"`{name}` must be a pair low ≤ high. Received: {name}={value!r}")
    return low, high


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` if it is an integer of at least `least`; else raise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer ≥ {least}. Received: {name}={value!r}")
    if value < least:
        raise ValueError(f"`{name}` must be an integer ≥ {least}. Received: {name}={value!r}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> Any:
    """Return `value` if it is one of `choices`; else raise."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}. Received: {name}={value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False; else raise."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return value


def check_names(name: str, value: Any) -> list[str] | None:
    """Return `value` as a list if it is a sequence of strings, or None; else raise."""
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"`{name}` must be a list of names. Received: {name}={value!r}")
    return list(value)
