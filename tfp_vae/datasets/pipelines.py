"""Binarization, and `tf.data` pipelines whose every epoch can be made again."""

import itertools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.datasets.common import DatasetError, check_seed, check_unit_interval

_METHODS = ("threshold", "dynamic", "none")
_CHUNK = 1_000  # images for which random numbers are held at once


def binarize(
    images: np.ndarray, method: str, *, threshold: float = 0.5, seed: int | None = None
) -> np.ndarray:
    """Grey pixels to zeros and ones.

    "threshold": ``x >= threshold`` is 1 (the static binarization of a fixed threshold).
    "dynamic": one Bernoulli draw of each pixel, its grey being the probability of 1 (Burda et al.
    2016, https://arxiv.org/abs/1509.00519); for a test set, draw once with a fixed seed.
    "none": the pixels as they are.

    Args:
        images: floats in [0, 1], any shape with the images first.
        method: "threshold", "dynamic" or "none".
        threshold: in [0, 1].
        seed: of the draw, an integer of at least 0; "dynamic" needs it.

    Returns:
        float32, the shape of `images`; a new array unless `method` is "none".

    Raises:
        DatasetError: an unknown method, no images, integers, or pixels outside [0, 1].

    Example:
        >>> import numpy as np
        >>> binarize(np.array([[0.2, 0.5, 0.9]]), "threshold")
        array([[0., 1., 1.]], dtype=float32)
    """
    images = _check_images(images)
    check_method(method, threshold)
    if method == "none":
        return images.astype(np.float32, copy=False)
    return _binary(images, method, threshold, seed).astype(np.float32)


def pipeline(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    batch_size: int = 100,
    binarization: str = "none",
    threshold: float = 0.5,
    training: bool = True,
    seed: int = 0,
    drop_remainder: bool = False,
    initial_epoch: int = 0,
) -> tf.data.Dataset:
    """Batches of `images`, or of (`images`, `labels`), for `fit` and `evaluate`.

    For training, each pass over the dataset is an epoch (a look at its first batch is one too): all
    images once, in a new order, and with "dynamic" binarization in a new draw (Burda et al. 2016).
    The order and the draw of epoch e are a function of `seed` and e alone, whatever TensorFlow's
    global seed and the number of threads. With ``training=False`` the order is that of `images`,
    and a dynamic draw is made once: that of ``binarize(images, "dynamic", seed=seed)``, the same in
    every pass.

    Args:
        images: floats in [0, 1], shape (N, height, width, channels) or any with the images first.
        labels: shape (N, ...), or `None`.
        batch_size: images in a batch; the last batch may be smaller.
        binarization: "threshold", "dynamic" or "none", as in `binarize`.
        threshold: as in `binarize`.
        training: whether to shuffle, and to draw anew in each epoch.
        seed: an integer of at least 0.
        drop_remainder: whether to leave out a last batch that is smaller.
        initial_epoch: the number, from 0, of the epoch that comes first: a resumed training goes
            on with the order and the draws that it would have had.

    Returns:
        A `tf.data.Dataset` of known length: float32 (B, ...), or a pair of that and (B, ...).

    Raises:
        DatasetError: images as refused by `binarize`, labels of another length, or no batch left.
        ValueError: a `batch_size` below 1.
    """
    images = _check_images(images)
    check_method(binarization, threshold)
    batch_size = _support.check_positive_int("batch_size", batch_size)
    seed = check_seed(seed)
    if isinstance(initial_epoch, bool) or not isinstance(initial_epoch, (int, np.integer)):
        raise DatasetError(f"initial_epoch: expected an integer, got {initial_epoch!r}.")
    if initial_epoch < 0:
        raise DatasetError(f"initial_epoch: expected at least 0, got {initial_epoch!r}.")
    count = len(images)
    if labels is not None:
        labels = np.asarray(labels)
        if labels.ndim == 0 or len(labels) != count:
            raise DatasetError(
                f"labels: expected one for each of {count:,} images, got shape {labels.shape}."
            )
        if labels.dtype.kind not in "biuf":
            raise DatasetError(f"labels: expected numbers, got {labels.dtype}.")
    batches = count // batch_size if drop_remainder else math.ceil(count / batch_size)
    if batches == 0:
        raise DatasetError(
            f"batch_size: expected at most the {count:,} images with drop_remainder=True, got "
            f"{batch_size:,}."
        )

    draw = training and binarization == "dynamic"
    if draw or binarization == "none":
        stored = images.astype(np.float32, copy=False)
    else:
        # Zeros and ones, done once, in a quarter of the memory.
        stored = _binary(images, binarization, threshold, seed).view(np.uint8)
    with tf.device("CPU"):  # where tf.data works, also when there is a GPU
        pixels = tf.constant(stored)
        targets = None if labels is None else tf.constant(labels)

    def batch(indices: tf.Tensor, key: tf.Tensor) -> Any:
        x = tf.cast(tf.gather(pixels, indices), tf.float32)
        if draw:
            x = binary_batch(x, key, binarization, threshold)
        return x if targets is None else (x, tf.gather(targets, indices))

    # Only indices are shuffled: an image is copied once, with its whole batch.
    indices = _indices(count, batch_size, drop_remainder, seed, initial_epoch if training else None)
    return (
        indices.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(batches))
        .prefetch(tf.data.AUTOTUNE)
    )


def binary_batch(x: tf.Tensor, key: tf.Tensor, method: str, threshold: float) -> tf.Tensor:
    """`binarize` within a pipeline; a dynamic draw is that of the stateless seed `key`."""
    if method == "none":
        return x
    if method == "threshold":
        ones = x >= threshold
    else:
        # Uniform on [0, 1): a black pixel is never 1, a white one always.
        ones = tf.random.stateless_uniform(tf.shape(x), key) < x
    return tf.ensure_shape(tf.cast(ones, tf.float32), x.shape)


def _indices(
    count: int, batch_size: int, drop_remainder: bool, seed: int, first_epoch: int | None
) -> tf.data.Dataset:
    """(indices of a batch, stateless seed of a batch); in order where `first_epoch` is `None`."""
    epochs = itertools.count(first_epoch or 0)

    def begin_epoch() -> tuple[np.ndarray, np.int64]:
        if first_epoch is None:
            return np.arange(count), np.int64(0)
        generator = np.random.default_rng((seed, next(epochs)))
        return generator.permutation(count), generator.integers(2**62)

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        # Once for each pass. TensorFlow's own shuffle would depend on its global seed as well,
        # and could not begin at a later epoch.
        order, key = tf.numpy_function(begin_epoch, [], [tf.int64, tf.int64])
        order, key = tf.ensure_shape(order, [count]), tf.ensure_shape(key, [])
        batched = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder)
        return batched.enumerate().map(lambda i, indices: (indices, tf.stack([key, i])))

    return tf.data.Dataset.from_tensors(0).flat_map(epoch)


def _binary(images: np.ndarray, method: str, threshold: float, seed: int | None) -> np.ndarray:
    if method == "threshold":
        return images >= threshold
    if seed is None:
        raise DatasetError(
            "seed: expected an integer of at least 0 for dynamic binarization, got None."
        )
    generator = np.random.default_rng(check_seed(seed))
    ones = np.empty(images.shape, bool)
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        # Uniform on [0, 1): a black pixel is never 1, a white one always.
        ones[part] = generator.random(images[part].shape, np.float32) < images[part]
    return ones


def _check_images(images: Any) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim == 0 or images.size == 0:
        raise DatasetError(f"images: expected at least one image, got shape {images.shape}.")
    if images.dtype.kind != "f":
        remedy = "Give images.astype('float32')."
        if images.dtype != bool:
            remedy = "Divide 8-bit pixels by 255."
        raise DatasetError(f"images: expected floats in [0, 1], got {images.dtype}. {remedy}")
    check_unit_interval("images", images)
    return images


def check_method(method: str, threshold: float) -> None:
    if method not in _METHODS:
        raise DatasetError(f"binarization: expected one of {', '.join(_METHODS)}, got {method!r}.")
    if not (isinstance(threshold, (int, float, np.floating)) and 0 <= threshold <= 1):
        raise DatasetError(f"threshold: expected a number in [0, 1], got {threshold!r}.")
