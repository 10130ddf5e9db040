"""Samples with a large error, more often."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasopt._validation import check_count, check_flag, check_number
from kerasopt.callbacks._batches import arrays_of, row_count, take_rows
from kerasopt.data._loss_history import LossHistory
from kerasopt.data._loss_pass import LossPass
from kerasopt.data._row_batches import RowBatches, shard
from kerasopt.data._shares import Shares


class Outliers(NamedTuple):
    """Samples whose loss stays large, those with the largest first."""

    indices: np.ndarray  # rows of the data
    losses: np.ndarray  # the mean of each one's losses, over all epochs


class ErrorWeightedSampler(RowBatches):
    """Shows samples with a large error more often than those with a small one.

    Late in training most samples are fitted well and teach nothing; time goes into those that are
    not. The sampler is the data for `fit`, and its callback finds the losses out:

        model.fit(sampler, epochs=20, callbacks=[sampler.callback])

        s_i = max(l_i^α, floor · mean(l^α)),  p_i = s_i / Σ s       l_i: the newest loss of i
        w_i = 1 / (N p_i)                                           its weight in the loss

    An epoch has N draws, with replacement, by systematic sampling: sample i comes N p_i times,
    rounded down or up, and before there are losses each comes once. The weights w_i, one in the
    mean, keep the gradient without bias: its expectation is that of the whole data.

    Outliers, such as wrong labels, have large errors too, and this would show them all the time.
    So samples whose loss stays in the top are held to the mean share, and are listed in `outliers`,
    to be looked at. The top are those whose mean loss over all epochs is in the top quantile, and
    all that are as bad: above √(a b), where a is the mean in that quantile and b is that of the
    others. A sample is listed when it was there for `patience` epochs in a row, and no longer when
    it has left.

    The losses come from a forward pass over the data at the end of each epoch, with dropout and the
    like off, and with what `compile` was given as loss. With it an epoch of a small convolutional
    network takes 1.4 to 1.7 times as long as on arrays (`benchmarks/data.py`). In a loop of one's
    own call `update(losses)` after each epoch, or `update(losses, rows)` with those of a batch:
    once as many losses have come as there are samples, each batch is drawn by the newest, with
    mean(l^α) and the top of when there was last a whole number of epochs of them. Metrics see the
    samples as they are shown: pass `weighted_metrics` to `compile` for those of the data. Leave out
    `steps_per_epoch`: with it Keras reads ahead, into the next epoch.

    Args:
        x: Inputs: an array, or a structure of arrays.
        y: Targets.
        batch_size: Number of samples in a batch, of which the last one may be smaller: ≥ 1 and at
            most the number of samples. Defaults to 32.
        alpha: Power ≥ 0 of the loss: at 0 all samples come equally often. Defaults to 1.
        floor: The least share of a sample, in [0, 1], in units of the mean: no loss is so small
            that it is not looked at again. It bounds the weights by 1 + 1 / floor. Defaults to 0.1.
        outlier_quantile: Beginning of the top quantile, in [0, 1]; 1 for no guard against outliers.
            Defaults to 0.98.
        importance_correction: Whether batches have the weights w_i. Without them, training
            minimises another loss, in which large errors count more. Defaults to True.
        patience: For how many epochs ≥ 1 in a row an outlier is in the top. Defaults to 3.
        seed: Integer ≥ 0 for a repeatable order, or None: from NumPy's random numbers, which
            `keras.utils.set_random_seed` seeds. Defaults to None.
        sample_weight: Weights of the samples in the loss, by which w_i are multiplied; sampling
            goes by the weighted losses. Defaults to None.
        num_shards: Into how many shares the samples are cut, for as many workers, ≥ 1: every
            `num_shards`th sample is in one, and all have as many batches. Defaults to 1, which is
            right under `kerasopt.strategies` too.
        shard_index: Which of these it is, counted from 0. Defaults to 0.

    Attributes:
        callback: The callback, which `fit` needs beside the sampler.
        outliers: The pair (indices, losses) of arrays: rows of the data, and their mean losses, the
            largest first.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There are no samples or no targets, or arrays differ in length; `batch_size` is
            larger than the number of samples, or a number is out of range; in `fit`: the callback
            is missing, or losses are negative or not finite.

    Reference:
        Katharopoulos and Fleuret, Not all samples are created equal: deep learning with importance
        sampling, 2018; Schaul, Quan, Antonoglou and Silver, Prioritized experience replay, 2016
        (α); Huang, Qu, Jia and Zhao, O2U-Net, 2019 (the mean loss over epochs tells wrong labels);
        X. Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt.data, numpy as np
        >>> x = np.linspace(-1, 1, 100)[:, None]
        >>> sampler = kerasopt.data.ErrorWeightedSampler(x, 2 * x, batch_size=10, seed=0)
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> _ = model.fit(sampler, epochs=3, verbose=0, callbacks=[sampler.callback])
        >>> images, labels, weights = sampler[0]
        >>> weights.shape
        (10,)
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        alpha: float = 1.0,
        floor: float = 0.1,
        outlier_quantile: float = 0.98,
        importance_correction: bool = True,
        patience: int = 3,
        seed: int | None = None,
        sample_weight: Any = None,
        num_shards: int = 1,
        shard_index: int = 0,
    ) -> None:
        if y is None:
            raise ValueError(
                "`y` must be given: it is by the loss of targets that samples are drawn. For "
                "autoencoders pass `x` as targets. Received: y=None"
            )
        arrays = arrays_of(x, y, sample_weight)
        total = row_count(arrays)
        self._mine = shard(np.arange(total), num_shards, shard_index)
        if not len(self._mine):
            raise ValueError(
                f"`x` and `y` must have samples, one for each worker at least. Received: {total} "
                f"samples, num_shards={num_shards}"
            )
        super().__init__(arrays, -(-total // num_shards), batch_size, seed)
        self.alpha = check_number("alpha", alpha, "[0, inf)")
        self.floor = check_number("floor", floor, "[0, 1]")
        self.outlier_quantile = check_number("outlier_quantile", outlier_quantile, "[0, 1]")
        self.importance_correction = check_flag("importance_correction", importance_correction)
        self.patience = check_count("patience", patience)
        self.callback, self._begun = LossPass(self), 0
        self._restart(LossHistory.of(len(self._mine)))

    @property
    def outliers(self) -> Outliers:
        """Return the samples whose loss stays in the top."""
        listed = self.history.outliers(self.patience)
        return Outliers(self._mine[listed], self.history.means[listed])

    def __getitem__(self, index: int) -> Any:
        places, weights = self._batch(index)
        x, y, sample_weight = take_rows(self._arrays, self._mine[places])
        if self.importance_correction:
            weights = weights.astype(keras.config.floatx())
            sample_weight = weights if sample_weight is None else weights * sample_weight
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def rows(self, index: int) -> np.ndarray:
        """Return which rows of the data are in a batch of this epoch."""
        return self._mine[self._batch(index)[0]]

    def samples(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the samples (x, y, sample_weight) in their order, in batches of one size.

        The last one goes on with the first samples.
        """
        count, size = len(self._mine), min(self.batch_size, len(self._mine))
        for start in range(0, count, size):
            rows = self._mine[np.arange(start, start + size) % count]
            yield take_rows(self._arrays, rows)

    def update(self, losses: Any, rows: Any = None) -> None:
        """Draw by these losses from now on.

        Args:
            losses: The losses of samples, ≥ 0.
            rows: Which rows of the data they are of, such as `rows(index)`. Defaults to all (of
                this share), in their order.
        """
        places = np.arange(len(self._mine)) if rows is None else np.searchsorted(self._mine, rows)
        losses = _check_losses(losses, places)
        self.history.update(places, losses, self.outlier_quantile)
        if not self.history.seen:
            self.history.take_mean(self.alpha, self.patience)
            self._restart(self.history)
        elif self.history.epochs:
            self._shares.put(places, self._due(places))
            self._draw_anew()

    def on_epoch_begin(self) -> None:
        """Check that the losses will come: before training begins, Keras may open the data once."""
        self._begun = 0 if self.callback.training else self._begun + 1
        if self._begun > 1:
            raise ValueError(
                "`ErrorWeightedSampler` needs its callback to learn of the losses: train with "
                "`model.fit(sampler, callbacks=[sampler.callback])`; evaluate on the arrays. "
                "Received: no callback"
            )

    def get_state(self) -> dict[str, Any]:
        """Return the losses, and what decides on the order."""
        return {"seed": self.seed, **copy.deepcopy(vars(self.history))}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        history = {name: state[name] for name in vars(self.history)}
        arrays = {name: np.array(each) for name, each in history.items() if np.ndim(each)}
        self.seed = state["seed"]
        self._restart(LossHistory(**{**history, **arrays}))

    def _restart(self, history: LossHistory) -> None:
        self.history = history
        self._shares = Shares(self._due(slice(None)))
        self._draw_anew()

    def _draw_anew(self) -> None:
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # newest, by number

    def _due(self, places: Any) -> np.ndarray:
        return self.history.shares(places, self.alpha, self.floor, self.patience)

    def _batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in this share, and the weights w, of the samples of a batch."""
        span = self._span(index)
        if self.history.seen and self.history.epochs:  # drawn by the newest losses
            size = min(span.stop, self._count) - span.start
            return self._draw(size, index + 1)
        places, weights = self._draw(self._count, 0)
        return places[span], weights[span]

    def _draw(self, count: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = self._drawn  # Keras may read in another thread while there is an update
        if number not in drawn:
            random = np.random.default_rng([self.seed, self.history.epochs, number])
            drawn[number] = self._shares.draw(count, random)
        return drawn[number]


def _check_losses(losses: Any, places: np.ndarray) -> np.ndarray:
    losses = np.asarray(losses, "float64")
    if losses.shape != places.shape:
        raise ValueError(
            f"`losses` must be one for each of {len(places)} samples. Received: losses of shape "
            f"{losses.shape}"
        )
    rounding = 1e-6 * np.abs(losses).max(initial=1.0)
    losses = np.where((losses < 0) & (losses > -rounding), 0.0, losses)
    bad = ~(np.isfinite(losses) & (losses >= 0))
    if bad.any():
        raise ValueError(
            "The losses of samples must be finite and ≥ 0, to draw samples by them. Received: "
            f"{losses[bad][:3]} and others, {bad.sum()} of {len(losses)}. If all are, training "
            "diverged; if few, look at the data, such as labels that are no class."
        )
    return losses
