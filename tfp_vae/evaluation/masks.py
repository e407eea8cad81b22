"""Masks for trying imputation: `True` where a pixel is observed."""

import contextlib
from typing import Any

import numpy as np

from tfp_vae import _support

_HALVES = ("left", "right", "top", "bottom")


def observed_mask(hidden: str, shape: Any, seed: int = 0) -> np.ndarray:
    """A mask for `VAE.impute`: **True where a pixel is observed**, False where it is hidden.

    Args:
        hidden: what to hide: "left", "right", "top" or "bottom" for that half (the smaller part if
            the number of rows or columns is odd); "random:0.8" for 80% of the pixels, at different
            places in each image. A pixel is hidden in all of its channels.
        shape: of the images, (B, height, width, channels), or of one image.
        seed: of the random places, an integer of at least 0.

    Returns:
        Booleans in that shape.

    Raises:
        ValueError: another name, a fraction that hides nothing or everything, another shape, or a
            seed below 0.

    Example:
        >>> observed_mask("bottom", (4, 2, 1))[..., 0]
        array([[ True,  True],
               [ True,  True],
               [False, False],
               [False, False]])
        >>> observed_mask("random:0.8", (3, 28, 28, 1)).sum((1, 2, 3))  # 784 - 627 pixels are seen
        array([157, 157, 157])
    """
    shape = tuple(_support.check_positive_int("shape", size) for size in shape)
    if len(shape) not in (3, 4):
        raise ValueError(
            "shape: expected (height, width, channels) or (B, height, width, channels), got "
            f"{shape}."
        )
    _support.check_int("seed", seed, 0)
    height, width = shape[-3:-1]
    if hidden in _HALVES:
        rows, columns = np.arange(height)[:, np.newaxis], np.arange(width)
        seen = {
            "left": columns >= width // 2,
            "right": columns < width - width // 2,
            "top": rows >= height // 2,
            "bottom": rows < height - height // 2,
        }[hidden]
        return np.broadcast_to(
            np.broadcast_to(seen, (height, width))[..., np.newaxis], shape
        ).copy()
    pixels = height * width
    count = round(_fraction(hidden) * pixels)
    if not 0 < count < pixels:
        raise ValueError(
            f"hidden: expected a fraction that hides some of the {height}×{width} pixels and not "
            f"all of them, got {hidden!r}."
        )
    # The pixels of the `count` lowest of random numbers: the same number in each image.
    numbers = np.random.default_rng(seed).random((*shape[:-3], pixels))
    seen = numbers.argsort(-1).argsort(-1) >= count
    return np.repeat(seen.reshape(*shape[:-1], 1), shape[-1], -1)


def _fraction(hidden: Any) -> float:
    kind, _, number = str(hidden).partition(":")
    with contextlib.suppress(ValueError):
        if kind == "random" and 0 < float(number) < 1:
            return float(number)
    raise ValueError(
        f"hidden: expected one of {', '.join(_HALVES)}, or a fraction between 0 and 1 as in "
        f"'random:0.8', got {hidden!r}."
    )
