"""Where an update runs: in all replicas, or on the one device there is."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

TENSORFLOW = keras.backend.backend() == "tensorflow"
if TENSORFLOW:
    from kerasopt.optimizers import _tensorflow_devices as _backend
else:
    from kerasopt.optimizers import _one_device as _backend  # type: ignore[no-redef]

apply_when = _backend.apply_when
assign_when = _backend.assign_when
beside = _backend.beside
devices_of = _backend.devices_of
gradient_of = _backend.gradient_of
in_one_pass = _backend.in_one_pass
in_turn = _backend.in_turn
on_each_copy = _backend.on_each_copy
outside_replicas = _backend.outside_replicas
stop_when = _backend.stop_when
summed = _backend.summed


def everywhere(function: Callable[..., None], weights: Sequence[Any], *rest: Any) -> None:
    """Call `function(weights, *rest)` once for each copy of the weights, from any context."""
    outside_replicas(functools.partial(on_each_copy, function), weights, *rest)
