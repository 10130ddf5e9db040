"""Logged values of finished trainings, in any form in which Keras leaves them."""

import csv
from collections.abc import Mapping
from math import nan
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

History: TypeAlias = keras.callbacks.Callback | Mapping[str, Any] | str | PathLike[str]


def read_history(name: str, history: Any) -> tuple[list[int], dict[str, list[float]]]:
    """Return epochs, from 1, and the values of each metric: not-a-number where none was logged.

    Args:
        name: Name of the argument, for the text of errors.
        history: What `fit` returned or a `LearningCurve`; a dictionary of lists; or the path of a
            file that `keras.callbacks.CSVLogger` wrote.
    """
    if isinstance(history, str | PathLike):
        columns = _read_csv(name, Path(history))
    elif isinstance(history, Mapping):
        columns = {key: list(values) for key, values in history.items()}
    elif isinstance(getattr(history, "history", None), Mapping):
        columns = {key: list(values) for key, values in history.history.items()}
    else:
        raise TypeError(
            f"`{name}` must be what `fit` returned, a dictionary of lists, or the path of a CSV "
            f"file. Received: {name}={history!r}"
        )
    epochs = columns.pop("epoch", None)
    count = max(map(len, columns.values()), default=0)
    if not count:
        raise ValueError(f"`{name}` must hold the values of one epoch at least. Received: none")
    numbers = range(1, count + 1) if epochs is None else [int(epoch) + 1 for epoch in epochs]
    return list(numbers), {key: _spread(values, count) for key, values in columns.items()}


def _spread(values: list[Any], count: int) -> list[float]:
    """Return the values at the epochs in which they were logged: every so many."""
    every = count // max(1, len(values))
    spread = [nan] * count
    for place, value in enumerate(values, start=1):
        spread[min(place * every, count) - 1] = float(value)
    return spread


def _read_csv(name: str, path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"`{name}` must be a file. Received: {name}={str(path)!r}")
    text = path.read_text().splitlines()
    separator = max(",;\t", key=text[0].count) if text else ","
    table = list(csv.DictReader(text, delimiter=separator))
    return {
        key: [float(row[key]) if row[key] not in ("", "NA") else nan for row in table]
        for key in (table[0] if table else ())
    }


def finite(epochs: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs that have a finite value, and these."""
    epochs, values = np.asarray(epochs, float), np.asarray(values, float)
    there = np.isfinite(values)
    return epochs[there], values[there]
