"""Readers of file formats. Each checks what a header promises before it believes it.

A file in a data directory may be cut short, half downloaded or made by a stranger. So nothing is
unpickled, sizes are compared with the file's before memory is taken, and every failure is a
`DatasetError` that names the file.
"""

import contextlib
import gzip
import lzma
import math
import os
import pathlib
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from tfp_vae.datasets.common import DatasetError

# Deflate cannot make data smaller than this ratio: a header that promises more is a lie.
_MAX_DEFLATE_RATIO = 1040
# Black images pack that well, and so does a file made to fill the memory: past a gigabyte no true
# set has been seen that packs better than 100 to 1.
_MAX_PACKED, _MAX_PACKED_RATIO = 1 << 30, 100
_CIFAR_RECORD = 1 + 3 * 32 * 32  # label, then 32×32 red, green and blue
_CIFAR_MEMBER_LIMIT = 20_000 * _CIFAR_RECORD  # twice the true size
CIFAR_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_TEST = "test_batch.bin"
_CIFAR_ARCHIVE_MEMBERS = 100  # the true one has 9

_DAMAGE = (
    OSError,  # includes gzip.BadGzipFile
    EOFError,
    ValueError,
    MemoryError,
    NotImplementedError,  # a zip's unknown compression
    RuntimeError,  # a zip with a password
    TypeError,  # a header of .npy with a shape of booleans
    SyntaxError,  # that is no Python literal,
    tokenize.TokenError,  # or that ends within one,
    RecursionError,  # or has a thousand brackets
    struct.error,
    zlib.error,
    lzma.LZMAError,  # which a zip may use
    zipfile.BadZipFile,
    tarfile.TarError,
)


@contextlib.contextmanager
def _reading(path: pathlib.Path, expected: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a decoder raise into one error that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise _damaged(path, expected, f"{type(error).__name__}: {reason}") from error


def _damaged(path: pathlib.Path | str, expected: str, got: str) -> DatasetError:
    return DatasetError(
        f"{path}: expected {expected}, got {got}. The file is cut short, damaged or another kind "
        "of file: replace it, or take it away."
    )


# ---------------------------------------------------------------------- NumPy


def _read_npy_stream(label: str, stream: IO[bytes], size: int) -> np.ndarray:
    """One array in .npy format from a stream of `size` bytes."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise _damaged(label, "version 1.0 or 2.0 of the .npy format", f"version {version}")
    if dtype.hasobject:
        raise _damaged(label, "an array of numbers", "pickled Python objects, which are never read")
    content_size = math.prod(shape) * dtype.itemsize
    promised = stream.tell() + content_size
    if min(shape, default=0) < 0 or promised != size:
        raise _damaged(label, f"{promised:,} bytes for {dtype} of shape {shape}", f"{size:,} bytes")
    # Read to the end in one go and without a seek, so that a zip checks its checksum.
    values = np.frombuffer(stream.read(content_size), dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def read_npy(path: pathlib.Path) -> np.ndarray:
    """The array of a .npy file."""
    with _reading(path, "a .npy file of NumPy"), path.open("rb") as stream:
        return _read_npy_stream(str(path), stream, os.fstat(stream.fileno()).st_size)


def read_npz(
    path: pathlib.Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays of a .npz file by name; an absent `optional` one is left out."""
    arrays = {}
    with _reading(path, "a .npz file of NumPy"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for key in (*required, *optional):
            if key in members:
                label = f"{path} [{key}]"
                check_unpacked(label, members[key].file_size, path.stat().st_size)
                with archive.open(members[key]) as stream:
                    arrays[key] = _read_npy_stream(label, stream, members[key].file_size)
            elif key in required:
                got = ", ".join(sorted(members)) or "none"
                raise DatasetError(
                    f"{path}: expected the arrays {', '.join(required)} as Keras names them, got "
                    f"{got}. Write it with numpy.savez(file, {key}=..., ...)."
                )
    return arrays


def check_unpacked(label: str, size: int, packed: int) -> None:
    """Refuse what unfolds to more memory than data do.

    Raises:
        DatasetError: with both sizes.
    """
    if size > max(_MAX_PACKED, _MAX_PACKED_RATIO * packed):
        raise _damaged(label, "data that pack at most 100 to 1", f"{size:,} bytes in {packed:,}")


# ---------------------------------------------------------------------- IDX


def read_idx(path: pathlib.Path, ndim: int) -> np.ndarray:
    """The uint8 array of an IDX file, plain or gzipped (told by its first bytes, not its name).

    The format is that of LeCun, Cortes and Burges' MNIST: two zero bytes, the type 0x08 (uint8),
    the number of dimensions, each dimension as a big-endian 32-bit integer, then the values.
    """
    kind = {1: "labels (magic number 2049)", 3: "images (magic number 2051)"}[ndim]
    with _reading(path, f"an IDX file of {kind}"), path.open("rb") as raw:
        file_size = os.fstat(raw.fileno()).st_size
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        start = stream.read(4)
        if start != bytes((0, 0, 8, ndim)):
            raise _damaged(path, f"an IDX file of {kind}", f"a file that begins with {start!r}")
        shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
        size = math.prod(shape)  # of Python integers: it cannot overflow
        most = file_size * _MAX_DEFLATE_RATIO if zipped else file_size - 4 - 4 * ndim
        values = f"{size:,} values for the shape {shape} in its header"
        if size > most if zipped else size != most:
            got = f"at most {most:,}" if zipped else f"{most:,}"
            raise _damaged(path, values, got)
        check_unpacked(str(path), size, file_size)
        content = stream.read(size + 1)
        if len(content) != size:
            got = f"{len(content):,}" if len(content) < size else "more"
            raise _damaged(path, values, got)
        # Within, since sides of which one is 0 may be too large for NumPy.
        return np.frombuffer(content, np.uint8).reshape(shape)


# ---------------------------------------------------------------------- CIFAR-10


def read_cifar_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """CIFAR-10's binary version from the six files in a folder, in Keras' layout."""
    batches = {}
    for name in (*CIFAR_TRAIN, CIFAR_TEST):
        path = folder / name
        with _reading(path, "a binary batch of CIFAR-10"):
            size = path.stat().st_size
            _check_cifar_size(str(path), size)
            batches[name] = _cifar_records(str(path), path.read_bytes())
    return _cifar_layout(batches)


def read_cifar_archive(path: pathlib.Path) -> dict[str, np.ndarray]:
    """As `read_cifar_folder`, out of cifar-10-binary.tar.gz. Nothing is extracted to the disk."""
    batches = {}

    def bounded(packed: Any) -> Any:
        # Python's reader takes what a header's size says into memory.
        return _Bounded(packed, 8 * _CIFAR_MEMBER_LIMIT)

    with (
        _reading(path, "a .tar.gz of CIFAR-10's binary version"),
        gzip.open(path) as packed,
        tarfile.open(fileobj=bounded(packed), mode="r|") as archive,
    ):
        for number, member in enumerate(archive):
            if number == _CIFAR_ARCHIVE_MEMBERS:  # Python keeps each of them
                raise _damaged(path, f"at most {number} members", "more")
            name = pathlib.PurePosixPath(member.name).name
            if name not in (*CIFAR_TRAIN, CIFAR_TEST):
                continue
            label = f"{path} [{member.name}]"
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                raise _damaged(label, "a plain file", "a link or folder")
            _check_cifar_size(label, member.size)
            batches[name] = _cifar_records(label, stream.read())
    missing = [name for name in (*CIFAR_TRAIN, CIFAR_TEST) if name not in batches]
    if missing:
        raise _damaged(path, f"the members {', '.join(missing)}", "an archive without them")
    return _cifar_layout(batches)


class _Bounded:
    """A stream that ends in an error after so many bytes."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unfolds to more than a true one")
        return content


def _check_cifar_size(label: str, size: int) -> None:
    if size == 0 or size % _CIFAR_RECORD or size > _CIFAR_MEMBER_LIMIT:
        raise _damaged(
            label,
            f"1 to {_CIFAR_MEMBER_LIMIT // _CIFAR_RECORD:,} records of {_CIFAR_RECORD:,} bytes",
            f"{size:,} bytes",
        )


def _cifar_records(label: str, content: bytes) -> np.ndarray:
    _check_cifar_size(label, len(content))
    return np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)


def _cifar_layout(batches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    train = np.concatenate([batches[name] for name in CIFAR_TRAIN])
    arrays = {}
    for part, records in (("train", train), ("test", batches[CIFAR_TEST])):
        arrays[f"x_{part}"] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"y_{part}"] = records[:, 0]
    return arrays
