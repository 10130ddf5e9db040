"""How much the output owes to each depth, during the training."""

import warnings
from copy import deepcopy
from typing import Any

import keras
import numpy as np

from kerasopt._validation import check_count
from kerasopt.callbacks._every import Every
from kerasopt.callbacks._jacobian_diagnosis import exploded, saturates, vanished
from kerasopt.callbacks._rows_of_fit import rows_of_fit
from kerasopt.curvature._chain import Chain, check_chain
from kerasopt.curvature._data import data_pass
from kerasopt.curvature._jacobian import EXACT, of_output

PREFIX = "jacobian_norm/"  # of the names in the logs


class JacobianMonitor(keras.callbacks.Callback):
    """Logs how much the output depends on each depth, and warns where that vanishes or explodes.

    Use it where a deep network does not learn, or learns and then breaks. When training begins and
    in every so many steps it takes, on a few samples, the largest singular value of the derivatives
    of the output y by what is at each depth t of the model,

        σ_t = median over the samples of σ_max(∂y/∂h_t)

    which is by how much y moves at most where h_t moves by one. All gradients of the weights below
    pass through ∂y/∂h_t. The depths are those of `kerasopt.curvature.jacobian_singular_values`. The
    newest values are logged with each epoch as jacobian_norm/<depth>.

    Once each in a training it warns, naming the layer and what to try, that some σ_t above the
    input is

        vanishing   < 0.001
        exploding   > 1000, or not a finite number

    An output layer with softmax or sigmoid saturates as the model learns, which makes all σ_t
    small. There they are vanishing where they are < 0.001 of that of the last depth, if it is < 1.

    Args:
        every: Number ≥ 1 of steps between two looks. With `steps_per_execution` a look comes after
            the execution that reaches it. Defaults to 100.
        x: Inputs to take them on: arrays, or a `tf.data.Dataset`, `PyDataset` or other iterable of
            batches. The first `samples` are used. Defaults to None: as many of the training data
            as are in a batch, which then must not come from a generator.
        samples: Largest number ≥ 1 of samples; of batches, not more than the first has. Defaults to
            32.

    Attributes:
        history: Lists of equal length by name: `"step"`, the number of training steps done, and
            σ_t for each depth, such as `"jacobian_norm/dense"`.

    Raises:
        TypeError: `every` or `samples` is not an integer; when training begins: it is not a Keras
            model.
        ValueError: `every` or `samples` is less than 1; when training begins: the model is not
            built, has no graph of layers or several outputs, or the data come from a generator
            and `x` is None.

    Reference:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013;
        X. Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> layers = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> monitor = kerasopt.callbacks.JacobianMonitor(every=2)
        >>> _ = model.fit(x, y, batch_size=16, verbose=0, callbacks=[monitor])
        >>> monitor.history["step"], len(monitor.history["jacobian_norm/hidden"])
        ([0, 2, 4], 3)
    """

    def __init__(self, every: int = 100, x: Any = None, samples: int = 32) -> None:
        super().__init__()
        self._every = Every("every", every)
        self.every, self.samples = every, check_count("samples", samples)
        self.x = None if x is None else next(data_pass(x, None, None, self.samples))[0]
        self.history: dict[str, list[float]] = {"step": []}
        self._warned: list[str] = []
        self._resumes = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the depths, and look at them before the first step."""
        self._every.begin_training()
        x = rows_of_fit()[0] if self.x is None else self.x
        self._x = keras.tree.map_structure(lambda part: part[: self.samples], x)
        self._chain, self._saturates = Chain(check_chain(self.model)), saturates(self.model)
        if not self._resumes:
            self._warned = []
            self._look()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Expect the first batch of the epoch."""
        self._every.begin_epoch()
        self._resumes = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look if it is time."""
        if self._every.reached(batch, self.params["steps"]):
            self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Log the newest values."""
        logs.update({name: v[-1] for name, v in self.history.items() if name != "step"})

    def get_state(self) -> dict[str, Any]:
        """Return the values and the place within the training, as a dict that JSON can hold."""
        state = {"history": self.history, "warned": self._warned}
        return deepcopy({**state, "every": self._every.get_state()})

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.history, self._warned = deepcopy(state["history"]), list(state["warned"])
        self._every.set_state(state["every"])
        self._resumes = True

    def _look(self) -> None:
        """Take the values, unless those of this step have been taken, and warn of them."""
        if self._every.count in self.history["step"][-1:]:
            return
        model = self.model  # on JAX this brings the weights' values into the model
        assert model is not None
        values = of_output(self._chain, self._x, EXACT, np.random.default_rng(0))
        norms = [float(np.median(value[:, 0])) for value in values]
        depths = self._chain.names[-len(norms) - 1 : -1]
        step = self._every.count
        for name, value in {"step": step, **dict(zip(depths, norms, strict=True))}.items():
            self.history.setdefault(name if name == "step" else PREFIX + name, []).append(value)
        start = depths[0] == "input"  # on which no gradient of weights depends
        layers, norms = depths[start:], norms[start:]
        if layers:
            self._warn("vanishes", vanished(layers, step, norms, self._saturates))
            self._warn("explodes", exploded(layers, step, norms))

    def _warn(self, what: str, text: str | None) -> None:
        if text and what not in self._warned:
            self._warned.append(what)
            warnings.warn(text, stacklevel=2)
