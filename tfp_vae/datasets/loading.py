"""`load` and `available`: from a name or a path to images."""

import difflib
import math
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from tfp_vae.datasets import own, places, tfds
from tfp_vae.datasets.common import (
    AbsentError,
    DatasetError,
    ImageData,
    check_image_size,
    check_seed,
    check_test_fraction,
    counts,
    expanded,
    refuse_image_options,
    to_labels,
    to_unit_images,
)

_SPELLINGS = {
    name.replace("_", ""): name for name in ("auto", "digits", *places.NAMED)
}  # looked up without case, - and _


def load(
    name: str | os.PathLike[str] = "mnist",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    timeout: float = 10.0,
    test_fraction: float = 0.1,
    seed: int = 0,
    image_size: Sequence[int] | None = None,
    grayscale: bool | None = None,
) -> ImageData:
    """Images in [0, 1] from a named set or from your own files.

    "mnist" (LeCun et al. 1998), "fashion_mnist" (Xiao et al. 2017) and "cifar10" (Krizhevsky
    2009) are looked for in `data_dir`, then in the folder named by the environment variable
    TFP_VAE_DATA_DIR, then in Keras' cache. A set found in none of them is downloaded into that
    cache by `keras.utils.get_file`, with a checksum. A warning says if a place was skipped because
    its folder does not exist or its set is incomplete. A folder may hold, directly or in a
    subfolder with the set's name:

    - ``mnist.npz``, ``fashion_mnist.npz`` or ``cifar10.npz`` in Keras' layout (`x_train`,
      `y_train`, `x_test`, `y_test`, uint8);
    - the four IDX files of MNIST or Fashion-MNIST (``train-images-idx3-ubyte`` and so on), plain
      or gzipped. Both sets use the same file names. Outside a folder with a set's name, full-size
      sets are told apart by the number of labels of each class; for others, the `source` says that
      the set's name was taken on trust;
    - CIFAR-10's binary version: ``cifar-10-batches-bin`` or ``cifar-10-binary.tar.gz``.

    "digits" needs no file: scikit-learn's 1,797 scans of 8×8 pixels (Alpaydin and Kaynak 1998),
    brought to 28×28 the way MNIST was made: enlarged to 20×20 (bicubic, grey kept) in the middle
    of a black 28×28. Every sixth image is a test image: 1,498 to train on and 299 to test. The
    scans of one writer are in both parts.

    "tfds:NAME" is a set of TensorFlow Datasets, if that package is installed. It needs a feature
    ``image`` of one shape in 8 bits and is prepared in its `data_dir`.

    "auto" is MNIST if it can be found or downloaded. Otherwise a warning says why, and digits are
    returned, with the reason in their `source`.

    A path is your own data: a ``.npy`` file of images, a ``.npz`` file in Keras' layout of which
    only `x_train` is required, or a folder of png, jpg or bmp images, directly in it or in one
    subfolder for each class. Arrays are uint8 or floats in [0, 1], of shape (N, height, width) or
    (N, height, width, channels). Images in a folder are turned as their EXIF tag says; an alpha
    channel is dropped, and the `source` says so.

    Args:
        name: "mnist", "fashion_mnist", "cifar10", "digits", "auto", "tfds:NAME" or a path.
        data_dir: the folder to look in first.
        download: whether to download a set that is found nowhere.
        timeout: seconds to wait for an answer in a download; TensorFlow Datasets has its own.
        test_fraction: the fraction of your own images to hold out as a test set, in [0, 1), if
            they have none. At least one image, unless 0.
        seed: of that split, an integer of at least 0.
        image_size: (height, width) to which a folder's images are resized (bicubic).
        grayscale: whether a folder's images are read as grey, (height, width, 1), or as red,
            green and blue; by default as grey if all of them are grey.

    Returns:
        An `ImageData`.

    Raises:
        DatasetError: an unknown name; a `data_dir` that does not exist; nothing found and no
            download; a damaged file or one of another kind, which is named and never skipped; or
            images that do not fit together.
        ValueError: an `image_size` below 1.

    Example:
        >>> from tfp_vae import datasets
        >>> data = datasets.load("digits")
        >>> data.x_train.shape, data.x_test.shape
        ((1498, 28, 28, 1), (299, 28, 28, 1))
    """
    _check_options(timeout, test_fraction, seed)
    known = _known_name(name)
    if known is None:
        return _load_path(pathlib.Path(name), test_fraction, seed, image_size, grayscale)
    refuse_image_options(name, image_size, grayscale)
    if known.startswith(tfds.PREFIX):
        return tfds.load(known, data_dir, download)
    if known == "digits":
        return own.load_digits()
    if known == "auto":
        return _load_auto(data_dir, download, timeout)
    return _load_named(known, data_dir, download, timeout)


def locate(name: str | os.PathLike[str]) -> str:
    """How `load` understands `name`: as the name of a set, or as the absolute path of your data.

    Raises:
        DatasetError: neither.
    """
    return _known_name(name) or str(expanded("name", name).resolve())


def available(data_dir: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Where each named set would be taken from, without a download.

    Files are looked for, not read: `load` may still find one damaged.

    Args:
        data_dir: as in `load`.

    Returns:
        The four names, each with a path ("scikit-learn" for digits), or "" if there is none.

    Raises:
        DatasetError: `data_dir` does not exist, or it or TFP_VAE_DATA_DIR is a file.
    """
    places.folders(data_dir)
    found = {}
    for name in places.NAMED:
        try:
            place, _ = places.search(name, data_dir)
        except DatasetError:  # IDX files whose labels, read to tell the sets apart, are damaged
            place = None
        found[name] = str(place.where) if place else ""
    return {**found, "digits": "scikit-learn"}


def _check_options(timeout: float, test_fraction: float, seed: int) -> None:
    if not (isinstance(timeout, (int, float)) and 0 < timeout < math.inf):
        raise DatasetError(f"timeout: expected seconds above 0, got {timeout!r}.")
    check_test_fraction(test_fraction)
    check_seed(seed)


def _known_name(name: str | os.PathLike[str]) -> str | None:
    """The named set, `None` for a path that exists or looks like one."""
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise DatasetError(f"name: expected the name of a data set or a path, got {name!r}.")
    if isinstance(name, os.PathLike):
        return None
    if name.startswith(tfds.PREFIX):
        return name
    known = _SPELLINGS.get(name.lower().replace("-", "").replace("_", ""))
    if known is not None:
        return known
    path = expanded("name", name)
    if path.exists() or path.suffix in (".npz", ".npy") or "/" in name or os.sep in name:
        return None
    names = list(_SPELLINGS.values())
    nearest = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise DatasetError(
        f"name: expected one of {', '.join(names)}, or the path of a .npz or .npy file or of a "
        f"folder of images, got {name!r}.{hint}"
    )


def _load_path(
    path: pathlib.Path,
    test_fraction: float,
    seed: int,
    image_size: Sequence[int] | None,
    grayscale: bool | None,
) -> ImageData:
    path = expanded("name", path)
    if path.is_dir():
        size = check_image_size(image_size)
        return own.load_folder(path.resolve(), size, grayscale, test_fraction, seed)
    if not path.exists():
        raise DatasetError(f"{path}: expected a file or folder, got nothing of that name.")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise DatasetError(
            f"{path}: expected a .npz or .npy file or a folder of images, got a file ending in "
            f"{path.suffix!r}."
        )
    refuse_image_options(str(path), image_size, grayscale)
    return own.load_arrays(path, test_fraction, seed)


def _load_auto(
    data_dir: str | os.PathLike[str] | None, download: bool, timeout: float
) -> ImageData:
    try:
        return _load_named("mnist", data_dir, download, timeout)
    except AbsentError as error:
        digits = own.load_digits()
        reason = str(error)
    warnings.warn(
        f"MNIST could not be had, so these are scikit-learn's digits, not MNIST. {reason}",
        stacklevel=3,
    )
    source = f"{digits.source}. Taken because MNIST could not be had: {reason}"
    return ImageData(**{**vars(digits), "source": source})


def _load_named(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool, timeout: float
) -> ImageData:
    found, looked = places.search(name, data_dir)
    origin = found.remark if found else "downloaded"
    if found is None:
        found = _download(name, looked, download, timeout)
    # The cache fills by itself: what it lacks is no one's mistake.
    passed_over = [str(place) for place in looked if place.notes and place.label != places.CACHE]
    if passed_over:
        warnings.warn(
            f"{places.NAMED[name].title} is taken from {found.where}, not from "
            f"{'; '.join(passed_over)}.",
            stacklevel=3,
        )
    return _checked(name, found, f" ({origin})" if origin else "")


def _download(
    name: str, looked: list[places.Looked], download: bool, timeout: float
) -> places.Found:
    about = places.NAMED[name]
    problem = "Downloading was turned off."
    if download:
        try:
            return places.download(name, timeout)
        except AbsentError as error:
            problem = f"{error}."
    hint = f"{about.npz_names[0]} or the IDX files"
    if name == "cifar10":
        hint = "cifar10.npz or cifar-10-binary.tar.gz"
    raise AbsentError(
        f"{about.title} was not found in {'; '.join(map(str, looked))}. {problem} Set "
        f"{places.DATA_DIR_VARIABLE} to a folder that holds {hint}, or take the data set "
        "'digits', which needs no file."
    )


def _checked(name: str, found: places.Found, origin: str) -> ImageData:
    """The arrays of a named set, if they have its shape and its classes."""
    about = places.NAMED[name]
    arrays = found.read()
    parts = {}
    for part in ("train", "test"):
        images, where = arrays.pop(f"x_{part}"), f"{found.where} [x_{part}]"
        if images.dtype != np.uint8:
            raise DatasetError(
                f"{where}: expected uint8 pixels of {about.title}, got {images.dtype}."
            )
        shape = about.image_shape
        if images.shape[1:] not in (shape, shape[:2] if shape[2] == 1 else shape):
            raise DatasetError(
                f"{where}: expected shape {('N', *shape)} of {about.title}, got {images.shape}."
            )
        parts[f"x_{part}"] = to_unit_images(where, images)
        where = f"{found.where} [y_{part}]"
        labels = to_labels(where, arrays.pop(f"y_{part}"), len(images))
        if labels.max() >= len(about.class_names):
            raise DatasetError(
                f"{where}: expected labels of 0 to {len(about.class_names) - 1}, got "
                f"{labels.max()}."
            )
        parts[f"y_{part}"] = labels
    sizes = len(parts["x_train"]), len(parts["x_test"])
    part_of = ""
    if sizes != about.sizes:
        part_of = f" (not the whole set of {about.sizes[0]:,} and {about.sizes[1]:,})"
    return ImageData(
        name=name,
        class_names=about.class_names,
        source=(
            f"{about.title} from {found.where}{origin}: "
            f"{counts(parts['x_train'], parts['x_test'])}{part_of}"
        ),
        **parts,
    )
