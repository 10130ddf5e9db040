"""Where in its data `fit` begins: all that this asks of Keras' inside."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kerasopt._callers import callers


def calling_fit() -> tuple[keras.callbacks.CallbackList, Any]:
    """Return the callbacks and the epochs, as Keras iterates over them, of the `fit` that calls."""
    for names in callers():
        if "epoch_iterator" in names and "callbacks" in names:
            return names["callbacks"], names["epoch_iterator"]
    raise RuntimeError(
        "`Resume` must be called by `fit` of a Keras model: a loop of your own has no position "
        "that it could restore. Pass it in `callbacks` to `fit`."
    )


def begin_at(model: keras.Model, epoch: int | None) -> None:
    """Have `fit`, which is calling, begin at an epoch, counted from 0; None forgets it."""
    model._initial_epoch = epoch


def beginning(model: keras.Model, initial_epoch: int) -> int:
    """Return the epoch to begin at: that which a callback has set, or the given one."""
    return model._initial_epoch or initial_epoch


def pass_over(epochs: Any, count: int) -> None:
    """Leave the data as it is after `count` epochs, reading as little of it as can be.

    The iterators are begun that would have been: datasets shuffle by their number.
    """
    for _ in range(count):
        with epochs.catch_stop_iteration():
            # Without a known end, or where one iterator serves all epochs, batches must be read.
            every = epochs.steps_per_epoch or not epochs.num_batches
            for begin, end, iterator in epochs:
                # A generator, which reads data on JAX, begins with its first batch.
                first = begin == 0 and inspect.isgenerator(iterator)
                for _ in range(begin, end + 1) if every else range(first):
                    next(iterator)


def begin_after(epochs: Any, steps: int, prepare: Callable[[Any], None]) -> None:
    """Have the next epoch begin after so many steps, the batches of which are read and left out.

    `prepare` is called with the last of them before training begins. Callbacks see none of this.
    """
    enumerate_steps = epochs._enumerate_iterator

    def remaining() -> Iterator[tuple[int, int, Any]]:
        del epochs._enumerate_iterator  # the epochs after this one are whole
        numbered, batch = enumerate_steps(), None
        for begin, end, iterator in numbered:
            if begin >= steps:
                break
            for _ in range(begin, end + 1):
                batch = next(iterator, None)
        if begin != steps or batch is None:
            raise ValueError(
                f"The data must have more than the {steps} batches an epoch that were trained on "
                "before the interruption, and `steps_per_execution` must be the same. Received: "
                f"{begin} batches"
            )
        prepare(batch)
        yield begin, end, iterator
        yield from numbered

    epochs._enumerate_iterator = remaining
