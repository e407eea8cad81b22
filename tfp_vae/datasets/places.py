"""Where the named sets may lie on this computer, and Keras' download of those that do not."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import socket
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

import keras
import numpy as np

from tfp_vae.datasets import files
from tfp_vae.datasets.common import AbsentError, DatasetError, expanded

DATA_DIR_VARIABLE = "TFP_VAE_DATA_DIR"
CACHE = "Keras' cache"

Arrays = dict[str, np.ndarray]
KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class NamedSet:
    """What is known of a set before it is read."""

    title: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    sizes: tuple[int, int]
    npz_names: tuple[str, ...]
    subfolders: tuple[str, ...]


_DIGITS = tuple("0123456789")
NAMED = {
    "mnist": NamedSet(
        title="MNIST",
        image_shape=(28, 28, 1),
        class_names=_DIGITS,
        sizes=(60_000, 10_000),
        npz_names=("mnist.npz",),
        subfolders=("mnist", "mnist/raw", "MNIST", "MNIST/raw"),
    ),
    "fashion_mnist": NamedSet(
        title="Fashion-MNIST",
        image_shape=(28, 28, 1),
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        sizes=(60_000, 10_000),
        npz_names=("fashion_mnist.npz", "fashion-mnist.npz"),
        subfolders=("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
    ),
    "cifar10": NamedSet(
        title="CIFAR-10",
        image_shape=(32, 32, 3),
        class_names=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        sizes=(50_000, 10_000),
        npz_names=("cifar10.npz", "cifar-10.npz"),
        subfolders=("cifar10", "cifar-10"),
    ),
}  # fmt: skip

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


@dataclasses.dataclass(frozen=True)
class Download:
    """One file of a set: where it is, and the MD5 or SHA-256 that it must have."""

    url: str
    checksum: str

    @property
    def file(self) -> str:
        """The name that it has in the cache."""
        return self.url.rsplit("/", 1)[-1]


# The folder in Keras' cache, and its files. Keras' own CIFAR-10 is a pickle; this is not.
DOWNLOADS = {
    "mnist": (
        "",
        (
            Download(
                f"{_KERAS_FILES}mnist.npz",
                "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            ),
        ),
    ),
    "fashion_mnist": (
        "fashion-mnist",
        tuple(
            Download(f"{_KERAS_FILES}{file}.gz", checksum)
            for file, checksum in (
                ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe"),
                ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79"),
                ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310"),
            )
        ),
    ),
    "cifar10": (
        "",
        (
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """A set that lies in a folder: where, how to read it, and what its owner should know."""

    where: pathlib.Path
    read: Callable[[], Arrays]
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Looked:
    """A place that does not hold the wanted set, and what it holds or lacks instead."""

    label: str
    folder: pathlib.Path
    notes: tuple[str, ...]

    def __str__(self) -> str:
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.label} {self.folder}{notes}"


# ---------------------------------------------------------------------- search


def keras_home() -> pathlib.Path:
    """Keras' folder: $KERAS_HOME, or .keras in the home directory. Keras has no public name."""
    home = os.environ.get("KERAS_HOME")
    if home:
        return pathlib.Path(home).expanduser()
    base = pathlib.Path.home()
    if not os.access(base, os.W_OK):
        base = pathlib.Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())
    return base / ".keras"


def folders(data_dir: str | os.PathLike[str] | None) -> list[tuple[str, pathlib.Path]]:
    """The folders to search, in order, each with the words that say why.

    Raises:
        DatasetError: one that the user named is a file, or `data_dir` is not there. The variable,
            which may be set for other programs and machines too, may name a folder that is not.
    """
    named = [("data_dir", data_dir), (f"${DATA_DIR_VARIABLE}", os.environ.get(DATA_DIR_VARIABLE))]
    found = []
    for label, value in named:
        if value is None or not os.fspath(value):
            continue
        folder = expanded(label, value)
        if folder.exists() and not folder.is_dir():
            raise DatasetError(
                f"{label}: expected a folder, got the file {folder}. To read one file of your own, "
                "give its path to load() as the name."
            )
        if label == "data_dir" and not folder.exists():
            raise DatasetError(f"data_dir: expected a folder, got {folder}, which is not there.")
        found.append((label, folder))
    return [*found, (CACHE, keras_home() / "datasets")]


def search(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Found | None, list[Looked]]:
    """The first place that holds the named set, and what each place before it lacked."""
    looked: list[Looked] = []
    for label, folder in folders(data_dir):
        notes: list[str] = []
        if folder.is_dir():
            found = _find(name, folder, notes)
            if found is not None:
                return found, looked
        else:
            notes.append("no such folder")
        looked.append(Looked(label, folder, tuple(notes)))
    return None, looked


def _find(name: str, folder: pathlib.Path, notes: list[str]) -> Found | None:
    about = NAMED[name]
    # What carries the set's name comes before the folder's own IDX files, which do not.
    places = [folder / sub for sub in about.subfolders]
    for place in (folder, *places):
        for file in about.npz_names:
            if (place / file).is_file():
                path = place / file
                return Found(path, functools.partial(files.read_npz, path, KEYS))
    if name == "cifar10":
        return _find_cifar((folder, *places), notes)
    for place in (*places, folder):
        parts = _find_idx(place, notes)
        if parts is None:
            continue
        read = functools.partial(_read_idx_files, parts)
        if place != folder:
            return Found(place, read)
        kind = _kind_of_idx(folder, parts)
        if kind in (name, ""):
            return Found(place, read, "" if kind else f"believed to be {about.title}")
        notes.append(f"{place} holds IDX files of {NAMED[kind].title} or a set like it")
    return None


def _find_cifar(places: tuple[pathlib.Path, ...], notes: list[str]) -> Found | None:
    expected = (*files.CIFAR_TRAIN, files.CIFAR_TEST)
    for place in places:
        for batches in (place / "cifar-10-batches-bin", place):
            missing = [file for file in expected if not (batches / file).is_file()]
            if not missing:
                return Found(batches, functools.partial(files.read_cifar_folder, batches))
            if len(missing) < len(expected):
                notes.append(f"{batches} lacks {', '.join(missing)}")
        archive = place / "cifar-10-binary.tar.gz"
        if archive.is_file():
            return Found(archive, functools.partial(files.read_cifar_archive, archive))
    return None


def _find_idx(folder: pathlib.Path, notes: list[str]) -> dict[str, pathlib.Path] | None:
    """The four IDX files of MNIST's format, by Keras' names for their arrays."""
    parts, missing = {}, []
    for key, stem, kind in (
        ("x_train", "train-images", "idx3-ubyte"),
        ("y_train", "train-labels", "idx1-ubyte"),
        ("x_test", "t10k-images", "idx3-ubyte"),
        ("y_test", "t10k-labels", "idx1-ubyte"),
    ):
        spellings = [f"{stem}{dot}{kind}{end}" for dot in "-." for end in ("", ".gz")]
        path = next((folder / file for file in spellings if (folder / file).is_file()), None)
        if path is None:
            missing.append(f"{stem}-{kind}[.gz]")
        else:
            parts[key] = path
    if parts and missing:
        notes.append(f"{folder} holds {min(parts.values()).name} but not {', '.join(missing)}")
    return None if missing else parts


def _read_idx_files(parts: dict[str, pathlib.Path]) -> Arrays:
    return {key: files.read_idx(path, 3 if key[0] == "x" else 1) for key, path in parts.items()}


def _kind_of_idx(folder: pathlib.Path, parts: dict[str, pathlib.Path]) -> str:
    """Which set the IDX files directly in a folder are; "" where that cannot be told.

    MNIST and Fashion-MNIST use the same file names. Of Fashion-MNIST (and of KMNIST) each class
    has exactly 6,000 training images; of MNIST none has.
    """
    for name, about in NAMED.items():
        if folder.name in about.subfolders:
            return name
    labels = files.read_idx(parts["y_train"], 1)
    if len(labels) != NAMED["mnist"].sizes[0]:
        return ""
    per_class = np.bincount(labels, minlength=10)
    return "fashion_mnist" if (per_class == 6_000).all() else "mnist"


# ---------------------------------------------------------------------- download


def download(name: str, timeout: float) -> Found:
    """Have Keras download a set into its cache, each wait for the network at most `timeout`.

    Raises:
        AbsentError: no answer, an HTTP error, a wrong checksum or a cache that cannot be written.
    """
    subfolder, wanted = DOWNLOADS[name]
    folder = keras_home() / "datasets" / subfolder
    for item in wanted:
        target = folder / item.file
        if target.is_file() and _checksum(target, item.checksum) == item.checksum:
            continue  # an earlier download got as far as this file
        _download_file(item, target, timeout)
    notes: list[str] = []
    found = _find(name, keras_home() / "datasets", notes)
    if found is None:
        raise AbsentError(f"{folder}: expected the files of {name}, got {'; '.join(notes)}.")
    return found


def _download_file(item: Download, target: pathlib.Path, timeout: float) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Into a folder of its own, then moved: a file in the cache is a whole and checked one,
        # whatever stops this process.
        holder = tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-")
    except OSError as error:
        raise AbsentError(
            f"{target.parent}: expected a folder that can be written, got {error}. Set KERAS_HOME "
            "to one that can."
        ) from error
    with holder as temporary:
        _probe(item.url, timeout)
        try:
            with _socket_timeout(timeout):
                path = keras.utils.get_file(
                    item.file,
                    item.url,
                    file_hash=item.checksum,
                    cache_dir=temporary,
                    cache_subdir=".",
                )
            os.replace(path, target)
        except Exception as error:  # Keras raises bare Exception for an HTTP error
            raise AbsentError(f"{item.url}: the download failed: {error}") from error


@contextlib.contextmanager
def _socket_timeout(timeout: float) -> Iterator[None]:
    """Bound the wait for every answer: Keras' download takes no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _probe(url: str, timeout: float) -> None:
    """Connect once, in a thread: no socket timeout bounds the look-up of a host's name."""
    host, port = _first_hop(url)
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True, name="tfp_vae-probe")
    thread.start()
    thread.join(timeout)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {timeout:g} s")
    if error is not None:
        raise AbsentError(f"{url}: {host} port {port} cannot be reached: {error}") from error


def _first_hop(url: str) -> tuple[str, int]:
    """Host and port that a request for `url` connects to first: its own, or the proxy's."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host = parts.hostname or ""
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _checksum(path: pathlib.Path, like: str) -> str:
    algorithm = "md5" if len(like) == 32 else "sha256"
    with path.open("rb") as stream:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
