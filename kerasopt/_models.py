"""Keras' models, prepared for optimizers that ask for the loss function."""

from typing import Any

import keras

from kerasopt._train_step import prepare


@keras.saving.register_keras_serializable("kerasopt")
class Sequential(keras.Sequential):
    """`keras.Sequential`, prepared for optimizers that ask for the loss function.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> model = kerasopt.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        >>> model.compile(kerasopt.optimizers.NewtonCG(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        prepare(self)


class Model(keras.Model):
    """`keras.Model`, prepared for optimizers that ask for the loss function.

    Call it with inputs and outputs, or derive a class from it that has `call`. A class of yours
    that hands inputs and outputs on to `super().__init__` derives from `keras.Model` and calls
    `kerasopt.prepare(self)`.

    Raises:
        TypeError: A class derived from it hands inputs and outputs on.

    Example:
        >>> import keras, kerasopt
        >>> import numpy as np
        >>> inputs = keras.Input((4,))
        >>> model = kerasopt.Model(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile(kerasopt.optimizers.NewtonCG(), "mse")
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a functional model, if there are inputs and outputs."""
        if cls is Model and (args or kwargs):
            return Functional(*args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or "outputs" in kwargs:  # Keras would change the base of this class for all others
            raise TypeError(
                "A class derived from `kerasopt.Model` must not hand inputs and outputs on: derive "
                "it from `keras.Model` and call `kerasopt.prepare(self)`. "
                f"Received: {type(self).__name__}"
            )
        super().__init__(**kwargs)
        prepare(self)


@keras.saving.register_keras_serializable("kerasopt")
class Functional(keras.Model):
    """What `Model` makes of inputs and outputs. Keras changes the base of such a class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        prepare(self)
