"""What a `VAE` refuses as images, in words, before it costs any time."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae.vae.parts import Shape


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
            "tfp_vae.datasets.load gives them in [0, 1]; or divide by 255 yourself."
        )
    shape = tf.TensorShape(x.shape)
    if image_shape is None or shape.rank is None:
        return
    ndims = len(image_shape)
    if shape.rank <= ndims or not shape[-ndims:].is_compatible_with(image_shape):
        sizes = ", ".join(map(str, image_shape))
        raise ValueError(f"images: expected the shape (batch, {sizes}), got {tuple(shape)}.")


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
        raise ValueError("images: expected finite pixels, got NaN or infinity among them.")
    if unit_interval and (low < 0 or high > 1):
        raise ValueError(
            f"images: expected pixels in [0, 1], got values from {low:g} to {high:g}. "
            "Divide 8-bit images by 255."
        )


def check_data(name: str, data: Any, image_shape: Shape | None, unit_interval: bool) -> None:
    """Look through training or test data before the first step.

    Arrays are read; of a `tf.data.Dataset` only the element's specification is, since reading it
    could take as long as an epoch.

    Raises:
        ValueError: as `check_specification` and `check_values`, or an empty data set.
    """
    if isinstance(data, (tuple, list)) and data and hasattr(data[0], "shape"):
        data = data[0]
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == 0:
            raise ValueError(f"{name}: expected at least one batch, got an empty data set.")
        spec = data.element_spec
        check_specification(spec[0] if isinstance(spec, (tuple, list)) else spec, image_shape)
    elif hasattr(data, "shape") and hasattr(data, "dtype"):
        check_specification(data, image_shape)
        check_values(data, unit_interval)
