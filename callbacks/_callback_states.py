"""What callbacks, ours and Keras' own, remember between epochs."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import keras

# What Keras' callbacks remember; they have no methods for it.
REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "best_weights", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.History: ("epoch", "history"),
}


@runtime_checkable
class Stateful(Protocol):
    """A callback that says itself what it remembers.

    `Resume` sets the state after `on_train_begin` of all callbacks, and in the middle of an epoch
    once more after `on_epoch_begin`; by hand it is set before the training.
    """

    def get_state(self) -> dict[str, Any]:
        """Return plain values, lists and arrays."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""


def states(callbacks: Iterable[keras.callbacks.Callback]) -> dict[str, Any]:
    """Return what the callbacks remember, by their names."""
    return {
        name: callback.get_state()
        if isinstance(callback, Stateful)
        else {attribute: getattr(callback, attribute) for attribute in _remembered(callback)}
        for name, callback in _named(callbacks)
    }


def set_states(callbacks: Iterable[keras.callbacks.Callback], kept: dict[str, Any]) -> None:
    """Have the callbacks remember `kept`; warn if they are not those it came from."""
    named = dict(_named(callbacks))
    if named.keys() != kept.keys():
        new, gone = sorted(named.keys() - kept.keys()), sorted(kept.keys() - named.keys())
        warnings.warn(
            "`callbacks` are not those of the training before its interruption: "
            f"{new} begin anew, and what {gone} remembered is left out.",
            stacklevel=2,
        )
    for name in named.keys() & kept.keys():
        if isinstance(named[name], Stateful):
            named[name].set_state(kept[name])
        else:
            vars(named[name]).update(kept[name])


def _named(
    callbacks: Iterable[keras.callbacks.Callback],
) -> Iterator[tuple[str, Any]]:
    """Yield the callbacks that remember anything, named by class and number."""
    numbers: Counter[str] = Counter()
    for callback in callbacks:
        if isinstance(callback, Stateful) or _remembered(callback):
            kind = type(callback).__name__
            numbers[kind] += 1
            yield f"{kind} {numbers[kind]}", callback


def _remembered(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in REMEMBERED.items() if isinstance(callback, kind)), ())
