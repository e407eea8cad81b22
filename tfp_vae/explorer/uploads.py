"""From what a person drew or dropped to a grey or colour image of the model's shape."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_BYTES = 8 * 2**20  #: of an image file
MAX_PIXELS = 2**24  #: of an image, whatever its file's size: 4096×4096

_FORMATS = ("PNG", "JPEG")
_LARGEST_SIDE = 512  # a photograph is shrunk to it first
_INK = 0.2  # of the darkest stroke: below it lie paper and noise
_BOX = 20 / 28  # of the side: MNIST's digits lie in 20×20 of 28×28


class UploadError(ValueError):
    """An image that is not taken. Says what was expected and got."""


def from_file(content: bytes, image_shape: Sequence[int], *, centred: bool) -> np.ndarray:
    """A PNG or JPEG file as an image of the model's shape, floats in [0, 1].

    Only these two decoders of Pillow are tried, and the size that the header promises is looked at
    before any pixel is decoded. Transparent pixels become white paper.

    Args:
        content: of the file.
        image_shape: (height, width, channels).
        centred: whether to bring it into place as `as_mnist` does, else it is scaled as a whole.

    Raises:
        UploadError: too large, damaged or of another format, or nothing on it.
    """
    from PIL import Image, ImageOps

    check_size(len(content))
    too_large = UploadError(
        f"image: expected at most {MAX_PIXELS:,} pixels, got more: make it smaller first."
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a lower limit here
            opened = Image.open(io.BytesIO(content), formats=_FORMATS)
        if opened.width * opened.height > MAX_PIXELS:
            raise too_large
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    except UploadError:
        raise
    except Image.DecompressionBombError as error:
        raise too_large from error
    except Exception as error:  # a decoder given foreign bytes raises nearly anything
        raise UploadError(
            f"image: expected a PNG or JPEG file, got a damaged or other one ({error})."
        ) from error
    if opened.mode.startswith(("I", "F")):
        raise UploadError(
            f"image: expected 8 bits for each channel, got Pillow's mode {opened.mode!r}."
        )
    upright.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    paper = Image.new("RGBA", upright.size, "white")
    image = Image.alpha_composite(paper, upright.convert("RGBA"))
    grey = image_shape[2] == 1
    pixels = np.asarray(image.convert("L" if grey else "RGB"), np.float32) / 255
    return fitted(pixels.reshape(*pixels.shape[:2], -1), image_shape, centred=centred)


def check_size(count: float) -> None:
    """Refuse a file of so many bytes.

    Raises:
        UploadError: more than `MAX_BYTES`.
    """
    if count > MAX_BYTES:
        raise UploadError(
            f"image: expected a file of at most {MAX_BYTES / 2**20:.0f} MB, got "
            f"{count / 2**20:.1f} MB."
        )


def from_drawing(ink: Any, image_shape: Sequence[int], *, centred: bool) -> np.ndarray:
    """Strokes of 0 to 255, shape (height * width,), as an image of the model's shape.

    Raises:
        UploadError: other numbers than those, or no stroke.
    """
    height, width, _ = image_shape
    try:
        strokes = np.asarray(ink, np.float32)
    except (TypeError, ValueError) as error:
        raise UploadError("drawing: expected numbers, got others.") from error
    if strokes.shape != (height * width,) or not ((strokes >= 0) & (strokes <= 255)).all():
        raise UploadError(
            f"drawing: expected {height}×{width} numbers from 0 to 255, got others of shape "
            f"{strokes.shape}."
        )
    if not strokes.any():
        raise UploadError("drawing: expected a stroke, got none.")
    return fitted(strokes.reshape(height, width, 1) / 255, image_shape, centred=centred)


def fitted(pixels: np.ndarray, image_shape: Sequence[int], *, centred: bool) -> np.ndarray:
    """Pixels in [0, 1], shape (any, any, 1 or 3), as an image of the model's shape."""
    height, width, channels = image_shape
    if centred and channels == 1:
        return as_mnist(pixels[..., 0], height, width)[..., np.newaxis]
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    size = [max(1, round(side * scale)) for side in pixels.shape[:2]]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    result = np.zeros((height, width, pixels.shape[2]), np.float32)
    for channel in range(pixels.shape[2]):
        result[top : top + size[0], left : left + size[1], channel] = _resized(
            pixels[..., channel], size
        )
    return np.broadcast_to(result, (height, width, channels)).copy()


def as_mnist(grey: np.ndarray, height: int = 28, width: int = 28) -> np.ndarray:
    """A digit brought into place as MNIST's were, shape (height, width), white on black.

    Its bounding box is scaled to 20 pixels of 28, the proportions kept, and its centre of mass laid
    in the middle (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist). Dark ink on light paper is
    turned round; the paper is what most of the border shows.

    Args:
        grey: in [0, 1], of any size.
        height: of the result.
        width: of the result.

    Raises:
        UploadError: nothing stands out from the paper.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = grey - np.median(border)
    if -ink.min() > ink.max():
        ink = -ink
    if ink.max() < 0.1:
        raise UploadError("image: expected something on it, got one even surface.")
    ink = np.clip(ink / ink.max(), 0, 1)
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = _BOX * min(height / ink.shape[0], width / ink.shape[1])
    digit = _resized(ink, [max(1, round(side * scale)) for side in ink.shape])
    digit /= max(digit.max(), 0.1)  # a thin stroke made smaller is as bright as a thick one
    # By whole pixels, and not over the edge: the middle of the mass is that of the image.
    mass = digit.sum()
    corner = []
    for axis, side in enumerate((height, width)):
        centre = (digit.sum(1 - axis) * (np.arange(digit.shape[axis]) + 0.5)).sum() / mass
        corner.append(int(np.clip(round(side / 2 - centre), 0, side - digit.shape[axis])))
    result = np.zeros((height, width), np.float32)
    result[corner[0] : corner[0] + digit.shape[0], corner[1] : corner[1] + digit.shape[1]] = digit
    return result


def _resized(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels, np.float32))
    image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0, 1)
