"""Event files for TensorBoard, by TensorFlow alone.

``tf.summary.scalar`` and ``tf.summary.histogram`` come with the package tensorboard, which
TensorFlow does not always bring along; what they write is a tensor with a plugin's name.
"""

import functools
import os
from typing import Any

import numpy as np
import tensorflow as tf

_BUCKETS = 30  # as many as ``tf.summary.histogram`` makes


class EventWriter:
    """Scalars and histograms of each epoch, in a folder that TensorBoard reads.

    Args:
        folder: made when the first one is written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)

    @functools.cached_property
    def _writer(self) -> tf.summary.SummaryWriter:
        return tf.summary.create_file_writer(self.folder)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._write(tag, np.float32(value), step, "scalars")

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """One row for each bucket: its left edge, its right edge, how many are in it."""
        counts, edges = np.histogram(values, _BUCKETS)
        self._write(tag, np.stack([edges[:-1], edges[1:], counts], 1), step, "histograms")

    def flush(self) -> None:
        self._writer.flush()

    def _write(self, tag: str, value: Any, step: int, plugin: str) -> None:
        summary = tf.compat.v1.SummaryMetadata
        kind = "DATA_CLASS_SCALAR" if plugin == "scalars" else "DATA_CLASS_TENSOR"
        metadata = summary(plugin_data=summary.PluginData(plugin_name=plugin), data_class=kind)
        with self._writer.as_default():
            tf.summary.write(tag, value, step, metadata)
