"""The frame of optimizers that estimate the second derivative of each weight."""

import functools
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from kerasopt._objective import Objective
from kerasopt._validation import check_choice, check_count
from kerasopt.optimizers._devices import everywhere
from kerasopt.optimizers._flat import unravel
from kerasopt.optimizers._objective_optimizer import ObjectiveOptimizer
from kerasopt.optimizers._rule import LearningRate

ESTIMATORS = ("gauss_newton", "hutchinson")


def random_signs(count: int, seed: int, step: Any) -> Any:
    """Return a vector of ±1, in each step another, and the same whatever compiles it.

    They are the top bits of a hash of place, seed and step: lowbias32 of Wellons, 2018. Keras'
    generators give other numbers under XLA, and there are slow on a CPU.
    """
    word = functools.partial(ops.full, (), dtype="uint32")
    places = ops.cast(ops.arange(count, dtype="int32"), "uint32")
    key = ops.cast(step, "uint32") * word(2654435769)
    top = ops.right_shift(_mixed(_mixed(ops.bitwise_xor(places, word(seed))) + key), word(31))
    return 1.0 - 2.0 * ops.cast(top, "float32")


def _mixed(x: Any) -> Any:
    word = functools.partial(ops.full, (), dtype="uint32")
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ops.bitwise_xor(x, ops.right_shift(x, word(shift))) * word(factor)
    return ops.bitwise_xor(x, ops.right_shift(x, word(16)))


class DiagonalOptimizer(ObjectiveOptimizer):
    """An optimizer with an estimate d of the diagonal of H or G, made every few steps.

        d = s ⊙ H s             random signs s: the diagonal of H in the mean
        d = r ⊙ r               r of `Objective.gauss_newton_diagonal`: that of G

    A subclass says in `step` what it makes of it.
    """

    refused = ("float16",)

    def __init__(
        self,
        learning_rate: LearningRate,
        update_every: int,
        estimator: str,
        seed: int | None,
        name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name, **kwargs)
        self.update_every = check_count("update_every", update_every)
        self.estimator = check_choice("estimator", estimator, ESTIMATORS)
        self.seed = random.randrange(2**31) if seed is None else check_count("seed", seed, 0)

    def averages(
        self,
        objective: Objective,
        beta: float,
        states: Sequence[Any],
        of: Callable[[Any], Any] = lambda d: d,
    ) -> list[Any]:
        """Return β s + (1 - β) of(d) for the states s, in the steps that measure d; else s."""
        drawn = itertools.count()

        def draw(shape: Any) -> Any:
            key = (self.seed + 7919 * next(drawn)) % 2**32
            return ops.reshape(random_signs(math.prod(shape), key, self.iterations), shape)

        def estimate() -> list[Any]:
            if self.estimator == "gauss_newton":
                return objective.gauss_newton_diagonal(draw)
            like = objective.values
            signs = unravel(draw((sum(math.prod(w.shape) for w in like),)), like)
            return [s * curved for s, curved in zip(signs, objective.hvp(signs), strict=True)]

        def renewed() -> list[Any]:
            return [s + (1 - beta) * (of(d) - s) for s, d in zip(states, estimate(), strict=True)]

        if self.update_every == 1:
            return renewed()
        due = self.iterations % self.update_every == 0
        return ops.cond(due, renewed, lambda: [ops.convert_to_tensor(s) for s in states])

    def add_states(self, variables: Sequence[Any], name: str) -> list[Any]:
        """Create a state of zeros for each weight."""
        return [self.add_variable_from_reference(v, name) for v in variables]

    def renew(self, states: Sequence[Any], values: Sequence[Any]) -> None:
        """Assign to states, on all devices that have them."""
        everywhere(self._assign, states, list(values))

    def _assign(self, states: Sequence[Any], values: Sequence[Any]) -> None:
        for state, value in zip(states, values, strict=True):
            self.assign(state, value)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ("update_every", "estimator", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
