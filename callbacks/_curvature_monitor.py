"""The curvature while training, and what it says of the learning rate."""

import sys
from copy import deepcopy
from math import isnan, nan
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasopt._rate_factor import innermost
from kerasopt._validation import check_choice, check_count
from kerasopt.callbacks._every import Every
from kerasopt.callbacks._rows_of_fit import rows_of_fit
from kerasopt.curvature._curvature import KINDS, Curvature
from kerasopt.curvature._eigenvalues import random_rows
from kerasopt.curvature._lanczos import dots
from kerasopt.curvature._ritz import ritz

TOLERANCE, MOST = 1e-2, 100  # of the eigenvalues; from the last vectors a few products do


class CurvatureMonitor(keras.callbacks.Callback):
    """Logs the largest eigenvalues and the trace of the Hessian, and what they say of the rate.

    Use it where a training oscillates, diverges or creeps. Gradient descent converges along the
    steepest direction as long as η < 2 / λ. With larger rates the loss rises until the weights
    have found a flatter place, or for ever; training at a fixed rate often hovers near the limit.
    Logged are the newest values of an epoch, or not-a-number before there are any and where the
    weights have diverged:

        lambda_max           λ₁, the largest eigenvalue; lambda_2 … lambda_k the next
        hessian_trace        tr H ≈ Σ_i λ_i + 1/p Σ v ᵀH v,  v random signs without the parts along
                             the eigenvectors
        rate_over_limit      η λ₁ / 2; past 1 plain gradient descent is unstable

    The limit is that of gradient descent: with momentum β it is 1 + β times as far, and methods
    that scale the gradient, such as Adam, have another.

    It looks at the same rows each time: those given, or as many of the training data as are in a
    batch, evenly spread over them, of a dataset its first batch. Eigenvalues are sought from the
    last eigenvectors on, to about one per cent, which takes few products. The first time a
    function is compiled.

    Args:
        every: Number ≥ 1 of training batches between two looks. Defaults to 100.
        k: Number ≥ 1 of eigenvalues. Defaults to 1.
        x: Data to look at, as `kerasopt.curvature.Curvature` takes them. Defaults to None: a batch
            of the training data, which then must not be a generator.
        y: Targets, of arrays. Defaults to None.
        sample_weight: Weights of the rows, of arrays. Defaults to None.
        kind: `"hessian"`, or `"gauss_newton"`. Defaults to `"hessian"`.
        probes: Number p ≥ 1 of random vectors for the trace; each costs a product. Defaults to 1.
        verbose: 1 to print what is found. Defaults to 0.
        seed: Seed of the random vectors. Defaults to 0.

    Attributes:
        history: Lists of equal length by the names of the logs, with `"step"`, the number of
            batches trained, and `"learning_rate"`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range; in `fit`, the training data come from a
            generator and `x` is None.

    Reference:
        Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability,
        2021; X. Wang, Optimization for Training Deep Models, lecture, 2015, "Learning rate".

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> monitor = kerasopt.callbacks.CurvatureMonitor(every=1)
        >>> _ = model.fit(x, y, verbose=0, callbacks=[monitor])
        >>> monitor.verdict
        'the rate 0.1 is 0.2 of the stable limit 0.5 of gradient descent'
    """

    def __init__(
        self,
        every: int = 100,
        k: int = 1,
        x: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        kind: str = "hessian",
        probes: int = 1,
        verbose: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._every = Every("every", every)
        self.every, self.k = every, check_count("k", k)
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.kind = check_choice("kind", kind, KINDS)
        self.probes = check_count("probes", probes)
        self.verbose = check_count("verbose", verbose, least=0)
        self.seed = check_count("seed", seed, least=0)
        self._names = ["lambda_max", *(f"lambda_{i}" for i in range(2, k + 1))]
        self._names += ["hessian_trace", "rate_over_limit"]
        self.history: dict[str, list[float]] = {}
        self._vectors: np.ndarray | None = None

    @property
    def verdict(self) -> str:
        """What the newest values say of the learning rate, in words."""
        if not self.history:
            return "not measured yet"
        rate, ratio = (self.history[name][-1] for name in ("learning_rate", "rate_over_limit"))
        if isnan(ratio):
            return "the curvature is not finite: training has diverged"
        if ratio <= 0:
            return f"the rate {rate:.3g} has no limit: the curvature is nowhere positive"
        limit = f"the stable limit {rate / ratio:.3g} of gradient descent"
        if ratio > 1:
            return f"the rate {rate:.3g} is past {limit} by {ratio:.2g}×"
        return f"the rate {rate:.3g} is {ratio:.2g} of {limit}"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin to count."""
        self._every.begin_training()
        self._curvature: Curvature | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Expect the first batch of the epoch."""
        self._every.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the curvature if it is time."""
        if self._every.reached(batch, self.params["steps"]):
            self._look(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Log the newest values."""
        logs.update({name: self.history.get(name, [nan])[-1] for name in self._names})
        if self.verbose:
            sys.stdout.write(f"\nEpoch {epoch + 1}: {self.verdict}\n")

    def get_state(self) -> dict[str, Any]:
        """Return what has been found, and the eigenvectors to go on from."""
        vectors = None if self._vectors is None else np.array(self._vectors)
        every = self._every.get_state()
        return {"history": deepcopy(self.history), "vectors": vectors, "every": every}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self.history = deepcopy(state["history"])
        vectors = state["vectors"]
        self._vectors = None if vectors is None else np.array(vectors)
        self._every.set_state(state["every"])

    def _look(self, model: keras.Model) -> None:
        if self._curvature is None:
            data = (self.x, self.y, self.sample_weight) if self.x is not None else rows_of_fit()
            x, y, sample_weight = data
            self._curvature = Curvature(model, x, y, sample_weight=sample_weight)
            shape, random = (self.probes, self._curvature.size), np.random.default_rng(self.seed)
            self._signs = random.choice([-1.0, 1.0], shape).astype(self._curvature.dtype)
        curvature = self._curvature
        if self._vectors is None or self._vectors.shape[1] != curvature.size:
            self._vectors = random_rows(curvature, self.k, self.seed)
        rate = float(ops.convert_to_numpy(next(innermost(model.optimizer)).learning_rate))
        try:
            values, trace = self._spectrum(curvature, self._vectors.astype(curvature.dtype))
        except FloatingPointError:  # training has diverged, and may be taken back
            values, trace = [nan], nan
        row = [*values, *[nan] * (self.k - len(values)), trace, rate * values[0] / 2]
        taken = dict(zip(self._names, row, strict=True))
        for name, value in {"step": self._every.count, "learning_rate": rate, **taken}.items():
            self.history.setdefault(name, []).append(value)

    def _spectrum(self, curvature: Curvature, vectors: np.ndarray) -> tuple[list[float], float]:
        """Return the eigenvalues and the trace, from the last eigenvectors on."""
        start = np.concatenate([vectors, self._signs])
        start /= np.linalg.norm(start, axis=1, keepdims=True)
        values, self._vectors, images = ritz(
            lambda rows: curvature.products(rows, self.kind), start, self.k, TOLERANCE, MOST
        )
        signs, images = start[len(vectors) :], images[len(vectors) :]
        along, turned = (dots(rows, self._vectors) for rows in (signs, images))
        others = np.sum(signs * images) + np.sum(along**2 * values - 2 * along * turned)
        trace = np.sum(values) + curvature.size * others / self.probes
        return values.tolist(), float(trace)
