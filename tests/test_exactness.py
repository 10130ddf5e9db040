"""Replicas and workers against one device, row by row."""

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.exactness.compare import Row, differences, train, train_by_workers, train_on

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() == "tensorflow":
    from tests.exactness.rows import ROWS
else:
    ROWS = ()

BOUNDS = {"loss": 1e-6, "weights": 1e-6, "history": 1e-6, "evaluate": 1e-6, "predict": 1e-5}
IN_FLOAT64 = ("uneven first", "fewer samples than replicas", "masked outputs", "everything")
QUICK = (*IN_FLOAT64, "fast generators")
BY_WORKERS = (
    *QUICK,
    "several outputs",
    "add_loss",
    "activity regularisers",
    "BatchNormalization, empty",
    "Dropout",
    "gradient_accumulation_steps",
    "steps_per_execution",
    "run_eagerly",
    "custom compute_loss",
    "custom metric",
    "train_on_batch",
)

alone = functools.cache(train)


def rows(names: tuple[str, ...], quick: tuple[str, ...]) -> pytest.MarkDecorator:
    """Return rows, of which all but some are slow."""
    slow = {name: () if name in quick else pytest.mark.slow for name in names}
    named = [
        pytest.param(row, id=row.name, marks=slow[row.name]) for row in ROWS if row.name in slow
    ]
    return pytest.mark.parametrize("row", named)


def check(row: Row, together: dict[str, np.ndarray]) -> None:
    largest = differences(alone(row), together)
    beyond = {name: d for name, d in largest.items() if d > row.close * BOUNDS.get(name, 1e-5)}
    assert not beyond


@pytest.mark.filterwarnings("ignore:The state that these layers")
@rows(tuple(row.name for row in ROWS), quick=QUICK)
def test_three_replicas_equal_one_device(row: Row) -> None:
    check(row, train_on(3, row))


@pytest.fixture(scope="module")
def by_workers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Row], list]:
    """Return the results of the rows that were selected."""
    tests = [each for each in request.session.items if "by_workers" in each.fixturenames]
    names = [test.callspec.params["row"].name for test in tests]
    return train_by_workers(tmp_path_factory.mktemp("rows"), names)


@pytest.mark.alone
@rows(BY_WORKERS, quick=QUICK)
def test_two_workers_equal_one_device(row: Row, by_workers: Callable[[Row], list]) -> None:
    for results in by_workers(row):
        check(row, results)


@rows(IN_FLOAT64, quick=IN_FLOAT64[:2])
def test_to_twelve_digits_in_float64(row: Row, float64: None) -> None:
    assert max(differences(train(row), train_on(2, row)).values()) < 1e-12


@pytest.mark.slow
@pytest.mark.alone
def test_workers_to_twelve_digits_in_float64(float64: None, tmp_path: Path) -> None:
    results = train_by_workers(tmp_path, ["everything"], "float64")
    row = next(row for row in ROWS if row.name == "everything")
    assert max(differences(train(row), results(row)[1]).values()) < 1e-12
