"""Figures as pixels and as files."""

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from tfp_vae._files import whole_file
from tfp_vae.plotting.common import SAVED_DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_to_array(figure: "Figure", *, dpi: float = 100) -> np.ndarray:
    """`figure` as 8-bit pixels, shape (height, width, 3).

    Args:
        figure: any figure.
        dpi: pixels per inch.
    """
    import io

    import imageio.v3 as iio

    # Through a file in memory: drawing on a canvas of our own would take the figure from its own.
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return iio.imread(file.getvalue(), plugin="pillow", mode="RGB")


def write_image(pixels: np.ndarray, path: pathlib.Path) -> None:
    """Write an 8-bit image, shape (height, width, 1 or 3), unchanged."""
    import imageio.v3 as iio

    iio.imwrite(path, pixels[..., 0] if pixels.shape[-1] == 1 else pixels, plugin="pillow")


def save(figure: "Figure", path: str | os.PathLike[str], *, dpi: float = SAVED_DPI) -> pathlib.Path:
    """Write `figure` to a file, which appears complete or not at all.

    Args:
        figure: any figure.
        path: its ending sets the format (.png, .pdf, .svg, ...); without one it is PNG. Missing
            folders are created.
        dpi: pixels per inch, for formats that have pixels.

    Returns:
        The path.

    Raises:
        ValueError: a format that matplotlib cannot write.
        OSError: the file cannot be written; the path is named.
    """
    path = pathlib.Path(path)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().lstrip(".") or "png", dpi=dpi)
    return path
