"""What callbacks of one `fit` know of each other: who there is, who acts, and what was done."""

from typing import NamedTuple

import keras

from kerasopt._callers import callers

RATE_DRIVERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


class Event(NamedTuple):
    """Something that a callback did to the training, to be marked in its curves."""

    epoch: float  # from 1: the epoch after which, or in the middle of which, it happened
    text: str  # two or three words, such as "rate × 0.7"


class ActingCallback(keras.callbacks.Callback):
    """A callback that changes the training, and keeps what it did in `events`."""

    drives_learning_rate = False  # whether it sets the rate in every epoch or so

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def note(self, epoch: float, text: str) -> None:
        """Keep an event."""
        self.events.append(Event(epoch, text))


def callbacks_of_fit() -> list[keras.callbacks.Callback]:
    """Return the callbacks of the `fit` that is calling, in their order; without one, none."""
    for names in callers():
        if isinstance(caller := names.get("self"), keras.callbacks.CallbackList):
            return list(caller.callbacks)
    return []


def check_one_rate_driver() -> None:
    """Raise if more than one of the callbacks of the calling `fit` sets the learning rate."""
    drivers = [
        type(callback).__name__
        for callback in callbacks_of_fit()
        if isinstance(callback, RATE_DRIVERS) or getattr(callback, "drives_learning_rate", False)
    ]
    if len(drivers) > 1:
        raise ValueError(
            "`callbacks` must hold one callback that sets the learning rate: each would undo what "
            f"the other did. Received: {drivers}. Keep one of them."
        )
