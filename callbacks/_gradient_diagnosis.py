"""What the norms of the layers' gradients say, in words."""

from collections.abc import Sequence

import numpy as np

VANISHED, EXPLODED = 1e-3, 1e3


def vanished(layers: Sequence[str], steps: np.ndarray, norms: np.ndarray) -> str | None:
    """Return a text if the median norm of a layer is far below that of the top layer."""
    typical = np.median(norms, axis=0)
    row = int(np.argmin(typical))
    if not typical[row] < VANISHED * typical[-1]:
        return None
    return (
        f"The gradient vanishes in layer {layers[row]!r}: at step {steps[-1]} its norm is "
        f"{norms[-1, row]:.3g}, {norms[-1, -1]:.3g} in the top layer {layers[-1]!r}. Use "
        "rectifiers, normalisation, residual connections or another initializer."
    )


def exploded(
    layers: Sequence[str], steps: np.ndarray, norms: np.ndarray, earlier: np.ndarray, scaled: bool
) -> str | None:
    """Return a text if a norm is not finite, or far above the median of the layer so far.

    With a `scaled` loss norms that are not finite are left out.
    """
    columns = [column[np.isfinite(column)] for column in np.concatenate([earlier, norms]).T]
    typical = np.array([np.median(column) if column.size else 0.0 for column in columns])
    too_long = np.isfinite(norms) & (norms > EXPLODED * typical) & (typical > 0)
    for place, row in np.argwhere(too_long | (~np.isfinite(norms) & (not scaled)))[:1]:
        return (
            f"The gradient explodes in layer {layers[row]!r}: at step {steps[place]} its norm is "
            f"{norms[place, row]:.3g}, its median so far {typical[row]:.3g}. Lower the learning "
            "rate, or clip the gradient by `kerasopt.optimizers.GradientClipping`."
        )
    return None
