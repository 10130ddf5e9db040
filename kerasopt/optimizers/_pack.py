"""Weights that are updated together, and their state."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from kerasopt.optimizers._devices import beside, devices_of

SMALL = 1 << 14  # elements: on 2 CPU cores a larger weight is faster by itself


def place_of(optimizer: Any, weight: Any) -> int:
    """Return the place of a weight in the list that a Keras optimizer was built with."""
    return int(optimizer._get_variable_index(weight))


class Pack:
    """One weight, or several of one dtype that are joined end to end.

    `weights` maps the places in the list that the optimizer was built with to the weights; those of
    a shape stand together, because to stack tensors of a shape is cheaper than to flatten each.
    `state` maps each slot to one variable for all of them; a fused kernel, which moves a variable,
    moves `scratch` from zero in their place.
    """

    def __init__(self, weights: dict[int, Any], decays: bool) -> None:
        self.shapes = {place: tuple(weight.shape) for place, weight in weights.items()}
        self.weights = {
            place: weights[place] for place in sorted(weights, key=lambda place: self.shapes[place])
        }
        self.places = [*self.weights]
        self.decays = decays
        self.joined = len(weights) > 1
        self.first = self.weights[self.places[0]]
        self.state: dict[str, Any] = {}
        self.scratch: Any = None
        self.size = sum(map(math.prod, self.shapes.values()))

    def add_state(self, optimizer: Any, slots: Mapping[str, str], scratch: bool) -> None:
        """Create the variables of the slots, given with their initial values."""
        self.state = {slot: self._add(optimizer, slot, initial) for slot, initial in slots.items()}
        self.scratch = self._add(optimizer, "scratch", "zeros") if self.joined and scratch else None

    def _add(self, optimizer: Any, name: str, initializer: str) -> Any:
        if self.joined:
            shape, name = (self.size,), f"{name}_of_{len(self.places)}_weights"
        else:
            shape = optimizer.shape_of(name, self.shapes[self.places[0]])
            if shape == self.shapes[self.places[0]]:
                return optimizer.add_variable_from_reference(self.first, name, initializer)
        with beside(self.first):
            return optimizer.add_variable(shape, initializer, self.first.dtype, name=name)

    def join(self, tensors: Sequence[Any], places: Sequence[int]) -> Any:
        """Return one tensor, of the type of the weights, for those of the weights at `places`."""
        tensors = [ops.cast(tensor, self.first.dtype) for tensor in tensors]
        if not self.joined:
            return tensors[0]
        given = iter(tensors)
        stacks = [ops.stack([*itertools.islice(given, n)]) for _, n in self._runs(places)]
        return ops.concatenate([ops.ravel(stack) for stack in stacks])

    def split(self, tensor: Any, places: Sequence[int]) -> list[Any]:
        """Return what `join` was given."""
        if not self.joined:
            return [tensor]
        runs = self._runs(places)
        ends = itertools.accumulate(count * math.prod(shape) for shape, count in runs)
        parts = ops.split(tensor, [*ends][:-1]) if len(runs) > 1 else [tensor]
        return [
            each
            for part, (shape, count) in zip(parts, runs, strict=True)
            for each in ops.unstack(ops.reshape(part, (count, *shape)), count)
        ]

    def _runs(self, places: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
        """Return the shapes of the weights at `places`, and how many there are of each."""
        groups = itertools.groupby(self.shapes[place] for place in places)
        return [(shape, len([*group])) for shape, group in groups]

    def pick(self, value: Any, places: Sequence[int]) -> Any:
        """Return the part of a joined state that belongs to some of the weights."""
        if len(places) == len(self.places):
            return value
        parts = dict(zip(self.places, self.split(value, self.places), strict=True))
        return self.join([parts[place] for place in places], places)

    def put(self, value: Any, part: Any, places: Sequence[int]) -> Any:
        """Return `value` with `part` in place of what `pick` returns."""
        if len(places) == len(self.places):
            return part
        parts = dict(zip(self.places, self.split(value, self.places), strict=True))
        parts.update(zip(places, self.split(part, places), strict=True))
        return self.join([*parts.values()], self.places)

    def read(self) -> dict[tuple[int, str], np.ndarray]:
        """Return the state of every weight by itself, by place and slot."""
        return {
            (place, slot): ops.convert_to_numpy(part)
            for slot, variable in self.state.items()
            for place, part in zip(
                self.places, self.split(variable.value, self.places), strict=True
            )
        }

    def write(self, values: Mapping[tuple[int, str], Any]) -> None:
        """Set the state to what `read` has returned."""
        for slot, variable in self.state.items():
            parts = [ops.convert_to_tensor(values[place, slot]) for place in self.places]
            variable.assign(self.join(parts, self.places))


def packs(weights: Mapping[int, Any], decays: Mapping[int, bool], join: bool) -> list[Pack]:
    """Return the packs of all weights: small ones of a dtype and a device together."""
    groups: dict[Any, dict[int, Any]] = {}
    for place, weight in weights.items():
        together = join and math.prod(weight.shape) < SMALL
        key = (weight.dtype, decays[place], devices_of(weight)) if together else place
        groups.setdefault(key, {})[place] = weight
    return [Pack(group, decays[next(iter(group))]) for group in groups.values()]
