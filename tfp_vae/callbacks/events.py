"""Event files for TensorBoard, written with TensorFlow alone.

``tf.summary.scalar`` and similar functions come with the package tensorboard, which TensorFlow does
not always install; what they write is a tensor with a plugin's name.
"""

import functools
import os
from typing import Any

import numpy as np
import tensorflow as tf

_BUCKETS = 30  # as many as ``tf.summary.histogram`` makes
_CLASSES = {"scalars": "DATA_CLASS_SCALAR", "images": "DATA_CLASS_BLOB_SEQUENCE"}


class EventWriter:
    """Writes scalars, histograms and pictures of each epoch into a folder that TensorBoard reads.

    Args:
        folder: created with the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)

    @functools.cached_property
    def _writer(self) -> tf.summary.SummaryWriter:
        return tf.summary.create_file_writer(self.folder)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._write(tag, np.float32(value), step, "scalars")

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """One row for each bucket: its left edge, its right edge, the number of values in it."""
        counts, edges = np.histogram(values, _BUCKETS)
        self._write(tag, np.stack([edges[:-1], edges[1:], counts], 1), step, "histograms")

    def images(self, tag: str, images: Any, step: int) -> None:
        """Pictures, shape (n, height, width, 1 or 3): 8-bit, or in [0, 1]."""
        pixels = as_pixels(images)
        size = [str(pixels.shape[2]), str(pixels.shape[1])]
        pngs = [tf.io.encode_png(each).numpy() for each in pixels]
        self._write(tag, np.array([*map(str.encode, size), *pngs], object), step, "images")

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self._writer.flush()
        except tf.errors.OpError as error:  # of a full disk TensorFlow says: resource exhausted
            raise OSError(f"{self.folder}: cannot be written: {error.message}") from error

    def _write(self, tag: str, value: Any, step: int, plugin: str) -> None:
        summary = tf.compat.v1.SummaryMetadata
        kind = _CLASSES.get(plugin, "DATA_CLASS_TENSOR")
        metadata = summary(plugin_data=summary.PluginData(plugin_name=plugin), data_class=kind)
        with self._writer.as_default():
            tf.summary.write(tag, value, step, metadata)


def as_pixels(images: Any) -> np.ndarray:
    """Images of shape (n, height, width, 1 or 3) in 8 bits; values outside [0, 1] are clipped."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
