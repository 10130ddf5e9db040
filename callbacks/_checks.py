"""What callbacks ask of the model and of what `fit` logs."""

from collections.abc import Iterable

import keras


def check_built(model: keras.Model, name: str) -> None:
    """Raise if the variables of a model are not there yet."""
    if not model.built:
        raise ValueError(
            f"The model must be built before `fit` with `{name}`: give it an `Input`, or call it "
            f"on a batch. Received: {type(model).__name__}, not built"
        )


def logged(monitor: str, logs: dict[str, float]) -> float:
    """Return a value that `fit` logged."""
    if monitor not in logs:
        raise not_logged(monitor, logs)
    return float(logs[monitor])


def not_logged(monitor: str, names: Iterable[str], way_out: str = "") -> ValueError:
    """Return the error that `monitor` is not among the `names` of what `fit` logs."""
    return ValueError(
        f"`monitor` must be a value that `fit` logs. Received: monitor={monitor!r}, logged: "
        f"{sorted(names)}. For a value of the validation set pass `validation_data` or "
        f"`validation_split` to `fit`{way_out}."
    )
