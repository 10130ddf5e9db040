"""Layers that begin to be trained as the training goes on."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerasopt._acting import ActingCallback, callbacks_of_fit
from kerasopt._rate_factor import build_optimizer
from kerasopt._train_step import chain
from kerasopt._validation import check_count
from kerasopt.callbacks._adaptive_learning_rate import AdaptiveLearningRate
from kerasopt.callbacks._checks import check_built
from kerasopt.callbacks._gradient_monitor import GradientMonitor
from kerasopt.callbacks._step_patches import replace
from kerasopt.optimizers._lbfgs import LBFGS
from kerasopt.optimizers._objective_optimizer import ObjectiveOptimizer
from kerasopt.optimizers._pack import place_of

OF_ALL_WEIGHTS = (LBFGS, ObjectiveOptimizer)  # they step in all weights at once


class Unfreeze(ActingCallback):
    """Trains the upper layers first, and lower ones from given epochs on.

    Use it to fine-tune a model whose lower layers were trained before, by `kerasopt.pretrain` or on
    other data: until the new layers on top have learned something, their gradients would only
    spoil what is below. Layers of the schedule are frozen until their epoch has come, whatever
    their `trainable` was; other layers are left as they are.

        Unfreeze({0: "head", 3: "block5_.*", 6: 12})   # last: the 12 uppermost layers with weights

    A frozen layer keeps its weights to the last bit, costs no gradient, and batch normalisation in
    it goes by its moving averages, as Keras has it. In Keras, a change of `trainable` within `fit`
    has no effect until the compiled functions are made anew, and an optimizer takes no weights that
    it was not built for: this callback builds the optimizer for all layers of the schedule as
    training begins, and has the functions made at each change, so that the momentum of the layers
    that are trained already stays what it is. They are compiled once for each of these epochs.

    The epoch alone says what is frozen, so that a training that is gone on with, by `initial_epoch`
    or by `Resume`, goes on as it was. After the training all layers of the schedule are trainable,
    as the optimizer expects, also if it ended early. A model that is saved before that, by
    `ModelCheckpoint`, has them frozen, and its optimizer is loaded without its state.

    Optimizers count their steps for all weights together: Adam's bias correction is over when late
    layers begin, and their first steps are longer. Lower the rate with them.

    Args:
        schedule: Maps epochs to layers. An epoch is an integer ≥ 0, the number of epochs of `fit`
            that are over when its layers begin to be trained. The layers are one, or a list, of:
            a layer, which may be a nested model; a regular expression that is the whole name of
            layers; or an integer n ≥ 1 for the n uppermost layers with weights, nested ones
            counted one by one. A layer begins at the earliest of its epochs.

    Raises:
        TypeError: The schedule is not a mapping, or has something else in it.
        ValueError: The schedule is empty, an expression or a number is not valid; as training
            begins: the model is not built, there is no such layer with weights, `fit` ends
            before an epoch, or the optimizer was built without some of the weights, averages them
            by `use_ema`, or is `LBFGS` or an `ObjectiveOptimizer`, which step in all of them at
            once, or there is a `GradientMonitor` or an `AdaptiveLearningRate` of mode `"weights"`.

    Reference:
        Howard and Ruder, Universal language model fine-tuning for text classification, 2018
        (gradual unfreezing); Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training
        of deep networks, 2007.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> layers = [keras.layers.Dense(2, name=name) for name in ("body", "head")]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> model.compile("sgd", "mse")
        >>> unfreeze = kerasopt.callbacks.Unfreeze({2: "body"})
        >>> _ = model.fit(np.eye(2), np.eye(2), epochs=4, verbose=0, callbacks=[unfreeze])
        >>> [(event.epoch, event.text) for event in unfreeze.events]
        [(2, 'unfreeze body')]
    """

    def __init__(self, schedule: Mapping[int, Any]) -> None:
        super().__init__()
        if not isinstance(schedule, Mapping):
            raise TypeError(
                f"`schedule` must map epochs to layers. Received: schedule={schedule!r}"
            )
        if not schedule:
            raise ValueError("`schedule` must have at least one epoch. Received: schedule={}")
        epochs = sorted(check_count("schedule", epoch, least=0) for epoch in schedule)
        self.schedule = {epoch: _items(schedule[epoch]) for epoch in epochs}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the layers, and have an optimizer for all of them."""
        model, last = self.model, max(self.schedule)
        check_built(model, type(self).__name__)
        if last >= self.params["epochs"]:
            raise ValueError(
                "`schedule` must have epochs that `fit` reaches, counted from 0. Received: "
                f"{last}, where epochs={self.params['epochs']}"
            )
        _check_callbacks()
        self._find_layers()
        self._set(last)
        build_optimizer(model)
        _check_optimizer(model)
        self._take_back = _apply_to_trainable(model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freeze what comes later, and let the rest be trained."""
        self._set(epoch)
        names = self._names.get(epoch, [])
        if names and epoch:
            self.note(epoch, f"unfreeze {names[0] if len(names) == 1 else f'{len(names)} layers'}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let all layers of the schedule be trained from now on."""
        self._set(max(self.schedule))
        self._take_back()

    def _find_layers(self) -> None:
        """Find the first epoch of each layer, and the names of what begins with each epoch."""
        begins: dict[int, int] = {}
        self._names: dict[int, list[str]] = {}
        for epoch, items in self.schedule.items():
            for found in [layer for item in items for layer in _matching(self.model, item)]:
                if id(found) not in begins:
                    self._names.setdefault(epoch, []).append(found.name)
                for layer in found._flatten_layers():
                    begins.setdefault(id(layer), epoch)
        # Outer layers come first: to set their `trainable` sets that of all within.
        every = self.model._flatten_layers(include_self=False)
        self._begins = [(layer, begins[id(layer)]) for layer in every if id(layer) in begins]

    def _set(self, epoch: int) -> None:
        """Make the layers trainable whose epoch has come, and no others."""
        model = self.model
        before = [layer.trainable for layer, _ in self._begins]
        now = [begin <= epoch for _, begin in self._begins]
        if now == before:
            return
        for (layer, _), trainable in zip(self._begins, now, strict=True):
            layer.trainable = trainable
        # On JAX all of them know the weights by their order among the trainable ones.
        model.make_train_function(force=True)
        model.make_test_function(force=True)
        model.make_predict_function(force=True)


def _check_callbacks() -> None:
    """Raise if another callback counts on the weights that are trained when `fit` begins."""
    for each in callbacks_of_fit():
        if isinstance(each, GradientMonitor) or (
            isinstance(each, AdaptiveLearningRate) and each.mode == "weights"
        ):
            raise ValueError(
                "`callbacks` must not hold one that compares all weights from step to step with "
                f"`Unfreeze`. Received: {type(each).__name__}. Take `AdaptiveLearningRate` with "
                "mode='loss', and train in two `fit`s to use `GradientMonitor`."
            )


def _items(layers: Any) -> list[Any]:
    """Return the layers of an epoch as a list, if they may be some."""
    items = list(layers) if isinstance(layers, list | tuple) else [layers]
    for item in items:
        if isinstance(item, str):
            try:
                re.compile(item)
            except re.error as error:
                raise ValueError(
                    f"`schedule` must have valid regular expressions: {error}. Received: {item!r}"
                ) from None
        elif isinstance(item, int):
            check_count("schedule", item)
        elif not isinstance(item, keras.Layer):
            raise TypeError(
                "`schedule` must have layers, names or expressions for them, or numbers of upper "
                f"layers. Received: {item!r}"
            )
    return items


def _matching(model: keras.Model, item: Any) -> list[keras.Layer]:
    """Return the layers with weights that an item of the schedule stands for."""
    every = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    if isinstance(item, str):
        found = [layer for layer in every if re.fullmatch(item, layer.name)]
    elif isinstance(item, keras.Layer):
        found = [layer for layer in every if layer is item]
    else:
        inner = [layer for layer in every if not any(layer._flatten_layers(include_self=False))]
        place = {id(weight): place for place, weight in enumerate(model.weights)}
        inner.sort(key=lambda layer: place[id(layer.weights[0])])
        found = inner[-item:] if item <= len(inner) else []
        every = inner
    if not found:
        raise ValueError(
            "`schedule` must have layers of the model that have weights. Received: "
            f"{getattr(item, 'name', item)!r}; there are {[layer.name for layer in every]}"
        )
    return found


def _check_optimizer(model: keras.Model) -> None:
    """Raise unless the optimizer takes the weights of the schedule, and fewer."""
    optimizer = model.optimizer
    for each in chain(optimizer):
        if isinstance(each, OF_ALL_WEIGHTS) or each.use_ema:
            raise ValueError(
                "The optimizer must treat each weight by itself with `Unfreeze`, and must not "
                f"average them by `use_ema`. Received: {type(each).__name__}"
            )
    try:
        for weight in model.trainable_variables:
            place_of(optimizer, weight)
    except KeyError:
        raise ValueError(
            "The optimizer must be built for all layers of the `schedule`. Received: "
            f"{type(optimizer).__name__}, built without {weight.path!r}. Set "
            "`layer.trainable = True` for all of them, then `compile` again, before `fit`: "
            "`Unfreeze` freezes them itself."
        ) from None


def _apply_to_trainable(model: keras.Model) -> Callable[[], None]:
    """Let the optimizer take fewer weights than it was built for; return what takes it back.

    On TensorFlow it does; on JAX Keras hands all of them to `stateless_apply`.
    """
    if keras.backend.backend() != "jax":
        return lambda: None
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer

    def stateless_apply(state: Any, gradients: Any, values: Any) -> tuple[list[Any], list[Any]]:
        weights = model.trainable_variables
        pairs = [
            *zip(weights, values, strict=True),
            *zip(optimizer.variables, state, strict=True),
        ]
        with keras.StatelessScope(pairs) as scope:
            optimizer.apply(gradients, weights)
        new = [scope.get_current_value(variable) for variable, _ in pairs]
        return new[: len(weights)], new[len(weights) :]

    return replace(optimizer, "stateless_apply", stateless_apply)
