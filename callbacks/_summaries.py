"""Figures in the files that TensorBoard reads, on any backend; TensorBoard is not needed for it."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from kerasopt.callbacks._gradient_statistics import BINS, LOWEST, PER_DECADE


class Summaries:
    """A file of scalars and of histograms of log10 |g|."""

    def __init__(self, log_dir: str | PathLike[str]) -> None:
        import tensorflow as tf  # not before it is asked for: the backend may be another one

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Write what belongs to a step."""
        edges = LOWEST + np.arange(BINS + 1) / PER_DECADE
        with self._writer.as_default(), self._tf.device("CPU:0"):
            for name, value in scalars.items():
                self._tf.summary.write(name, np.float32(value), step, self._metadata("scalars"))
            for name, counts in histograms.items():
                table = np.stack([edges[:-1], edges[1:], counts], axis=1)
                self._tf.summary.write(name, table, step, self._metadata("histograms"))

    def flush(self) -> None:
        """Let what was written be seen."""
        self._writer.flush()

    def _metadata(self, plugin: str) -> Any:
        kind = self._tf.compat.v1.SummaryMetadata
        data_class = {"scalars": 1, "histograms": 2}[plugin]  # scalar, tensor
        return kind(plugin_data=kind.PluginData(plugin_name=plugin), data_class=data_class)
