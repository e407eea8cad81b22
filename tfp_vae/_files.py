"""Files that appear whole or not at all. Imports nothing else from the package."""

import contextlib
import json
import math
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any


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
        raise OSError(f"{path}: cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `path` to fill, which takes its place when all went well.

    Raises:
        FileExistsError: there is something of that name, other than an empty folder.
        OSError: it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: expected a new or an empty folder, got one with content.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        whole = pathlib.Path(temporary) / "whole"
        whole.mkdir()  # of the usual permissions, which the temporary one around it has not
        yield whole
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


def take_away_halves(folder: pathlib.Path) -> None:
    """Remove what a process that was killed in `whole_file` left in `folder`.

    Only for a folder that no other process writes to.
    """
    for path in folder.glob(".*-????????.part*"):
        path.unlink()


def _flush_to_disk(path: pathlib.Path) -> None:
    """So that after a loss of power the new name does not stand for an empty file."""
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
