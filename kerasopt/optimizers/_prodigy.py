"""Adam that finds its learning rate."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasopt._validation import check_flag, check_number
from kerasopt.optimizers._devices import assign_when, on_each_copy
from kerasopt.optimizers._pack import Pack
from kerasopt.optimizers._rule import LearningRate, RuleOptimizer, bias, check_rate

TINY = 1e-30  # a weight whose gradients were all zero does not move


@keras.saving.register_keras_serializable("kerasopt")
class Prodigy(RuleOptimizer):
    """Adam without a learning rate to choose: it estimates how far the solution is.

    The estimate d of the distance from the first weights w₀ to the solution only grows; it takes
    the place of the learning rate. `learning_rate` stays at 1, or follows a schedule such as
    `keras.optimizers.schedules.CosineDecay(1.0, steps)`.

        η ← d · learning_rate                          · √(1 - β₂ᵗ) / (1 - β₁ᵗ) with bias correction
        r ← β₃ r + d / d₀ · η Σ g (w₀ - w)             a sum over all weights; β₃ = beta_3
        s ← β₃ s + d / d₀ · η g
        m ← β₁ m + (1 - β₁) d g,   v ← β₂ v + (1 - β₂) d² g²
        d̂ ← d_coef · r / Σ |s|,   d ← max(d, d̂), at most d · growth_rate after the first growth
        w ← w - η m / (√v + d ε)

    `distance` is d, `initial_weights` w₀.

    Args:
        learning_rate: Factor of the estimate, ≥ 0. Defaults to 1.0.
        beta_1: β₁ in [0, 1), the memory of the mean gradient. Defaults to 0.9.
        beta_2: β₂ in [0, 1), the memory of the mean square. Defaults to 0.999.
        beta_3: β₃ in [0, 1), the memory of the estimate. Defaults to √β₂.
        epsilon: ε ≥ 0. Defaults to 1e-8.
        d0: First estimate d₀ > 0, far below the distance. Defaults to 1e-6.
        d_coef: Factor > 0 of the estimate; 0.5 or 2 for shorter or longer steps. Defaults to 1.0.
        growth_rate: Largest factor ≥ 1 by which d grows in a step. Defaults to no limit.
        use_bias_correction: Whether to correct the means as Adam does. Defaults to False.
        safeguard_warmup: Whether to leave the learning rate out of s, for schedules that warm up.
            Defaults to False.
        name: Name of the optimizer. Defaults to `"prodigy"`.
        **kwargs: What every Keras optimizer takes. The weights decay by η times `weight_decay`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Reference:
        Mishchenko and Defazio, Prodigy: an expeditiously adaptive parameter-free learner, 2024,
        algorithm 4.

    Example:
        >>> import keras, kerasopt
        >>> w = keras.Variable(5.0)
        >>> optimizer = kerasopt.optimizers.Prodigy()
        >>> for _ in range(200):
        ...     optimizer.apply([2 * w], [w])
        >>> abs(float(w)) < 0.5
        True
    """

    slots = (("momentum", "velocity", "path", "initial_weights"),)
    reads_weights = True

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float | None = None,
        epsilon: float = 1e-8,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = float("inf"),
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        name: str = "prodigy",
        **kwargs: Any,
    ) -> None:
        super().__init__(check_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.beta_3 = None if beta_3 is None else check_number("beta_3", beta_3, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "[0, inf)")
        self.d0 = check_number("d0", d0, "(0, inf)")
        self.d_coef = check_number("d_coef", d_coef, "(0, inf)")
        self.growth_rate = check_number("growth_rate", growth_rate, "[1, inf]")
        self.use_bias_correction = check_flag("use_bias_correction", use_bias_correction)
        self.safeguard_warmup = check_flag("safeguard_warmup", safeguard_warmup)

    @property
    def scalars(self) -> dict[str, float]:
        """d, the largest estimate so far, r and Σ |s|."""
        return {"distance": self.d0, "largest": self.d0, "correlation": 0.0, "length": 0.0}

    def _update(self, gradients: Sequence[Any], places: Sequence[int], learning_rate: Any) -> None:
        """Collect the sums over all weights, renew the estimate, move the weights."""
        d = ops.copy(self.distance)
        step = ops.cast(self.iterations + 1, d.dtype)
        learning_rate = ops.cast(learning_rate, d.dtype)
        rate = d * learning_rate
        if self.use_bias_correction:
            rate = rate * ops.sqrt(bias(self.beta_2, step)) / bias(self.beta_1, step)
        now = {"d": d, "rate": rate, "first": step == 1, "learning_rate": learning_rate}
        sums = [self.correlation, self.length]
        jobs = list(self._jobs(gradients, places))
        on_each_copy(self._forget, sums)
        for pack, present, weights, slopes in jobs:
            collect = functools.partial(self._collect, pack, present)
            on_each_copy(collect, weights, slopes, [*pack.state.values()], sums, now)
        on_each_copy(self._estimate, [self.distance, self.largest], sums, now)
        for pack, present, weights, _ in jobs:
            descend = functools.partial(self._descend, pack, present)
            on_each_copy(descend, weights, [*pack.state.values()], self.distance, now)

    def _forget(self, sums: Sequence[Any]) -> None:
        """R ← β₃ r, Σ |s| ← 0."""
        correlation, length = sums
        self.assign(correlation, self._memory * correlation)
        self.assign(length, 0.0 * length)

    def _collect(
        self,
        pack: Pack,
        present: Sequence[int],
        weights: Sequence[Any],
        gradients: Sequence[Any],
        state: Sequence[Any],
        sums: Sequence[Any],
        now: dict[str, Any],
    ) -> None:
        """Renew m, v and s of a pack, and add its part to the sums."""
        w, g = pack.join(weights, present), pack.join(gradients, present)
        parts = [pack.pick(ops.convert_to_tensor(each), present) for each in state]
        d, rate = (ops.cast(now[name], w.dtype) for name in ("d", "rate"))
        first = functools.partial(pack.put, ops.convert_to_tensor(state[3]), w, present)
        assign_when(now["first"], state[3:], lambda: [first()])
        *renewed, along, length = self._run(pack, self._means, w, g, d, rate, now["first"], *parts)
        for variable, value in zip(state[:3], renewed, strict=True):
            self.assign(variable, pack.put(variable, value, present))
        correlation, total = sums
        scale = now["d"] / self.d0 * now["rate"]
        self.assign_add(correlation, scale * ops.sum(ops.cast(along, correlation.dtype)))
        self.assign_add(total, ops.sum(ops.cast(length, total.dtype)))

    def _means(
        self, w: Any, g: Any, d: Any, rate: Any, first: Any, m: Any, v: Any, s: Any, start: Any
    ) -> tuple[Any, ...]:
        """Return m, v and s of the next step, and the terms that it adds to both sums."""
        start = ops.where(first, w, start)
        m = self.beta_1 * m + (1 - self.beta_1) * d * g
        v = self.beta_2 * v + (1 - self.beta_2) * d * d * g * g
        s = self._memory * s + d / self.d0 * (d if self.safeguard_warmup else rate) * g
        return m, v, s, g * (start - w), ops.abs(s)

    def _estimate(self, estimates: Sequence[Any], sums: Sequence[Any], now: dict[str, Any]) -> None:
        """D ← max(d, d̂), within the limit of growth."""
        distance, largest = estimates
        correlation, length = map(ops.convert_to_tensor, sums)
        d, moved = now["d"], (length > 0) & (now["learning_rate"] > 0)
        estimate = self.d_coef * correlation / ops.where(moved, length, 1.0)
        first = ops.where(d == ops.cast(self.d0, d.dtype), ops.maximum(d, estimate), d)
        peak = ops.maximum(largest, estimate)
        grown = ops.minimum(peak, first * self.growth_rate)
        self.assign(distance, ops.where(moved, grown, d))
        self.assign(largest, ops.where(moved, peak, ops.convert_to_tensor(largest)))

    def _descend(
        self,
        pack: Pack,
        present: Sequence[int],
        weights: Sequence[Any],
        state: Sequence[Any],
        distance: Any,
        now: dict[str, Any],
    ) -> None:
        """Move the weights of a pack."""
        m, v, *_ = (pack.pick(ops.convert_to_tensor(each), present) for each in state)
        rate, d = ops.cast(now["rate"], m.dtype), ops.cast(distance, m.dtype)
        move = self._run(pack, self._step, rate, d, m, v)
        for weight, step in zip(weights, pack.split(move, present), strict=True):
            if pack.decays:
                step = step - rate * self.weight_decay * weight
            self.assign_add(weight, step)

    def _step(self, rate: Any, d: Any, m: Any, v: Any) -> Any:
        return -rate * m / (ops.sqrt(v) + d * self.epsilon + TINY)

    @property
    def _memory(self) -> float:
        return math.sqrt(self.beta_2) if self.beta_3 is None else self.beta_3

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        names = ["beta_1", "beta_2", "beta_3", "epsilon", "d0", "d_coef", "growth_rate"]
        names += ["use_bias_correction", "safeguard_warmup"]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
