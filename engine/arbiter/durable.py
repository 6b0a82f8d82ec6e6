"""Files that are there after a crash, whole, and locks that are not.

Law: what is written here has reached the disk when the call returns, the file's name too. Knows nothing of contents.
"""

from __future__ import annotations

import fcntl
import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_through(path: Path, content: bytes) -> None:
    """Write a file; its folder is to be synced by `sync_folder`. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file anew, so that readers see the old one or the new one. Raises OSError."""
    draft = path.with_name(f".{path.name}")
    write_through(draft, content)
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(path: Path, *, wait: bool = False) -> IO[str]:
    """A lock file, made if need be and held until it is closed or the process dies: nothing stays locked by the dead.

    Raises BlockingIOError while another holds it, unless it is to `wait`, and OSError.
    """
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        lock.close()
        raise
    return lock
