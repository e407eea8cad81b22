"""Shared by the other files of this folder: the model's check, arrays, a figure of one image."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 8.0  # inches, the longer side of a grid of images
SAVED_DPI = 150.0  # pixels of each inch, in files


def check_model(vae: Any) -> None:
    # By what it can do: `VAE` lives on a floor that this file must not import.
    if not all(hasattr(vae, name) for name in ("encode", "decode", "latent_dim", "prior")):
        raise TypeError(f"vae: expected a tfp_vae.VAE, got {type(vae).__name__}.")


def with_channels(images: np.ndarray) -> np.ndarray:
    """Shape (N, height, width, channels), from that or (N, height, width)."""
    shaped = images[..., np.newaxis] if images.ndim == 3 else images
    if shaped.ndim != 4 or shaped.shape[-1] not in (1, 3):
        raise ValueError(
            "images: expected the shape (N, height, width), or (N, height, width, channels) with "
            f"1 or 3 channels, got {images.shape}."
        )
    return shaped


def tile(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows * columns, height, width, channels) to (rows * height, columns * width, channels)."""
    height, width, channels = images.shape[1:]
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def image_figure(
    image: np.ndarray, rows: int, columns: int, *, side: float, margin: tuple[float, float]
) -> "tuple[Figure, Axes]":
    """A figure of one tiled image of shape (height, width, 1 or 3), black at 0 and white at 1.

    One unit of the axes is one cell, counted from the lower left, whatever the size of the cells.

    Args:
        image: `rows` by `columns` cells.
        rows: number of rows of cells.
        columns: number of columns of cells.
        side: length of the image's longer side, in inches.
        margin: inches for the labels, beside and above the image.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    inch = side / max(height, width)
    size = (width * inch + margin[0], height * inch + margin[1])
    # "constrained" measures labels before the image has its proportions, and cuts them off.
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots()
    image = np.clip(image, 0, 1)
    axes.imshow(
        image[..., 0] if image.shape[-1] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(0, columns, 0, rows),
        aspect=(height / rows) / (width / columns),
    )
    return figure, axes


def decimals(value: float, digits: int) -> str:
    """`value` with the same minus sign as matplotlib uses on the axes."""
    from matplotlib.ticker import Formatter

    return Formatter.fix_minus(f"{value:.{digits}f}")
