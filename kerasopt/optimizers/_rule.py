"""The frame of every optimizer that is one rule for a weight and its state."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import keras
from keras import ops, tree

from kerasopt._validation import check_number
from kerasopt.optimizers._devices import (
    TENSORFLOW,
    in_one_pass,
    on_each_copy,
    outside_replicas,
    summed,
)
from kerasopt.optimizers._pack import SMALL, Pack, packs, place_of

LearningRate: TypeAlias = (
    float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], float]
)


def check_rate(learning_rate: LearningRate) -> LearningRate:
    """Check the rate when it is a number; Keras checks schedules and callables."""
    if isinstance(learning_rate, Real):
        return check_number("learning_rate", learning_rate, "[0, inf)")
    return learning_rate


def bias(beta: float, step: Any) -> Any:
    """Return 1 - βᵗ, which as it is written loses half of its digits in float32."""
    return -ops.expm1(step * math.log(beta)) if beta else ops.ones_like(step)


class RuleOptimizer(keras.optimizers.Optimizer):
    """An optimizer given by one pure rule, which assigns nothing: it cannot read what it assigned.

    A subclass names its state in `slots` and writes `rule`. What the rule takes that is the same
    for all weights it computes in `coefficients`. On TensorFlow an element-wise rule runs once for
    all small weights, joined end to end as is their state; for a large one XLA runs it in one pass
    over memory, or the `kernel` does, where TensorFlow has one for the rule.

    `variables` holds the state as it is computed with: joined. Saved is the state of every weight
    by itself, group by group of `slots` and within a group weight by weight, which is how the Keras
    optimizer of the same rule saves it.
    """

    initial: ClassVar[dict[str, str]] = {}  # of the slots that do not start at zero
    elementwise: ClassVar[bool] = True
    reads_weights: ClassVar[bool] = False  # else `rule` gets None for w
    decoupled: ClassVar[bool] = True  # else `rule` gets (coefficients, weight decay)

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The names of the state of a weight, in groups that are saved one after the other."""
        return ()

    @property
    def scalars(self) -> dict[str, float]:
        """The names of variables for all weights, and their first values."""
        return {}

    @property
    def has_kernel(self) -> bool:
        """Whether `kernel` does what `rule` does."""
        return False

    def kernel(self, w: Any, g: Any, coefficients: Any, *state: Any) -> None:
        """Move `w` and renew the state in place; all but `g` are variables of TensorFlow."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `kernel`.")

    def coefficients(self, learning_rate: Any, step: Any) -> Any:
        """Return what `rule` takes for all weights: a number or several; `step` is 1, 2, …."""
        return learning_rate

    def rule(self, w: Any, g: Any, coefficients: Any, *state: Any) -> tuple[Any, ...]:
        """Return the step Δw and the new value of each slot, in their order."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `rule`.")

    def shape_of(self, slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a slot of a weight of `shape`; of an element-wise rule, the same."""
        return shape

    def build(self, variables: list[Any]) -> None:
        """Create the state of `variables`."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)  # not that of a Keras class of the rule
        wide = "float64" if any(v.dtype == "float64" for v in variables) else "float32"
        for name, value in self.scalars.items():
            start = keras.initializers.Constant(value)
            setattr(self, name, self.add_variable((), start, wide, name=name))
        self._shared = len(self.variables)  # what is not of one weight comes first
        weights = {
            place: variable
            for place, variable in enumerate(variables)
            if not getattr(variable, "overwrite_with_gradient", False)
        }
        decays = {
            place: self.weight_decay is not None and self._use_weight_decay(variable)
            for place, variable in weights.items()
        }
        self._compiled = functools.cache(in_one_pass)
        self._packs = tuple(packs(weights, decays, TENSORFLOW and self.elementwise))
        slots = {slot: self.initial.get(slot, "zeros") for group in self.slots for slot in group}
        for pack in self._packs:
            pack.add_state(self, slots, scratch=self.has_kernel)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one weight by the step of `rule`, and renew its state."""
        self._backend_update_step([gradient], [variable], learning_rate)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        places = [place_of(self, variable) for variable in trainable_variables]
        outside_replicas(self._update, summed(grads), places, learning_rate)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Leave to `_move` what Keras does before the update."""

    def _jobs(
        self, gradients: Sequence[Any], places: Sequence[int]
    ) -> Iterator[tuple[Pack, list[int], list[Any], list[Any]]]:
        """Yield each pack that has gradients, the places they are of, the weights and gradients."""
        given = dict(zip(places, gradients, strict=True))
        for pack in self._packs:
            if present := [place for place in pack.places if place in given]:
                weights = [pack.weights[place] for place in present]
                yield pack, present, weights, [given[place] for place in present]

    def _update(self, gradients: Sequence[Any], places: Sequence[int], learning_rate: Any) -> None:
        """Move the weights at `places`."""
        coefficients = functools.cache(functools.partial(self._coefficients, learning_rate))
        for pack, present, weights, slopes in self._jobs(gradients, places):
            on_each_copy(
                functools.partial(self._move, pack, present),
                weights,
                slopes,
                [*pack.state.values()],
                pack.scratch,
                coefficients(keras.backend.standardize_dtype(pack.first.dtype)),
            )

    def _coefficients(self, learning_rate: Any, dtype: str) -> tuple[Any, Any]:
        """Return the coefficients and the fraction by which weights decay, in the type of weights.

        They are computed in float32 at least: in bfloat16 0.999 is 1.
        """
        wide = "float64" if dtype == "float64" else "float32"
        learning_rate = ops.cast(learning_rate, wide)
        step = ops.cast(self.iterations + 1, wide)
        both = self.coefficients(learning_rate, step), learning_rate * (self.weight_decay or 0)
        return tree.map_structure(lambda value: ops.cast(value, dtype), both)

    def _move(
        self,
        pack: Pack,
        present: Sequence[int],
        weights: Sequence[Any],
        gradients: Sequence[Any],
        state: Sequence[Any],
        scratch: Any,
        coefficients: tuple[Any, Any],
    ) -> None:
        """Move the `present` weights of a pack, on one device."""
        coefficients, decay = coefficients
        if not self.decoupled:
            coefficients = coefficients, self.weight_decay if pack.decays else 0.0
        g = pack.join(gradients, present)
        if pack.decays and self.decoupled:
            for weight in weights:
                self.assign_sub(weight, decay * weight)
        precise = pack.first.dtype in ("float32", "float64")  # in bfloat16 a β₂ of 0.999 is 1
        fused = TENSORFLOW and self.has_kernel and precise and len(present) == len(pack.places)
        if fused and not pack.joined:
            self.kernel(*weights, g, coefficients, *state)
            return
        if fused:
            self.assign(scratch, ops.zeros_like(scratch))
            self.kernel(scratch, g, coefficients, *state)
            step = scratch
        else:
            w = pack.join(weights, present) if self.reads_weights else None
            parts = [pack.pick(ops.convert_to_tensor(variable), present) for variable in state]
            step, *renewed = self._run(pack, self.rule, w, g, coefficients, *parts)
            for variable, part in zip(state, renewed, strict=True):
                self.assign(variable, pack.put(variable, part, present))
        for weight, part in zip(weights, pack.split(step, present), strict=True):
            self.assign_add(weight, part)

    def _run(self, pack: Pack, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of tensors, an element-wise one in one pass if the weight is large."""
        if self.elementwise and pack.size >= SMALL and not pack.joined:
            function = self._compiled(function)
        return function(*arguments)

    def state_of(self, variable: Any) -> dict[str, Any]:
        """Return the state of one weight, by the names of `slots`, as arrays of its shape."""
        here = place_of(self, variable)
        pack = next(pack for pack in self._packs if here in pack.weights)
        return {slot: value for (place, slot), value in pack.read().items() if place == here}

    def _saved(self) -> Iterator[tuple[int, str]]:
        """Yield place and slot of all state, in the order in which it is saved."""
        places = sorted(place for pack in self._packs for place in pack.weights)
        for group in self.slots:
            yield from ((place, slot) for place in places for slot in group)

    def save_own_variables(self, store: Any) -> None:
        """Save the state of every weight by itself, as the Keras optimizer of the rule does."""
        if not self.built:
            super().save_own_variables(store)
            return
        state = {key: value for pack in self._packs for key, value in pack.read().items()}
        shared = [variable.numpy() for variable in self.variables[: self._shared]]
        for key, value in enumerate([*shared, *(state[key] for key in self._saved())]):
            store[str(key)] = value

    def load_own_variables(self, store: Any) -> None:
        """Load what this class, or the Keras optimizer of the rule, has saved."""
        if not self.built:
            super().load_own_variables(store)
            return
        keys, saved = list(self._saved()), len(store.keys())
        if saved != self._shared + len(keys):
            warnings.warn(
                f"The state of the optimizer '{self.name}' was not loaded: it has "
                f"{self._shared + len(keys)} variables and {saved} were saved. Was it another "
                "optimizer, or one of other weights?",
                stacklevel=2,
            )
            return
        for place, variable in enumerate(self.variables[: self._shared]):
            variable.assign(store[str(place)])
        state = {key: store[str(place)] for place, key in enumerate(keys, start=self._shared)}
        for pack in self._packs:
            pack.write(state)
