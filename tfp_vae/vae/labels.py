"""Class labels beside the images, or the latent vectors, of a conditional model.

Where a model without classes takes ``x``, a conditional one takes ``(x, labels)``. Inside, the
labels are float vectors of zeros and a one, which broadcast against the leading dimensions of what
they belong to.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_NO_LABELS = "expected images and labels, since the model is conditional"


def num_classes(encoder: keras.Model, decoder: keras.Model) -> int | None:
    """``K``, which both networks take vectors of beside their input; `None` where neither does.

    Raises:
        ValueError: only one of them does, or of different sizes.
    """
    found = []
    for part in (encoder, decoder):
        inputs: Any = getattr(part, "inputs", None) or ()
        found.append(inputs[1].shape[-1] if len(inputs) == 2 else None)
    if found[0] != found[1]:
        raise ValueError(
            "VAE: expected an encoder and a decoder of as many classes, got "
            f"{' and '.join('none' if count is None else str(count) for count in found)}."
        )
    return found[0]


def pair(what: str, inputs: Any, count: int | None) -> tuple[Any, Any]:
    """(images or latent vectors, labels) as a caller gave them to a model of so many classes.

    Raises:
        ValueError: a conditional model, and no pair; or the other way round.
    """
    if count is None:
        two = isinstance(inputs, tuple) and len(inputs) == 2 and hasattr(inputs[0], "shape")
        if two and tuple(inputs[0].shape) != tuple(np.shape(inputs[1])):  # else one for each
            raise ValueError(
                f"{what}: expected {what} alone, since the model takes no labels, got a pair."
            )
        return inputs, None
    given = isinstance(inputs, (tuple, list)) and len(inputs) == 2 and not np.isscalar(inputs[0])
    if not given:
        raise ValueError(
            f"{what}: expected a pair ({what}, labels), since the model is conditional, got "
            f"{type(inputs).__name__}."
        )
    return inputs[0], inputs[1]


def refuse(what: str, count: int | None) -> None:
    """For what a model of so many classes cannot do.

    Raises:
        ValueError: a conditional model.
    """
    if count is not None:
        raise ValueError(
            f"{what}: expected a model without labels, got a conditional one of {count} classes. "
            "vae.for_label(y) is its model of one class."
        )


def vectors(labels: Any, count: int, dtype: Any, leading: Sequence[int | None] = ()) -> tf.Tensor:
    """Labels as vectors, shape (..., count).

    Args:
        labels: integers of any shape, or floats that are such vectors already.
        count: number of classes.
        dtype: of the result.
        leading: dimensions of what they belong to.

    Raises:
        ValueError: neither, or, where values are at hand, a class that there is not.
    """
    labels = labels if tf.is_tensor(labels) else np.asarray(labels)
    kind, rank = tf.as_dtype(labels.dtype), len(labels.shape)
    if kind.is_integer and leading and rank == len(leading) + 1:
        if labels.shape[-1] == count:
            return tf.cast(labels, dtype)
        if labels.shape[-1] == 1:
            labels = labels[..., 0]  # as in the files of Keras' CIFAR-10
    if kind.is_floating and tuple(labels.shape) == tuple(leading) == (count,):
        raise ValueError(
            f"labels: expected integers, got {count} {kind.name} of {count} images: each the class "
            "of one, or together the vector of all? Give labels.astype(int), or vectors of the "
            f"shape ({count}, {count})."
        )
    if kind.is_floating and rank and labels.shape[-1] == count:
        if tf.executing_eagerly() and not np.isfinite(labels).all():
            raise ValueError("labels: expected finite vectors, got NaN or infinity among them.")
        return tf.cast(labels, dtype)
    if not kind.is_integer:
        raise ValueError(
            f"labels: expected integers, or floats whose last dimension is the {count} classes, "
            f"got {kind.name} of shape {tuple(labels.shape)}."
        )
    if tf.executing_eagerly():
        wrong = np.extract((np.asarray(labels) < 0) | (np.asarray(labels) >= count), labels)
        if wrong.size:
            raise ValueError(
                f"labels: expected classes from 0 to {count - 1}, got {int(wrong[0])}."
            )
    return tf.one_hot(tf.cast(labels, tf.int32), count, dtype=dtype)


def paired(name: str, data: Any, count: int) -> Any:
    """``(images, labels)``, arrays or batches of a data set, as the one input of a Keras model.

    Arrays are looked through now, batches as they come by.

    Raises:
        ValueError: no labels, others than `vectors` takes, or another number of them.
    """
    if isinstance(data, tf.data.Dataset):
        spec = data.element_spec
        if not isinstance(spec, tuple) or len(spec) < 2:
            raise ValueError(f"{name}: {_NO_LABELS}, got batches of images alone.")
        vectors(tf.zeros([1, *spec[1].shape[1:]], spec[1].dtype), count, tf.float32, (1,))
        return data.map(functools.partial(_look, count))
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if y is None and not hasattr(x, "shape"):
        raise ValueError(
            f"{name}: expected arrays or a tf.data.Dataset of a conditional model's images and "
            f"labels, got {type(x).__name__}."
        )
    if y is None:
        raise ValueError(f"{name}: {_NO_LABELS}, got images alone.")
    y = y if tf.is_tensor(y) else np.asarray(y)
    if len(np.shape(y)) == 0 or len(y) != len(x):
        raise ValueError(
            f"labels: expected one for each of the {len(x)} images, got the shape "
            f"{tuple(np.shape(y))}."
        )
    # Always as vectors: Keras traces its steps anew for labels of another kind.
    return x, np.asarray(vectors(y, count, tf.float32, (len(x),)))


def _look(count: int, x: tf.Tensor, y: tf.Tensor, *weights: tf.Tensor) -> Any:
    if y.dtype.is_integer:
        least, most = tf.reduce_min(y), tf.reduce_max(y)
        said = [f"labels: expected classes from 0 to {count - 1}, got", least, "to", most]
        check = tf.debugging.Assert((least >= 0) & (most < count), said)
        with tf.control_dependencies([check] if check is not None else []):
            y = tf.identity(y)
    else:
        finite = tf.reduce_all(tf.math.is_finite(y))
        said = ["labels: expected finite vectors, got NaN or infinity among them"]
        with tf.control_dependencies([tf.debugging.Assert(finite, said)]):
            y = tf.identity(y)
    y = vectors(y, count, tf.float32, (None,))
    return ((x, y), x, *weights) if weights else ((x, y),)
