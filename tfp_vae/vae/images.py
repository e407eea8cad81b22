"""What a `VAE` refuses as images, in words."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.vae.parts import Shape

_NOT_FINITE = "images: expected finite pixels, got NaN or infinity among them"
_OUTSIDE = "images: expected pixels in [0, 1]"
_RANGE = re.compile(r"got values from (\S+) to (\S+)")
_REMEDY = "Divide 8-bit images by 255."


def check_specification(x: Any, image_shape: Shape | None) -> None:
    """Refuse a type or a shape that does not fit; costs nothing while a graph runs.

    Args:
        x: anything with `dtype` and `shape`, the leading dimensions included.
        image_shape: of one image; `None` where it is not known.

    Raises:
        ValueError: pixels that are not floating, or another shape.
    """
    dtype = tf.as_dtype(x.dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"images: expected floating-point pixels, got {dtype.name}. "
            "tfp_vae.datasets.load gives them in [0, 1]; convert your own with "
            "x.astype('float32'), divided by 255 if they are 8-bit."
        )
    shape = tf.TensorShape(x.shape)
    if image_shape is None or shape.rank is None:
        return
    ndims = len(image_shape)
    if shape.rank <= ndims or not shape[-ndims:].is_compatible_with(image_shape):
        sizes = ", ".join(map(str, image_shape))
        raise ValueError(f"images: expected the shape (batch, {sizes}), got {tuple(shape)}.")


def check_batch(x: Any, image_shape: Shape | None) -> None:
    """As `check_specification`, and with one leading dimension.

    Raises:
        ValueError: another type, shape or number of leading dimensions.
    """
    check_specification(x, image_shape)
    if image_shape and len(x.shape) != len(image_shape) + 1:
        sizes = ", ".join(map(str, image_shape))
        raise ValueError(f"images: expected the shape (batch, {sizes}), got {tuple(x.shape)}.")


def check_values(x: Any, unit_interval: bool) -> None:
    """Refuse NaN, infinity and, for a likelihood of pixels in [0, 1], any others.

    Raises:
        ValueError: such pixels, or no images at all.
    """
    x = np.asarray(x)
    if not x.size:
        raise ValueError(f"images: expected at least one, got the shape {x.shape}.")
    low, high = float(x.min()), float(x.max())  # NaN goes through both
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{_NOT_FINITE}.")
    if unit_interval and (low < 0 or high > 1):
        raise ValueError(f"{_OUTSIDE}, {_support.outside_unit_interval(low, high, _REMEDY)}")


def check_data(name: str, data: Any, image_shape: Shape | None, unit_interval: bool) -> None:
    """Look through training or test data before the first step.

    Arrays are read; of a `tf.data.Dataset` only the element's specification is, since reading it
    could take as long as an epoch: see `guarded`.

    Raises:
        ValueError: as `check_specification` and `check_values`, or an empty data set.
    """
    if isinstance(data, (tuple, list)) and data and hasattr(data[0], "shape"):
        data = data[0]
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == 0:
            raise ValueError(f"{name}: expected at least one batch, got an empty data set.")
        spec = data.element_spec
        x, *rest = spec if isinstance(spec, (tuple, list)) else (spec,)
        if not hasattr(x, "dtype"):
            raise ValueError(
                f"{name}: expected batches of images, or of tuples that begin with them, got "
                f"{type(x).__name__}. Of dictionaries take the parts, as by "
                "data.map(lambda batch: (batch['image'], batch['label']))."
            )
        check_specification(x, image_shape)
        if len(rest) == 2:
            _check_weights(rest[1].shape)
    elif hasattr(data, "shape") and hasattr(data, "dtype"):
        check_specification(data, image_shape)
        check_values(data, unit_interval)


def one_weight_each(weights: Any) -> Any:
    """Sample weights, shape (B,); of the shape (B, 1), which Keras takes as well, they are made so.

    Raises:
        ValueError: another shape.
    """
    weights = weights if tf.is_tensor(weights) else np.asarray(weights)
    _check_weights(tf.TensorShape(weights.shape))
    return tf.reshape(weights, [-1]) if tf.is_tensor(weights) else weights.reshape(-1)


def _check_weights(shape: tf.TensorShape) -> None:
    # Keras lets a step that it has traced for both of them forget which it is.
    if shape.rank not in (None, 1) and not (shape.rank == 2 and shape[1] == 1):
        raise ValueError(
            f"sample_weight: expected one for each image, got the shape {tuple(shape)}."
        )


def guarded(name: str, data: Any, unit_interval: bool) -> Any:
    """`data`, if it is a `tf.data.Dataset`, with each batch looked through as it comes by.

    The look is part of the pipeline, which works beside the training steps. Others are returned
    as they are. What is found is said with the `name` of the argument that it was.
    """
    if not isinstance(data, tf.data.Dataset):
        return data

    def look(index: tf.Tensor, element: Any) -> Any:
        x, *rest = element if isinstance(element, tuple) else (element,)
        batch = ["in batch", index + 1, *([] if name == "x" else [f"of {name}"])]

        def refuse() -> tf.Tensor:
            finite = tf.reduce_all(tf.math.is_finite(x))
            got = [_OUTSIDE + ", got values from", tf.reduce_min(x), "to", tf.reduce_max(x)]
            with tf.control_dependencies([tf.debugging.Assert(finite, [_NOT_FINITE, *batch])]):
                no = tf.identity(False)
            with tf.control_dependencies([tf.debugging.Assert(no, [*got, *batch])]):
                return tf.identity(no)

        # One look at a good batch; what is wrong with a bad one is found out afterwards. Neither
        # comparison holds of NaN.
        good = (x >= 0) & (x <= 1) if unit_interval else tf.math.is_finite(x)
        with tf.control_dependencies([tf.cond(tf.reduce_all(good), lambda: True, refuse)]):
            passed = tf.identity(x)
        return (passed, *rest) if rest else passed

    return data.enumerate().map(look)


@contextlib.contextmanager
def plain_errors(
    epoch: Callable[[], int | None] = lambda: None, steps: int | None = None
) -> Iterator[None]:
    """TensorFlow's account of a failed look as the one sentence that matters.

    Args:
        epoch: the number of the one that was at work.
        steps: batches of an epoch, where one pass over the data goes on over several.

    Raises:
        ValueError: instead of the `tf.errors.InvalidArgumentError` of `guarded`.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow prints the parts of a failed assertion as "[one] [another]".
        said = re.search(
            r"assertion failed: \[((?:images|labels): .*)\]$", str(error), re.MULTILINE
        )
        if said is None:
            raise
        sentence = said.group(1).replace("] [", " ")
        batch = re.search(r"in batch (\d+)( of .*)?$", sentence)
        if batch is not None:
            number, of_what = epoch(), batch[2] or ""
            index = int(batch[1])
            if steps is not None and not of_what:
                index = (index - 1) % steps + 1
            of_epoch = "" if number is None or of_what else f" of epoch {number}"
            sentence = f"{sentence[: batch.start(1)]}{index}{of_what}{of_epoch}."
        got = _RANGE.search(sentence)
        if got is not None:
            low, high = map(float, got.groups())
            sentence += f" {_support.into_unit_interval(low, high, _REMEDY)}"
        raise ValueError(sentence) from error
