"""The learning rate to begin with, from a few steps at growing rates."""

from itertools import chain
from math import isfinite
from os import PathLike
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt._acting import ActingCallback
from kerasopt._files import check_writable
from kerasopt._objective import of_batch
from kerasopt._rate_factor import LearningRate
from kerasopt._strategy import is_chief
from kerasopt._validation import check_choice, check_count, check_number
from kerasopt.callbacks._batches import endless_batches
from kerasopt.callbacks._curve_figure import check_picture, smoothed
from kerasopt.callbacks._gradient_tap import forget
from kerasopt.callbacks._range_test import RangeTest
from kerasopt.callbacks._snapshot import Snapshot, training_state
from kerasopt.optimizers._flat import norm

DIVERGED = 4.0  # times the lowest smoothed loss
PRODUCTS = 30  # of the power iteration


class LearningRateFinder(ActingCallback):
    """Finds the learning rate as `fit` begins, and sets it.

    A schedule is scaled: its first rate is the one that was found. It is found once: in a second
    `fit` with the same object the rate stays. See `find_learning_rate` for how.

    Args:
        x: Data of the test, as `fit` takes it: arrays, a `tf.data.Dataset` of batches, a
            `keras.utils.PyDataset` or any other iterable of batches. The training data, or a part.
        y: Targets, of arrays. Defaults to None.
        sample_weight: Weights of the samples, of arrays. Defaults to None.
        min_learning_rate: The first rate of the test, > 0. Defaults to 1e-7.
        max_learning_rate: The last one, larger than the first. Defaults to 10.
        steps: Number of steps, and of rates, ≥ 2. Defaults to 100.
        batch_size: Number of rows of a batch, of arrays. Defaults to 32.
        suggest: `"valley"`, `"steepest"` or `"curvature"`. Defaults to `"valley"`.
        smooth: Factor β in [0, 1) of the moving average of the loss. Defaults to 0.9.
        path: File to draw the loss against the rate to, `.png`, `.svg` or `.pdf`, or None; of
            `kerasopt.strategies.MultiWorker` the chief draws. Defaults to None.
        seed: Seed of the order of the rows. Defaults to 0.

    Attributes:
        result: What `find_learning_rate` returned, or None before.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range; when training begins: the rate is a function,
            a schedule that begins at zero, the loss is not finite in the first two steps, or it has
            no curvature, such as that of a linear model's mean absolute error, and `suggest` is
            `"curvature"`.
        OSError: When training begins: the file cannot be written.

    Reference:
        Smith, Cyclical learning rates for training neural networks, 2017, section 3.3.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
        >>> y = x.sum(axis=1, keepdims=True)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> finder = kerasopt.callbacks.LearningRateFinder(x, y, suggest="curvature")
        >>> loss = model.fit(x, y, epochs=3, verbose=0, callbacks=[finder]).history["loss"]
        >>> loss[-1] < 0.01 * loss[0]
        True
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        min_learning_rate: float = 1e-7,
        max_learning_rate: float = 10.0,
        steps: int = 100,
        batch_size: int = 32,
        suggest: str = "valley",
        smooth: float = 0.9,
        path: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.min_learning_rate = check_number("min_learning_rate", min_learning_rate, "(0, inf)")
        above = f"({self.min_learning_rate}, inf)"
        self.max_learning_rate = check_number("max_learning_rate", max_learning_rate, above)
        self.steps = check_count("steps", steps, least=2)
        self.batch_size = check_count("batch_size", batch_size)
        self.suggest = check_choice("suggest", suggest, ("valley", "steepest", "curvature"))
        self.smooth = check_number("smooth", smooth, "[0, 1)")
        self.path = None if path is None else check_picture(path)
        self.seed = check_count("seed", seed, least=0)
        self.result: RangeTest | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take the rate in hand."""
        self._rate = LearningRate(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Find the rate, unless it has been found, and set it."""
        if self.result is None:
            self.result = self._find(self.model)
            forget(self.model)
            _set(self._rate, self.result.learning_rate)
            self.note(epoch + 1, f"rate = {self.result.learning_rate:.2g}")

    def get_state(self) -> dict[str, Any]:
        """Return what has been found."""
        return {"result": self.result and self.result.to_dict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned: what has been found is not looked for again."""
        self.result = state["result"] and RangeTest(**state["result"])

    def _find(self, model: keras.Model) -> RangeTest:
        """Run the test, and put everything back."""
        path = self.path if is_chief(model) else None
        if path:
            check_writable("path", path)
        arguments = self.x, self.y, self.sample_weight, self.batch_size, self.seed
        batches = endless_batches(*arguments)
        first = next(batches)
        if not model.built:
            model(first[0])
        rate = LearningRate(model)
        factors = rate.state
        state = Snapshot([*training_state(model), *model.metrics_variables])
        rates = np.geomspace(self.min_learning_rate, self.max_learning_rate, self.steps).tolist()
        try:
            curvature = _curvature(model, first)
            losses = self._losses(model, rate, rates, chain([first], batches))
        finally:
            model.reset_metrics()  # those that the test has made; the others get back their values
            state.restore()
            rate.state = factors
        result = RangeTest(rates[: len(losses)], losses, self.smooth, curvature, self.suggest)
        if path:
            result.plot(path)
        return result

    def _losses(
        self, model: keras.Model, rate: LearningRate, rates: list[float], batches: Any
    ) -> list[float]:
        """Take a step at each rate, until the loss diverges; return the losses before the steps."""
        losses: list[float] = []
        for each, (x, y, sample_weight) in zip(rates, batches, strict=False):
            _set(rate, each)
            loss = model.train_on_batch(x, y, sample_weight, return_dict=True)["loss"]
            if not isfinite(loss):
                break
            losses.append(float(loss))
            means = smoothed(np.array(losses), self.smooth)
            if means[-1] > DIVERGED * means.min():
                break
        if len(losses) < 2:
            raise ValueError(
                "`min_learning_rate` must be so small that the loss stays finite. Received: "
                f"min_learning_rate={rates[0]}, where it is {loss} in step {len(losses) + 1}"
            )
        return losses


def find_learning_rate(model: keras.Model, x: Any, y: Any = None, **kwargs: Any) -> RangeTest:
    """Find a learning rate by a range test, and leave the model as it was.

    The rate grows by a constant factor from step to step until the loss is four times its lowest
    value. From the smoothed loss, and from the largest curvature, three rates are suggested:

        s ← β s + (1 - β) J,  without bias               β = smooth
        valley      the middle of the longest stretch of steps in which s falls
        steepest    argmin ds / d log η
        curvature   1 / λ,   λ the largest |eigenvalue| of the Hessian, on the first batch;
                    infinite where the loss has no curvature

    The first two are looked for up to the lowest s, without the first 1 / (1 - β) steps, whose
    average is of few. They depend on the optimizer; the third is the rate of plain gradient descent
    which is optimal along the direction of largest curvature. Weights, optimizer, metrics and
    random generators are afterwards what they were, to the bit. The test costs `steps` training
    steps and 30 products with the Hessian.

    Args:
        model: A compiled model.
        x: Data, as `fit` takes it: arrays, a `tf.data.Dataset` of batches, a
            `keras.utils.PyDataset` or any other iterable of batches.
        y: Targets, of arrays. Defaults to None.
        kwargs: Further arguments of `LearningRateFinder`.

    Returns:
        An object with the attributes `learning_rate`, which is what `suggest` chooses,
        `suggestions`, a dict of all three, `rates`, `losses` and `smoothed`, and the method
        `plot(path)`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: As of `LearningRateFinder`.
        OSError: The file cannot be written.

    Reference:
        Smith, Cyclical learning rates for training neural networks, 2017, section 3.3; LeCun,
        Simard and Pearlmutter, Automatic learning rate maximization by on-line estimation of the
        Hessian's eigenvectors, 1993 (`"curvature"`).

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
        >>> y = x.sum(axis=1, keepdims=True)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> found = kerasopt.callbacks.find_learning_rate(model, x, y)
        >>> 0.01 < found.learning_rate < 1
        True
        >>> list(found.suggestions)
        ['valley', 'steepest', 'curvature']
    """
    return LearningRateFinder(x, y, **kwargs)._find(model)


def _set(rate: LearningRate, value: float) -> None:
    """Scale all rates so that the first of them has this value."""
    now = rate.values[0]
    if not now:
        raise ValueError(
            "`learning_rate` must not be zero where it is scaled. Received: 0; compile the model "
            "with another rate, or with a schedule that does not begin at zero."
        )
    rate.scale(value / now)


def _curvature(model: keras.Model, batch: Any) -> float:
    """Return the largest |eigenvalue| of the Hessian on a batch, by power iteration."""
    others = [(v, ops.copy(v)) for v in model.non_trainable_variables]
    objective = of_batch(model, batch, model.trainable_variables, others)
    random = np.random.default_rng(0)
    v = [ops.convert_to_tensor(random.normal(size=w.shape), w.dtype) for w in objective.values]
    for _ in range(PRODUCTS):
        length = norm(v)
        length = ops.where(length > 0, length, 1.0)  # along a direction without curvature
        v = objective.hvp([each / ops.cast(length, each.dtype) for each in v])
    return float(norm(v))
