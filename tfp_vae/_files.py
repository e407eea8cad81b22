"""Files that appear whole or not at all, and that tell whether they still are what was written.

Imports nothing else from the package.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import secrets
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

_MARK = b" sha256:"
_SEAL = len(_MARK) + 64  # and as many hexadecimal digits


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to, which takes its place when all went well.

    Whatever stops this process, `path` is as it was before or as it should be. Folders that do
    not exist are made.

    Raises:
        OSError: it cannot be written; the path is named.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        kind = OSError if error.errno is None else type(OSError(error.errno, ""))
        named = kind(f"{path}: cannot be written: {error}")
        named.errno = error.errno  # so that PermissionError and ENOSPC can still be told apart
        raise named from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `path` to fill, which takes its place when all went well.

    A process that is killed meanwhile leaves it, with a hidden name: ``.NAME-...``.

    Raises:
        FileExistsError: there is something of that name, other than an empty folder.
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: expected a new or an empty folder, got a file.")
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{path}: expected a new or an empty folder, got one with content.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        whole = pathlib.Path(temporary) / "whole"
        whole.mkdir()  # of the usual permissions, which the temporary one around it has not
        yield whole
        for file in whole.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        if path.exists():
            path.rmdir()
        os.replace(whole, path)


def json_text(content: Any, indent: int | None = None) -> str:
    """`content` as JSON that any program reads: NaN and infinity, which JSON lacks, as null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(content), indent=indent, allow_nan=False)


def content_sum(content: dict[str, Any]) -> str:
    """SHA-256 of `content` as JSON, however that is written: keys in order, no spaces."""
    text = json.dumps(json.loads(json_text(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: pathlib.Path, note: dict[str, Any]) -> None:
    """Give a zip file (``.keras``, ``.npz``) a comment: `note`, and the SHA-256 of all before it.

    A zip's own CRC-32 tells a damaged member, not one that belongs to another file, and says
    nothing of what lies between the members. This is a checksum, no signature: whoever changes a
    file on purpose can seal it again.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json_text(note).encode() + _MARK + bytes(64)
    with path.open("r+b") as file:
        digest = _digest(file, path.stat().st_size - 64)
        file.seek(-64, os.SEEK_END)
        file.write(digest)


def read_seal(path: pathlib.Path) -> dict[str, Any] | None:
    """The note that `seal` was given; `None` of a file that has no seal at its end.

    Raises:
        ValueError: the file is not as it was sealed.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _SEAL, 0))
        end = file.read()
        if not end.startswith(_MARK) or size < _SEAL:
            return None
        if _digest(file, size - 64) != end[-64:]:
            raise ValueError("the SHA-256 at its end is of other bytes")
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.comment[:-_SEAL])


def _digest(file: IO[bytes], size: int) -> bytes:
    """SHA-256 of the first `size` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()


def take_away_halves(folder: pathlib.Path) -> None:
    """Remove what a process that was killed in `whole_file` left in `folder`.

    Only for a folder that no other process writes to.
    """
    for path in folder.glob(".*-????????.part*"):
        path.unlink(missing_ok=True)


def _flush_to_disk(path: pathlib.Path) -> None:
    """So that after a loss of power the new name does not stand for an empty file."""
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
