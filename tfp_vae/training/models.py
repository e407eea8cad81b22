"""A saved model from a file that may be damaged, swapped or made by a stranger."""

import contextlib
import io
import json
import lzma
import pathlib
import re
import zipfile
import zlib
from typing import Any

import h5py
import keras

from tfp_vae import _allowed, _files
from tfp_vae.vae import VAE

# Keras stores without compression, so that a true file holds about as many bytes as it has.
_MAX_EXPANSION = 100
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"


class RunError(ValueError):
    """A run folder that cannot be used as it was asked. Says what was expected and got."""


def load_model(path: Any) -> VAE:
    """A saved `VAE`, of a ``.keras`` file that need not be trusted.

    As `keras.saving.load_model` in safe mode, after a look at the file: its SHA-256, which
    `VAE.save` writes, or the CRC-32 of each member in a file that Keras itself wrote; sizes, so
    that it cannot unfold to more than 100 times its own; and the names of all classes in it, which
    must be layers of Keras without code, this package's, or registered ones.

    Args:
        path: of the file.

    Raises:
        RunError: no such file; a damaged one, another model, or classes that are not allowed.
    """
    return open_sealed(pathlib.Path(path))[0]


def open_sealed(path: pathlib.Path) -> tuple[VAE, dict[str, Any] | None]:
    """As `load_model`, and what the file's seal says; see `_files.seal`."""
    note = check_file(path)
    try:
        # Keras would say of a file with another ending that there is none.
        model = keras.saving.load_model(path)
    except Exception as error:  # a configuration that makes no model raises nearly anything
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"{path}: expected a saved model, got what Keras refuses: {type(error).__name__}: "
            f"{said}{_of_a_newer_keras(path)}"
        ) from error
    if not isinstance(model, VAE):
        raise RunError(f"{path}: expected a tfp_vae.VAE, got a {type(model).__name__}.")
    return model, note


def _of_a_newer_keras(path: pathlib.Path) -> str:
    """A sentence on the file's version of Keras, where it is newer than the one that reads it."""
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        wrote = str(json.loads(archive.read("metadata.json"))["keras_version"])
        if _version(wrote) > _version(keras.__version__):
            return f" Keras {wrote} wrote it, and this is {keras.__version__}: take a newer one."
    return ""


def _version(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)[:3]]


def check_file(path: pathlib.Path) -> dict[str, Any] | None:
    """Look through a ``.keras`` file without making anything of it; gives what its seal says.

    Raises:
        RunError: as `load_model`.
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no such file.")
    try:
        note = _files.read_seal(path)
        if path.suffix != ".keras":
            raise ValueError("its name does not end in .keras")
        with zipfile.ZipFile(path) as archive:
            config, weights = _members(archive, path.stat().st_size, note is not None)
        found = json.loads(config)
        _check_arrays(weights)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,  # a type of HDF5 that h5py does not know
        EOFError,
        NotImplementedError,  # unknown compression
        RuntimeError,  # a password, or a part of HDF5 that cannot be read
        RecursionError,  # JSON of ten thousand brackets
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise RunError(
            f"{path}: expected a .keras file, got a damaged or other one: "
            f"{str(error) or type(error).__name__}"
        ) from error
    try:
        _allowed.check(found)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error
    return note


def _members(archive: zipfile.ZipFile, size: int, sealed: bool) -> tuple[bytes, bytes]:
    """Configuration and weights."""
    total = sum(info.file_size for info in archive.infolist())
    if total > _MAX_EXPANSION * size:
        raise ValueError(f"{total:,} bytes packed into {size:,}")
    names = archive.namelist()
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise ValueError("a member whose name leaves the file")
    if len(set(names)) < len(names):
        raise ValueError("two members of one name")
    if not sealed and (damaged := archive.testzip()) is not None:
        raise ValueError(f"a wrong CRC-32 of {damaged}")
    return archive.read(_CONFIG), archive.read(_WEIGHTS)


def _check_arrays(weights: bytes) -> None:
    """Refuse links to other files, and arrays that promise more than the file holds."""
    with h5py.File(io.BytesIO(weights)) as file:
        pending: list[Any] = [file]
        seen = set()  # a group may be linked into itself
        while pending:
            group = pending.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"a link named {name} among the weights")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    raise ValueError(f"{name} twice among the weights")
                seen.add(address)
                if isinstance(item, h5py.Group):
                    pending.append(item)
                elif not isinstance(item, h5py.Dataset):
                    raise ValueError(f"{name}, which is no array, among the weights")
                elif item.external or item.is_virtual or item.nbytes > len(weights):
                    raise ValueError(f"an array {name} whose values are not in the file")
