"""Singular values of the Jacobians of a model, by depth."""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import keras
import numpy as np

from kerasopt._files import check_writable
from kerasopt._validation import check_count
from kerasopt.callbacks._curve_figure import check_picture
from kerasopt.curvature._chain import Chain, check_chain
from kerasopt.curvature._data import data_pass
from kerasopt.curvature._golub_kahan import largest_singular_values
from kerasopt.curvature._jacobian_spectrum import JacobianSpectrum

EXACT = 128  # rows of a Jacobian


def jacobian_singular_values(
    model: keras.Model,
    x: Any,
    batch_size: int = 32,
    exact: int = EXACT,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
) -> JacobianSpectrum:
    """Return the singular values of each stage's Jacobian, and of their products, for each sample.

    Use it to see whether signals and gradients vanish or explode with depth. A model is a
    composition y = f_T(… f_2(f_1(x))), so that what its output owes to what is at depth t,
    h_t = f_t(… f_1(x)), is a product of Jacobians,

        ∂y/∂h_t = f_T' … f_{t+2}' f_{t+1}'          f_t' = ∂h_t/∂h_{t-1}

    Gradients pass through it on their way down. If ln σ_max of the factors were independent, its
    variance would grow linearly with the number of factors.

    The stages of a `Sequential` model are its layers. The graph of a functional model is cut at
    each tensor that all of the output depends on: a residual block is one stage, called by its last
    layer, `Add`. Models within the model are taken apart likewise. Depths start where derivatives
    do: with integers as inputs, or several inputs, after the layer that makes one tensor of floats
    of them. All is as in inference: no dropout, moving statistics.

    Where a Jacobian has at most `exact` rows it is computed as a whole; else its largest singular
    value alone, by the bidiagonalisation of Golub and Kahan with a residual of 1e-4 of it. Memory
    of batch_size · outputs · (elements of all depths) is needed.

    Args:
        model: A built `Sequential` or functional model with one output.
        x: The inputs: arrays, or a `tf.data.Dataset`, `PyDataset` or other iterable of batches, of
            which targets are not looked at. A few hundred samples are enough.
        batch_size: Rows ≥ 1 of a batch, of arrays. Defaults to 32.
        exact: Largest number ≥ 0 of rows of a Jacobian that is computed as a whole. Defaults to
            128.
        seed: Seed ≥ 0 of the vectors that bidiagonalisation starts from. Defaults to 0.
        path: File to draw to, `.png`, `.svg` or `.pdf`, or None. Defaults to None.

    Returns:
        A `JacobianSpectrum`, with `names`, `stages`, `products`, `log_norms`, `mean_log_norm`,
        `variance_log_norm` and the method `plot(path)`.

    Raises:
        TypeError: `model` is not a Keras model, or an argument is not an integer.
        ValueError: The model is not built, has no graph of layers or several outputs; or an
            argument is out of range.
        OSError: The file cannot be written.

    Reference:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013;
        Golub and Kahan, Calculating the singular values and pseudo-inverse of a matrix, 1965; X.
        Wang, Optimization for Training Deep Models, lecture, 2015.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> layers = [keras.layers.Dense(4, "sigmoid", name=f"layer_{i}") for i in range(1, 7)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> found = kerasopt.curvature.jacobian_singular_values(model, np.ones((2, 4)))
        >>> found.names[:2], found.products[0].shape
        (('input', 'layer_1'), (2, 4))
        >>> bool(np.all(found.mean_log_norm[1:] > found.mean_log_norm[:-1]))  # vanishing
        True
    """
    check_chain(model)
    check_count("batch_size", batch_size)
    check_count("exact", exact, least=0)
    random = np.random.default_rng(check_count("seed", seed, least=0))
    if path is not None:
        check_writable("path", check_picture(path))
    chain, stages, products = Chain(model), [], []
    for batch in data_pass(x, None, None, batch_size):
        stages.append(_of_stages(chain, batch[0], exact, random))
        products.append(of_output(chain, batch[0], exact, random))
    names = chain.names[-len(products[0]) - 1 :]
    found = JacobianSpectrum(tuple(names), _joined(stages), _joined(products))
    if path is not None:
        found.plot(path)
    return found


def of_output(chain: Chain, x: Any, exact: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return the singular values of the derivatives of the output by each depth below it."""
    sizes, rows = chain.elements(x), keras.tree.flatten(x)[0].shape[0]
    if sizes[-1] <= exact:
        pulled = [chain.transposed(x, unit) for unit in _units(rows, sizes[-1:], exact)]
        return [_singular_values(some) for some in zip(*pulled, strict=True)]
    zeros = [np.zeros((rows, size), "float32") for size in sizes[:-1]]

    def largest(depth: int) -> np.ndarray:
        below, above = zeros[:depth], zeros[depth + 1 :]
        return largest_singular_values(
            lambda v: np.asarray(chain.products(x, [*below, single(v), *above])[0]),
            lambda u: np.asarray(chain.transposed(x, [single(u)])[depth]),
            random.normal(size=(rows, sizes[depth])),
        )[:, None]

    return [largest(depth) for depth in range(len(zeros))]


def _of_stages(chain: Chain, x: Any, exact: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return the singular values of the Jacobian of each stage; all stages go side by side."""
    sizes, rows = chain.elements(x), keras.tree.flatten(x)[0].shape[0]
    pulled = [chain.stage_transposed(x, units) for units in _units(rows, sizes[1:], exact)]
    large = _Stack(rows, sizes, [size > exact for size in sizes[1:]])
    values = large.values(chain, x, random) if any(large.chosen) else []
    return [
        values[place] if chosen else _singular_values([each[place] for each in pulled[:size]])
        for place, (size, chosen) in enumerate(zip(sizes[1:], large.chosen, strict=True))
    ]


class _Stack:
    """Vectors of some stages, padded to one length, as the rows of one array."""

    def __init__(self, rows: int, sizes: Sequence[int], chosen: Sequence[bool]) -> None:
        self.rows, self.sizes, self.chosen = rows, sizes, chosen

    def values(self, chain: Chain, x: Any, random: np.random.Generator) -> list[np.ndarray]:
        """Return the largest singular values of the Jacobians of the stages."""
        below, above = self.sizes[:-1], self.sizes[1:]
        values = largest_singular_values(
            lambda v: self._join(chain.stage_products(x, self._split(v, below))),
            lambda u: self._join(chain.stage_transposed(x, self._split(u, above))),
            self._join([random.normal(size=(self.rows, size)) for size in below]),
        )
        return [*values.reshape(len(below), self.rows, 1)]

    def _join(self, parts: Sequence[Any]) -> np.ndarray:
        joined = np.zeros((len(parts), self.rows, max(self.sizes)))
        for place, part in enumerate(parts):
            if self.chosen[place]:
                joined[place, :, : part.shape[1]] = part
        return joined.reshape(-1, max(self.sizes))

    def _split(self, joined: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
        parts = joined.reshape(len(sizes), self.rows, -1)
        return [single(part[:, :size]) for part, size in zip(parts, sizes, strict=True)]


def _units(rows: int, sizes: Sequence[int], exact: int) -> Iterator[list[np.ndarray]]:
    """Yield the unit vectors of spaces of at most `exact` dimensions, side by side, and zeros."""
    for place in range(max((size for size in sizes if size <= exact), default=0)):
        units = [np.zeros((rows, size), "float32") for size in sizes]
        for unit in units:
            unit[:, place : place + 1] = unit.shape[1] <= exact
        yield units


def _singular_values(rows_of_jacobian: Sequence[Any]) -> np.ndarray:
    matrices = np.stack([np.asarray(row, "float64") for row in rows_of_jacobian], axis=1)
    finite = np.isfinite(matrices).all(axis=(1, 2), keepdims=True)
    values = np.linalg.svd(np.where(finite, matrices, 0.0), compute_uv=False)
    return np.where(finite[:, 0], values, np.nan)


def single(vectors: np.ndarray) -> np.ndarray:
    """Return vectors for the compiled products: one type, so that they are traced once."""
    return vectors.astype("float32")


def _joined(batches: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(depth) for depth in zip(*batches, strict=True))
