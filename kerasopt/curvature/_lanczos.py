"""Block Lanczos with full re-orthogonalisation, for symmetric matrices that are products only."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Products = Callable[[np.ndarray], np.ndarray]


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of all rows with all rows.

    By NumPy's own loops: the threads of BLAS and those of the backend would wait for each other.
    """
    return np.einsum("in,jn->ij", a, b)


def mixed(factors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return linear combinations of rows."""
    return np.einsum("ij,jn->in", factors.astype(rows.dtype), rows)


def away(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return rows without their parts along those of an orthonormal basis."""
    return rows - mixed(dots(rows, basis), basis)


class Krylov(NamedTuple):
    """An orthonormal basis of a Krylov space, as rows, and the matrix within it.

        H Qᵀ = Qᵀ T + Q₊ᵀ [0 … 0 R]

    Attributes:
        basis: Q, of m rows.
        matrix: T = Q H Qᵀ, m×m.
        rest: R, by which the products with the last block leave the space; zero where the space is
            all there is.
    """

    basis: np.ndarray
    matrix: np.ndarray
    rest: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ascending eigenvalues of T, eigenvectors as columns, and ‖H u - λ u‖."""
        values, vectors = np.linalg.eigh(self.matrix)
        last = vectors[-self.rest.shape[1] :]
        return values, vectors, np.linalg.norm(self.rest @ last, axis=0)


def lanczos(products: Products, start: np.ndarray, most: int) -> Iterator[Krylov]:
    """Yield Krylov spaces that grow by one block of vectors, up to `most` vectors.

    Several vectors at a time share the cost of a gradient, and find eigenvalues that are as often
    there as there are vectors. A space that does not grow goes on in a random direction.

    Args:
        products: Function of a block of rows that returns their products with the matrix.
        start: The first block, of independent rows.
        most: The largest number of vectors, at most that of the columns of `start`.
    """
    random = np.random.default_rng([0, 1])  # not that which the start may come from
    basis = np.empty((most, start.shape[1]), start.dtype)
    matrix, width = np.zeros((most, most)), len(start)  # one width, which is compiled once
    block, done = _orthonormal(start, *_principal(start), basis[:0], random), 0
    while True:
        end = done + len(block)
        basis[done:end] = block
        images = products(np.pad(block, [(0, width - len(block)), (0, 0)]))[: len(block)]
        scale = float(np.linalg.norm(images))
        inside = dots(basis[:end], images)
        matrix[:end, done:end], matrix[done:end, :end] = inside, inside.T
        rest = away(images - mixed(inside.T, basis[:end]), basis[:end])
        lengths, axes = _principal(rest, scale)
        outside = lengths[:, None] * axes
        yield Krylov(basis[:end], (matrix[:end, :end] + matrix[:end, :end].T) / 2, outside)
        if end == most:
            return
        block = _orthonormal(rest, lengths, axes, basis[:end], random)[: most - end]
        done = end


def _orthonormal(
    rows: np.ndarray,
    lengths: np.ndarray,
    axes: np.ndarray,
    basis: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the directions of the principal axes of rows, orthogonal to a basis.

    Where the length is zero random directions take their place, as long as there are any.
    """
    spent = lengths == 0
    new = mixed(axes / np.where(spent, 1, lengths)[:, None], rows)
    new[spent] = random.normal(size=new[spent].shape) / np.sqrt(rows.shape[1])
    new = new[: rows.shape[1] - len(basis)]
    for _ in range(2 if spent.any() else 1):  # what was short has lost its right angles
        new = away(new, basis)
        again, turned = _principal(new)
        new = mixed(turned / again[:, None], new)
    return new


def _principal(rows: np.ndarray, scale: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths and the directions of the principal axes of rows, the longest first.

    Lengths within rounding, of rows that had the length `scale` before, are zero. A product of the
    rows with themselves is faster than their QR factors, on all of many columns.
    """
    wide = rows.astype("float64")
    squares, axes = np.linalg.eigh(dots(wide, wide))
    lengths = np.sqrt(np.maximum(squares[::-1], 0))
    least = 10 * np.finfo(rows.dtype).eps * max(scale, lengths[0])
    return np.where(lengths > least, lengths, 0), axes.T[::-1]
