"""The user's own arrays and image folders, and the digits embedded in scikit-learn."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfp_vae.datasets import files
from tfp_vae.datasets.common import (
    DatasetError,
    ImageData,
    counts,
    set_to_unit_images,
    to_labels,
)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_FORMATS = ("PNG", "JPEG", "BMP")
_GREY = ("1", "L", "LA", "La")  # modes of Pillow
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}

# ---------------------------------------------------------------------- digits


def load_digits() -> ImageData:
    """scikit-learn's 1,797 scans of 8×8, brought to 28×28 as `load` describes."""
    from sklearn.datasets import load_digits as embedded

    scans = embedded()
    images = np.pad(_enlarged(scans.images / 16), ((0, 0), (4, 4), (4, 4)))[..., np.newaxis]
    labels = scans.target.astype(np.int64)
    test = np.arange(len(images)) % 6 == 5
    x_train, x_test = images[~test], images[test]
    return ImageData(
        name="digits",
        x_train=x_train,
        y_train=labels[~test],
        x_test=x_test,
        y_test=labels[test],
        class_names=tuple("0123456789"),
        source=(
            "digits: scikit-learn's embedded 8×8 scans of handwritten digits (UCI), enlarged to "
            f"20×20 in the middle of 28×28: {counts(x_train, x_test)}"
        ),
    )


def _enlarged(scans: np.ndarray) -> np.ndarray:
    """(N, 8, 8) in [0, 1] to (N, 20, 20), bicubic; where the cubic overshoots it is clipped."""
    import tensorflow as tf

    large = tf.image.resize(
        scans[..., np.newaxis].astype(np.float32), (20, 20), "bicubic", antialias=True
    )
    return np.clip(large.numpy()[..., 0], 0, 1)


# ---------------------------------------------------------------------- split


def split_indices(
    where: str, count: int, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many images are for training, and which for the test.

    Raises:
        DatasetError: none would be left to train on.
    """
    held_out = round(count * test_fraction)
    if test_fraction > 0:
        held_out = max(held_out, 1)
    if held_out >= count:
        raise DatasetError(
            f"{where}: expected at least 2 images to split with test_fraction={test_fraction:g}, "
            f"and one left to train on, got {count}. Give more images, or test_fraction=0."
        )
    if not held_out:
        return np.arange(count), np.arange(0)
    order = np.random.default_rng(seed).permutation(count)
    # Not sorted: a folder is read class by class, and the first hundred images of a part, of which
    # many figures are, should be a sample of it.
    return order[held_out:], order[:held_out]


def _split(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    class_names: tuple[str, ...] | None,
    where: str,
    test_fraction: float,
    seed: int,
) -> ImageData:
    """Hold out a random part for the test set, the same one for the same seed."""
    train, test = split_indices(where, len(images), test_fraction, seed)
    x_train, x_test = images[train], images[test]
    source = f"{where}: {counts(x_train, x_test)}"
    if test_fraction:
        source += f", split at random here (test_fraction={test_fraction:g}, seed={seed})"
    return ImageData(
        name=name,
        x_train=x_train,
        y_train=None if labels is None else labels[train],
        x_test=x_test,
        y_test=None if labels is None else labels[test],
        class_names=class_names,
        source=source,
    )


# ---------------------------------------------------------------------- arrays


def load_arrays(path: pathlib.Path, test_fraction: float, seed: int) -> ImageData:
    """A .npy file of images, or a .npz file in Keras' layout with or without a test set."""
    if path.suffix.lower() == ".npy":
        images = set_to_unit_images(str(path), files.read_npy(path))
        return _split(path.stem, images, None, None, str(path), test_fraction, seed)
    arrays = files.read_npz(path, ("x_train",), ("y_train", "x_test", "y_test"))
    parts: dict[str, Any] = {"y_train": None, "x_test": None, "y_test": None}
    for key in ("x_train", "x_test"):
        label = f"{path} [{key}]"
        if key in arrays:
            parts[key] = set_to_unit_images(label, arrays[key])
    for key, images_key in (("y_train", "x_train"), ("y_test", "x_test")):
        if key not in arrays:
            continue
        if parts[images_key] is None:
            raise DatasetError(f"{path}: expected {images_key} beside {key}, got only {key}.")
        parts[key] = to_labels(f"{path} [{key}]", arrays[key], len(parts[images_key]))
    if parts["x_test"] is None:
        return _split(
            path.stem, parts["x_train"], parts["y_train"], None, str(path), test_fraction, seed
        )
    shapes = {key: parts[key].shape[1:] for key in ("x_train", "x_test")}
    if shapes["x_train"] != shapes["x_test"]:
        raise DatasetError(
            f"{path}: expected images of one shape, got {shapes['x_train']} in x_train and "
            f"{shapes['x_test']} in x_test."
        )
    return ImageData(
        name=path.stem,
        class_names=None,
        source=f"{path}: {counts(parts['x_train'], parts['x_test'])}",
        **parts,
    )


# ---------------------------------------------------------------------- folders


def load_folder(
    folder: pathlib.Path,
    image_size: tuple[int, int] | None,
    grayscale: bool | None,
    test_fraction: float,
    seed: int,
) -> ImageData:
    """A folder of images, or of one subfolder of images for each class."""
    paths, labels, class_names = image_paths(folder)
    if grayscale is None:
        grayscale = all(is_grey(path) for path in paths)
    where = str(folder)
    pixels = set_to_unit_images(where, _read_images(paths, image_size, grayscale))
    transparent = sum(_mode(path) in _ALPHA for path in paths)
    if transparent:
        where += f" (alpha channel left out of {transparent:,})"
    return _split(folder.name, pixels, labels, class_names, where, test_fraction, seed)


def image_paths(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], np.ndarray | None, tuple[str, ...] | None]:
    """The images of a folder, their labels and the names of the classes, if there are any.

    Raises:
        DatasetError: no images, or a layout that could be read in two ways.
    """
    flat = _images_in(folder)
    classes = {
        sub.name: images
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".") and (images := _images_in(sub))
    }
    if flat and classes:
        raise DatasetError(
            f"{folder}: expected images either directly in it or in one subfolder for each class, "
            f"got both: {flat[0].name} and {next(iter(classes))}/."
        )
    if classes and {name.lower() for name in classes} <= _SPLITS:
        raise DatasetError(
            f"{folder}: expected one subfolder for each class, got {', '.join(classes)}, which "
            "look like a split. Load each of them by its own path, with test_fraction=0."
        )
    paths = flat or [path for images in classes.values() for path in images]
    if not paths:
        raise DatasetError(
            f"{folder}: expected images ({', '.join(_SUFFIXES)}) in it or in one subfolder for "
            f"each class, got none among {sum(1 for _ in folder.iterdir())} entries."
        )
    labels = None
    if classes:
        labels = np.repeat(np.arange(len(classes)), [len(images) for images in classes.values()])
    return paths, labels, tuple(classes) or None


def is_grey(path: pathlib.Path) -> bool:
    """Whether the header says that the image has no colours."""
    return _mode(path) in _GREY


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _read_images(
    paths: list[pathlib.Path], image_size: tuple[int, int] | None, grayscale: bool
) -> np.ndarray:
    """uint8, shape (N, height, width, 1 or 3)."""
    first = read_image(paths[0], image_size, grayscale)
    if image_size is None:
        # Where it is given, the caller knows what all of them take.
        stored = sum(path.stat().st_size for path in paths)
        files.check_unpacked(str(paths[0].parent), len(paths) * first.size, stored)
    images = np.empty((len(paths), *first.shape), np.uint8)
    for index, path in enumerate(paths):
        image = first if index == 0 else read_image(path, image_size, grayscale)
        if image.shape != first.shape:
            raise DatasetError(
                f"{path}: expected {_size(first)} pixels (height × width) as in {paths[0]}, got "
                f"{_size(image)}. Give image_size=(height, width) to bring all to one size."
            )
        images[index] = image
    return images


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]}×{image.shape[1]}"


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    """Pillow's image, not yet decoded; what goes wrong with it is a `DatasetError`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # A small file that unfolds to more memory than there is: Pillow only warns at first.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Not what else Pillow reads, whatever the file is called: for PostScript it starts a
            # program.
            with Image.open(path, formats=_FORMATS) as opened:
                yield opened
    except Exception as error:  # a decoder given foreign bytes raises nearly anything
        raise DatasetError(
            f"{path}: expected a readable image, got {type(error).__name__}: {error}. Replace the "
            "file, or take it away."
        ) from error


def _mode(path: pathlib.Path) -> str:
    """What the header says of the channels, in Pillow's words."""
    with _opened(path) as image:
        return image.mode


def stored_size(path: pathlib.Path) -> tuple[int, int]:
    """(height, width) as they are stored, before an EXIF tag turns the image."""
    with _opened(path) as image:
        return image.height, image.width


def read_image(
    path: pathlib.Path, image_size: tuple[int, int] | None, grayscale: bool
) -> np.ndarray:
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        mode = opened.mode
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    if mode.startswith(("I", "F")):
        # Pillow would cut such values off at 255 instead of scaling them.
        raise DatasetError(
            f"{path}: expected 8 bits for each channel, got Pillow's mode {mode!r}. Convert it, or "
            "give the pixels as a float array in a .npy file."
        )
    image = upright.convert("L" if grayscale else "RGB")
    if image_size is not None:
        image = image.resize((image_size[1], image_size[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if grayscale else pixels
