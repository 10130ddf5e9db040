"""The frame of every optimizer that wraps another one."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras


class OptimizerWrapper(keras.optimizers.Optimizer):
    """An optimizer around another one, whose state, learning rate and count of steps it shares.

    A subclass says in `_apply` what it does before and after `self.optimizer.apply`.
    """

    def __init__(self, optimizer: Any, name: str) -> None:
        """Take an optimizer or its name."""
        if not isinstance(optimizer, str | keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a Keras optimizer, or the name of one. "
                f"Received: optimizer={optimizer!r}"
            )
        inner = keras.optimizers.get(optimizer)
        if isinstance(inner, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "`optimizer` must see the gradients as they are, not scaled: wrap the optimizer "
                f"within, as in `LossScaleOptimizer({type(self).__name__}(…))`. "
                f"Received: optimizer={optimizer!r}"
            )
        super().__init__(learning_rate=0.0, name=name)
        self._variables.clear()  # the learning rate and the count are those of the optimizer
        self.optimizer = inner

    def build(self, variables: list[Any]) -> None:
        """Create the state of both."""
        if self.built:
            return
        super().build(variables)
        if not self.optimizer.built:
            self.optimizer.build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take a step."""
        if trainable_variables is None and not self.built:
            raise ValueError(
                "`trainable_variables` must be given, or `build(trainable_variables)` be called "
                "before. Received: trainable_variables=None"
            )
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        weights = list(trainable_variables)
        if not self.built:
            self.build(weights)
        self._apply(list(grads), weights)

    def _apply(self, gradients: list[Any], weights: list[Any]) -> None:
        self.optimizer.apply(gradients, weights)

    @property
    def variables(self) -> list[Any]:
        """The state of this optimizer, then that of the one within."""
        return [*self._variables, *self.optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the optimizer within."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The number of steps that the optimizer within has taken."""
        return self.optimizer.iterations

    def scale_loss(self, loss: Any) -> Any:
        """Scale the loss as the optimizer within does."""
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Let the optimizer within set the last values of the weights."""
        self.optimizer.finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Save the state of this optimizer; that of the one within is saved by itself."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Load what was saved."""
        if len(store.keys()) != len(self._variables):
            warnings.warn(
                f"The state of the optimizer '{self.name}' was not loaded: it has "
                f"{len(self._variables)} variables and {len(store.keys())} were saved.",
                stacklevel=2,
            )
            return
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        inner = keras.saving.serialize_keras_object(self.optimizer)
        return {"name": self.name, "optimizer": inner}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make the optimizer again."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects)
        return cls(**{**config, "optimizer": inner})
