"""The largest eigenvalues by few products, from vectors that are near their eigenvectors."""

import numpy as np

from kerasopt.curvature._lanczos import Products, dots, mixed

INDEPENDENT = 1e-3  # of the eigenvalues of the products of rows of length 1


def settled(
    values: np.ndarray, chosen: np.ndarray, residuals: np.ndarray, size: int, tolerance: float
) -> bool:
    """Return whether the chosen of the eigenvalues within a space are near those of the matrix.

    They are exact where there are as many as the matrix has, `size`. Else their errors are bounded,
    where no other eigenvalue hides between those that are seen.
    """
    if len(values) == size:
        return True
    others = np.delete(values, chosen)
    if not len(others):
        return False
    gaps = np.abs(values[chosen, None] - others).min(axis=1)
    squares = np.sum(residuals**2) / np.maximum(gaps, np.finfo(float).tiny)
    errors = np.minimum(residuals, squares)
    return bool(errors.max() <= tolerance * np.abs(values).max())


def ritz(
    products: Products, start: np.ndarray, k: int, tolerance: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k largest eigenvalues, their eigenvectors as rows, and the images of `start`.

    Rayleigh's and Ritz's method: the best that the space of some vectors has, which grows by the
    residuals H u - λ u of those that are wanted. As what is wanted was near the start, and grows
    alone, this takes fewer products than a Lanczos method; and passes over few vectors, as no
    basis is made orthogonal.

    Args:
        products: Function of a block of rows that returns their products with the matrix.
        start: Rows of length 1, which need not be independent.
        k: How many.
        tolerance: Allowed error of an eigenvalue, by the largest.
        most: The largest number of products.
    """
    rows, images = start, products(start)
    while True:
        lengths, axes = np.linalg.eigh(dots(rows, rows).astype("float64"))
        kept = lengths > INDEPENDENT
        axes = axes[:, kept] / np.sqrt(lengths[kept])
        values, inside = np.linalg.eigh(axes.T @ dots(rows, images) @ axes)
        chosen = np.arange(len(values))[::-1][:k]
        factors = (axes @ inside[:, chosen]).T
        vectors, wanted = mixed(factors, rows), values[chosen]
        rest = mixed(factors, images) - wanted[:, None].astype(rows.dtype) * vectors
        residuals = np.sqrt(np.einsum("in,in->i", rest, rest, dtype="float64"))
        found = settled(values, chosen, residuals, rows.shape[1], tolerance)
        if found or len(rows) + k > most:
            return wanted, vectors, images[: len(start)]
        new = rest / np.maximum(residuals, np.finfo(rows.dtype).tiny)[:, None].astype(rows.dtype)
        rows, images = np.concatenate([rows, new]), np.concatenate([images, products(new)])
