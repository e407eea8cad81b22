"""Writes the latent space for TensorBoard's projector."""

import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _files, _support
from tfp_vae.callbacks.events import as_pixels

_CHUNK = 1000  # images encoded at once
_SPRITE = 8192  # pixels of a side: the largest texture that WebGL is sure to take

_CONFIG = """embeddings {{
  tensor_name: "latent"
  tensor_path: "projector/tensors.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {{
    image_path: "projector/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""


def write_projector(
    folder: str | os.PathLike[str],
    vae: Any,
    x: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Write posterior means of images, with labels and the images, for TensorBoard's projector.

    It writes into a log folder of TensorBoard: ``projector_config.pbtxt``, and in ``projector/``
    the files ``tensors.tsv`` (a row of ``d`` numbers for each image), ``metadata.tsv`` (its number
    and its label) and ``sprite.png`` (all images in one). Existing files of these names are
    replaced. ``tensorboard --logdir FOLDER`` shows them on its page Projector, by principal
    components, t-SNE or UMAP. Writing them needs only TensorFlow.

    Args:
        folder: the folder of the logs; created if necessary.
        vae: a `VAE`.
        x: images, shape (N, height, width, 1 or 3), as the model takes them; for a conditional
            model a pair with labels.
        labels: an integer for each image, which sets the colour of its point; by default the labels
            in `x`, if any.
        class_names: a name for each label.

    Returns:
        The path of ``projector_config.pbtxt``.

    Raises:
        ValueError: wrong images, a wrong number of labels, or more images than fit into a picture
            of 8192×8192 pixels.
        OSError: the files cannot be written.
    """
    images, own = _support.split_labels(x)
    labels = own if labels is None else labels
    count, height, width, channels = np.shape(images)
    if channels not in (1, 3):
        raise ValueError(f"x: expected images of 1 or 3 channels, got {channels}.")
    if labels is not None and np.shape(labels) != (count,):
        raise ValueError(
            f"labels: expected one integer for each of the {count} images, got the shape "
            f"{np.shape(labels)}."
        )
    most = most_images((height, width))
    if not 1 <= count <= most:
        raise ValueError(f"x: expected 1 to {most} images of {height}×{width}, got {count}.")
    means = np.concatenate([vae.encode(some).mean() for _, some in _support.pieces(x, _CHUNK)])
    side = math.ceil(math.sqrt(count))
    sprite = np.zeros((side**2, height, width, channels), np.uint8)
    sprite[:count] = as_pixels(images)
    sprite = sprite.reshape(side, side, height, width, channels).swapaxes(1, 2)
    sprite = sprite.reshape(side * height, side * width, channels)
    # The configuration last: it stands for all of them.
    folder = pathlib.Path(folder)
    files = {
        "projector/tensors.tsv": _table([f"{z:.9g}" for z in row] for row in means).encode(),
        "projector/metadata.tsv": _metadata(count, labels, class_names).encode(),
        "projector/sprite.png": tf.io.encode_png(sprite).numpy(),
        "projector_config.pbtxt": _CONFIG.format(width=width, height=height).encode(),
    }
    for name, content in files.items():
        with _files.whole_file(folder / name) as path:
            path.write_bytes(content)
    return folder / "projector_config.pbtxt"


def most_images(shape: Sequence[int]) -> int:
    """How many images of shape (height, width, ...) `write_projector` takes."""
    return (_SPRITE // max(shape[:2])) ** 2


def _metadata(count: int, labels: Any, class_names: Sequence[str] | None) -> str:
    """TensorBoard reads the first line as headings only if there are two columns."""
    if labels is None:
        return _table([[i] for i in range(count)])
    labels = np.asarray(labels)
    if class_names is not None and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(
            f"labels: expected classes from 0 to {len(class_names) - 1}, of which class_names "
            f"tells, got some from {labels.min()} to {labels.max()}."
        )
    names = [str(y) if class_names is None else class_names[int(y)] for y in labels]
    return _table([["image", "label"], *([i, name] for i, name in enumerate(names))])


def _table(rows: Iterable[Sequence[Any]]) -> str:
    cells = ((" ".join(str(cell).split()) for cell in row) for row in rows)
    return "".join("\t".join(row) + "\n" for row in cells)
