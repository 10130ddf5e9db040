"""A learning rate for each layer."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt._validation import check_choice, check_count, check_number
from kerasopt.optimizers._curvature import layer_curvature
from kerasopt.optimizers._devices import assign_when, everywhere
from kerasopt.optimizers._pack import place_of
from kerasopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable("kerasopt")
class LayerwiseLearningRate(OptimizerWrapper):
    """Multiplies the steps of any optimizer by a factor for each layer.

    Lower layers often have a smaller second derivative and bear a larger rate; pretrained layers
    want a smaller one, and 0 freezes them. The optimizer within keeps its one state; where the
    factor is 1 its path does not change by a bit.

        w ← w + a_l Δw                                 Δw the step of the optimizer; w in layer l
        a_l = multiplier · layer_decay^(layers above l) · rule

    A multiplier is found by `re.search` of the expressions in `weight.path`, such as
    `"sequential/dense_1/kernel"`; the one that matches most characters wins. The factors are
    variables: `set_multiplier` changes them during the training, from a callback or by hand.

    Args:
        optimizer: A Keras optimizer, or its name.
        multipliers: Maps regular expressions, or layers, to numbers ≥ 0. Defaults to none.
        layer_decay: Factor in (0, 1] from each layer to the one below it; the last layer with
            weights has 1. Defaults to None, which is 1.
        rule: None, `"fan_in"`: 1 / (inputs of a unit of the layer), or `"curvature"`: 1 / (mean
            second derivative of the layer), which `measure(model, x, y)` measures; it has to be
            called before `fit`. The geometric mean of both over the weights is 1. Defaults to None.
        name: Name of the optimizer. Defaults to `"layerwise_learning_rate"`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A multiplier is negative, `layer_decay` or `rule` is not as above; later, when
            an expression matches no weight, or `measure` was not called.

    Reference:
        LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.7; Plaut, Nowlan and
        Hinton, Experiments on learning by back propagation, 1986 (`"fan_in"`); Clark et al.,
        ELECTRA, 2020 (`layer_decay`).

    Example:
        >>> import keras, kerasopt
        >>> lower = keras.Variable(1.0, name="lower")
        >>> upper = keras.Variable(1.0, name="upper")
        >>> optimizer = kerasopt.optimizers.LayerwiseLearningRate(
        ...     keras.optimizers.SGD(0.1), multipliers={"lower": 5.0}
        ... )
        >>> optimizer.apply([keras.ops.ones(()), keras.ops.ones(())], [lower, upper])
        >>> round(float(lower), 3), round(float(upper), 3)
        (0.5, 0.9)
    """

    def __init__(
        self,
        optimizer: Any,
        multipliers: Mapping[Any, float] | None = None,
        layer_decay: float | None = None,
        rule: str | None = None,
        name: str = "layerwise_learning_rate",
    ) -> None:
        super().__init__(optimizer, name)
        if not isinstance(multipliers, Mapping | None):
            raise TypeError(
                "`multipliers` must map regular expressions or layers to numbers. "
                f"Received: multipliers={multipliers!r}"
            )
        self._multipliers = {
            _expression(key): check_number("multipliers", value, "[0, inf)")
            for key, value in (multipliers or {}).items()
        }
        decays = layer_decay is not None
        self.layer_decay = check_number("layer_decay", layer_decay, "(0, 1]") if decays else None
        self.rule = check_choice("rule", rule, [None, "fan_in", "curvature"])
        self._measured = False

    def build(self, variables: list[Any]) -> None:
        """Find the factor of every weight."""
        if self.built:
            return
        super().build(variables)
        self._paths = [variable.path for variable in variables]
        self._shapes = [tuple(variable.shape) for variable in variables]
        factors = self._by_expression() * self._by_depth() * self._by_fan_in()
        self._factors = self.add_variable(
            (len(variables),), lambda shape, dtype: ops.cast(factors, dtype), name="multipliers"
        )

    @property
    def multipliers(self) -> dict[str, float]:
        """The factors of all weights, by their paths."""
        values = ops.convert_to_numpy(self._factors.value)
        return {path: float(value) for path, value in zip(self._paths, values, strict=True)}

    def set_multiplier(self, key: Any, multiplier: float) -> None:
        """Set the factor of all weights that an expression matches, or of a layer."""
        multiplier = check_number("multiplier", multiplier, "[0, inf)")
        matched = self._matched(_expression(key)) > 0
        self._factors.assign(np.where(matched, multiplier, ops.convert_to_numpy(self._factors)))

    def measure(self, model: keras.Model, x: Any, y: Any, probes: int = 4, seed: int = 0) -> None:
        """Set the factors of `rule="curvature"` from the second derivatives on a batch.

        The mean second derivative of the weights of a layer is estimated as vᵀ H v / n by the
        difference of gradients along random signs v of its n weights.

        Args:
            model: The compiled model that the optimizer trains.
            x: A batch of inputs.
            y: Its targets.
            probes: Number ≥ 1 of random v for each layer. Defaults to 4.
            seed: Seed of the v. Defaults to 0.
        """
        if not self.built:
            self.build(model.trainable_variables)
        layers = self._layers()
        curvature = layer_curvature(model, x, y, layers, check_count("probes", probes), seed)
        factors = self._by_expression() * self._by_depth() * _inverse(curvature)
        self._factors.assign(factors)
        self._measured = True

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        if self.rule == "curvature" and not self._measured:
            raise ValueError(
                "`rule` 'curvature' needs the second derivatives: call "
                "`optimizer.measure(model, x, y)` before `fit`. Received: rule='curvature'"
            )
        before = [ops.copy(weight) for weight in weights]
        self.optimizer.apply(gradients, weights)
        places = [place_of(self, weight) for weight in weights]
        everywhere(functools.partial(self._scale, places), weights, before, self._factors)

    def _scale(
        self, places: list[int], weights: list[Any], before: list[Any], factors: Any
    ) -> None:
        """W ← w' + a (w - w') where a is not 1."""
        for place, weight, old in zip(places, weights, before, strict=True):
            factor = ops.cast(factors[place], old.dtype)
            scaled = functools.partial(_between, old, weight, factor)
            assign_when(factor != 1, [weight], scaled)

    def _matched(self, expression: str) -> np.ndarray:
        """Return how many characters of each path an expression matches."""
        found = [re.search(expression, path) for path in self._paths]
        lengths = np.array([len(match.group()) if match else 0 for match in found])
        if not lengths.any():
            raise ValueError(
                "`multipliers` must match the path of a trainable weight. Received: "
                f"{expression!r}; the paths are {self._paths}"
            )
        return lengths

    def _by_expression(self) -> np.ndarray:
        """Return the multipliers of the longest matches."""
        lengths = [np.zeros(len(self._paths)), *map(self._matched, self._multipliers)]
        values = np.array([1.0, *self._multipliers.values()])
        return values[np.argmax(lengths, axis=0)]

    def _layers(self) -> np.ndarray:
        """Return the number of the layer of every weight, from the lowest on."""
        names = [path.rpartition("/")[0] or path for path in self._paths]
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([order[name] for name in names])

    def _by_depth(self) -> np.ndarray:
        layers = self._layers()
        return np.power(self.layer_decay or 1.0, max(layers) - layers)

    def _by_fan_in(self) -> np.ndarray:
        """Return 1 / (inputs of a unit), which all weights of a layer share."""
        layers = self._layers()
        if self.rule != "fan_in":
            return np.ones(len(layers))
        fan_in = np.array([math.prod(shape[:-1]) for shape in self._shapes])  # 1 of vectors
        return _inverse([fan_in[layers == layer].max() for layer in layers])

    def load_own_variables(self, store: Any) -> None:
        """Load the factors."""
        super().load_own_variables(store)
        self._measured = True

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        own = {"multipliers": self._multipliers, "layer_decay": self.layer_decay, "rule": self.rule}
        return {**super().get_config(), **own}


def _between(old: Any, new: Any, factor: Any) -> list[Any]:
    return [old + factor * (new - old)]


def _expression(key: Any) -> str:
    """Return a regular expression for a key of `multipliers`."""
    if isinstance(key, keras.Layer):
        return f"(^|/){re.escape(key.name)}/"
    if not isinstance(key, str):
        raise TypeError(
            f"`multipliers` must have regular expressions or layers as keys. Received: {key!r}"
        )
    try:
        re.compile(key)
    except re.error as error:
        raise ValueError(
            f"`multipliers` must have regular expressions as keys: {error}. Received: {key!r}"
        ) from None
    return key


def _inverse(values: Any) -> np.ndarray:
    """Return 1 / values, scaled to a geometric mean of 1; a thousandth of the largest is least."""
    values = np.asarray(values, "float64")
    logs = np.log(np.maximum(values, values.max() / 1000))
    return np.exp(logs.mean() - logs)
