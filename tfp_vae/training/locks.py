"""One process for a run folder at a time."""

import contextlib
import errno
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

from tfp_vae.training.models import RunError

# What the system answers where another process holds the lock.
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it when the process ends, killed even.

    Raises:
        RunError: another process holds it, which is named.
        OSError: the folder cannot be written, or its file system has no locks.
    """
    path = folder / ".lock"
    try:
        # Without a buffer, whose bytes a full disk would refuse again when the file is closed.
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise OSError(f"{folder}: expected a folder that can be written, got {error}") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in _HELD:
                raise OSError(
                    f"{folder}: expected a file system that knows locks, without which two "
                    f"processes could train into one folder, got {error}"
                ) from error
            raise RunError(
                f"{folder}: another process is training into this folder{_holder(path)}. Wait for "
                "it, or give another folder."
            ) from error
        # Read only where the lock is held: what a killed process left names nobody.
        with contextlib.suppress(OSError):  # a full disk
            file.truncate(0)
            holder = {"process": os.getpid(), "machine": socket.gethostname()}
            file.write(json.dumps(holder).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _holder(path: pathlib.Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f": number {holder['process']} on {holder['machine']}"
    except (OSError, ValueError, KeyError, TypeError):  # not yet written, or not to be read
        return ""


def _lock(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # From the file's position on: a byte far behind what is written, the same for all.
        file.seek(1 << 30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
