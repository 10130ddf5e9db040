"""The picture of the gradients' norms."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasopt._files import replacing


def draw_norms(path: Path, layers: Sequence[str], steps: np.ndarray, norms: np.ndarray) -> None:
    """Write a map of log10 of the norms, the top layer on top, whole or not at all."""
    height = 1.4 + 0.28 * len(layers)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.where(np.isfinite(norms) & (norms > 0), np.log10(norms), np.nan).T
    half = (steps[-1] - steps[0]) / max(2 * (len(steps) - 1), 1) or 0.5
    extent = (steps[0] - half, steps[-1] + half, -0.5, len(layers) - 0.5)
    # Cividis looks the same to people who see colours and to those who do not see all of them.
    image = axes.imshow(
        shown, cmap="cividis", aspect="auto", origin="lower", interpolation="nearest", extent=extent
    )
    axes.set_facecolor("white")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("norm of the gradient", loc="left", fontsize=11, fontweight="bold")
    figure.colorbar(image, ax=axes, label="log₁₀ ‖∇J‖")
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
