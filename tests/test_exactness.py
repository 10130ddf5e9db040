"""Replicas against one device, row by row."""

from collections.abc import Iterator

import keras
import pytest

from tests.exactness.compare import Row, differences, train

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() == "tensorflow":
    from tests.exactness.rows import ROWS
else:
    ROWS = ()

BOUNDS = {"loss": 1e-6, "weights": 1e-6, "history": 1e-6, "evaluate": 1e-6, "predict": 1e-5}
IN_FLOAT64 = ("uneven first", "fewer samples than replicas", "masked outputs", "everything")


@pytest.fixture
def float64() -> Iterator[None]:
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.filterwarnings("ignore:The state that these layers")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_three_replicas_equal_one_device(row: Row) -> None:
    largest = differences(train(row), row, 3)
    beyond = {name: d for name, d in largest.items() if d > row.close * BOUNDS.get(name, 1e-5)}
    assert not beyond


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name in IN_FLOAT64], ids=lambda r: r.name
)
def test_to_twelve_digits_in_float64(row: Row, float64: None) -> None:
    keras.config.set_dtype_policy("float64")
    largest = differences(train(row), row, 2)
    assert max(largest.values()) < 1e-12
