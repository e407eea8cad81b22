"""What the other files of this folder share: the error, the result, the checks of arrays."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfp_vae import _support

MOST_CLASSES = 100_000  # a name and a place in memory for each; numbers beyond are no classes


class DatasetError(ValueError):
    """A data set is absent or cannot be trusted. Says which file, what was expected and got."""


class AbsentError(DatasetError):
    """Nothing was found, as opposed to something damaged: ``load("auto")`` goes on from here."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images in two parts, as `load` returns them.

    Attributes:
        name: of the set, such as "mnist"; for your own files that of the file or folder.
        x_train: float32 in [0, 1], shape (N, height, width, channels).
        y_train: class numbers, int64, shape (N,), or `None`.
        x_test: as `x_train`. May hold no image where ``test_fraction=0`` was asked for.
        y_test: as `y_train`.
        class_names: the name of each class number, or `None`.
        source: a sentence that says where the images came from.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray | None
    x_test: np.ndarray
    y_test: np.ndarray | None
    class_names: tuple[str, ...] | None
    source: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int | None:
        """How many classes the labels have, `None` without labels."""
        labels = [part for part in (self.y_train, self.y_test) if part is not None and len(part)]
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(int(part.max()) for part in labels) if labels else None


def counts(data_train: np.ndarray, data_test: np.ndarray) -> str:
    """The two sizes, in words."""
    return f"{len(data_train):,} training and {len(data_test):,} test images"


def check_seed(seed: object) -> int:
    """`seed` as an `int` of at least 0, or a `DatasetError`."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DatasetError(f"seed: expected an integer of at least 0, got {seed!r}.")
    return int(seed)


def check_unit_interval(where: str, images: np.ndarray) -> None:
    """Refuse floats that are NaN or outside [0, 1].

    Raises:
        DatasetError: with `where`, the range found and what to do.
    """
    low, high = images.min(), images.max()
    # NaN runs through min and max, and every comparison with it is false.
    if low >= 0 and high <= 1:
        return
    if np.isnan(low) or np.isnan(high):
        got = f"got {np.count_nonzero(np.isnan(images)):,} NaN."
    else:
        remedy = "Divide 8-bit pixels by 255, or keep them as uint8 in the file."
        got = _support.outside_unit_interval(low, high, remedy)
    raise DatasetError(f"{where}: expected pixels in [0, 1], {got}")


def to_unit_images(where: str, images: np.ndarray) -> np.ndarray:
    """float32 images in [0, 1] of shape (N, height, width, channels).

    Args:
        where: file and key, for the message.
        images: uint8 or float, shape (N, height, width) or (N, height, width, channels).

    Raises:
        DatasetError: another rank or dtype, channels first, no images, or pixels outside [0, 1].
    """
    if images.ndim not in (3, 4):
        raise DatasetError(
            f"{where}: expected shape (N, height, width) or (N, height, width, channels), got "
            f"{images.shape}."
        )
    if images.size == 0:
        raise DatasetError(f"{where}: expected at least one image, got shape {images.shape}.")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DatasetError(
            f"{where}: expected shape (N, height, width, channels), got {images.shape}, which "
            "looks like (N, channels, height, width). Turn it with numpy.moveaxis(images, 1, -1)."
        )
    if images.dtype == np.uint8:
        # Divided, not multiplied by 1/255: white must be 1 exactly.
        return np.divide(images, 255, dtype=np.float32)
    if images.dtype.kind != "f":
        raise DatasetError(
            f"{where}: expected uint8 in 0..255 or floats in [0, 1], got {images.dtype}."
        )
    check_unit_interval(where, images)
    return images.astype(np.float32, order="C")


def refuse_binary_bytes(where: str, highest: int) -> None:
    """Refuse uint8 zeros and ones: divided by 255 they would be all but black, in silence.

    Raises:
        DatasetError: the highest value is 1.
    """
    if highest == 1:
        raise DatasetError(
            f"{where}: expected uint8 pixels in 0..255, got none above 1. Save pixels that are "
            "already in [0, 1] as float32."
        )


def set_to_unit_images(where: str, images: np.ndarray) -> np.ndarray:
    """`to_unit_images` of a whole set, of which bytes above 1 can be expected.

    Raises:
        DatasetError: as `to_unit_images` and `refuse_binary_bytes`.
    """
    if images.dtype == np.uint8 and images.size:
        refuse_binary_bytes(where, images.max())
    return to_unit_images(where, images)


def check_image_size(size: Any) -> tuple[int, int] | None:
    """(height, width), or `None` for `None`.

    Raises:
        DatasetError: something else.
        ValueError: a number below 1.
    """
    if size is None:
        return None
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise DatasetError(f"image_size: expected (height, width), got {size!r}.")
    height, width = (_support.check_positive_int("image_size", n) for n in size)
    return height, width


def check_test_fraction(fraction: Any) -> float:
    """A number in [0, 1).

    Raises:
        DatasetError: it is none.
    """
    if not (isinstance(fraction, (int, float)) and 0 <= fraction < 1):
        raise DatasetError(f"test_fraction: expected a number in [0, 1), got {fraction!r}.")
    return fraction


def refuse_image_options(name: Any, image_size: Any, grayscale: Any) -> None:
    """For all but a folder of images.

    Raises:
        DatasetError: one of them was given.
    """
    if image_size is not None or grayscale is not None:
        raise DatasetError(
            f"image_size and grayscale: expected a folder of images to use them on, got {name!r}."
        )


def expanded(label: str, path: Any) -> pathlib.Path:
    """`path` with its ``~`` replaced.

    Raises:
        DatasetError: there is no such user.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise DatasetError(f"{label}: expected the folder of a user, got {str(path)!r}.") from None


def to_labels(where: str, labels: np.ndarray, count: int) -> np.ndarray:
    """Class numbers as int64 of shape (`count`,), from integers of shape (N,) or (N, 1).

    Raises:
        DatasetError: another shape or dtype, negative, or not one for each image.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras' own CIFAR-10 has such labels
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{where}: expected integer labels of shape (N,), got {labels.dtype} of shape "
            f"{labels.shape}."
        )
    if len(labels) != count:
        raise DatasetError(
            f"{where}: expected one label for each of {count:,} images, got {len(labels):,}."
        )
    wrong = labels[(labels < 0) | (labels >= MOST_CLASSES)]
    if len(wrong):
        raise DatasetError(
            f"{where}: expected classes from 0 to {MOST_CLASSES - 1:,}, got {wrong[0]}."
        )
    return labels.astype(np.int64)
