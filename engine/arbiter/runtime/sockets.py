"""The Unix sockets of the workers: a directory, and in it one path for each worker.

Law: names, modes and files alone; a server binds what it is told. A worker binds a name of its own and renames it to
the public one, so that one that follows takes the path over without a gap, and one that ends removes only what is its.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from arbiter.runtime.address import ListenError

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY_MODE = 0o700
_SOCKET_MODE = 0o660  # for its owner and for the group of a directory that others may enter
_MOST_WORKERS = 256
_MOST_PROCESSES = 1 << 22
_PATH_BYTES = 107  # the kernel's room for a path, less the zero at its end


def make(directory: Path) -> None:
    """Make the directory, for its owner alone. Raises ListenError, also for a path that is too long.

    One that is there keeps its mode: whoever made it decides who may enter.
    """
    longest = os.fsencode(directory / f".worker-{_MOST_WORKERS}.{_MOST_PROCESSES}.sock")
    if len(longest) > _PATH_BYTES:
        raise ListenError(
            f"the path of the directory for sockets, {directory}, is too long: with a socket's name it has "
            f"{len(longest)} bytes, and the system allows {_PATH_BYTES}"
        )
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ListenError(f"cannot make the directory for sockets {directory}: {error}") from error


def clear(directory: Path) -> None:
    """Remove the sockets that workers left there. Raises ListenError."""
    try:
        for found in [*directory.glob("worker-*.sock"), *directory.glob(".worker-*.sock")]:
            if stat.S_ISSOCK(found.lstat().st_mode):
                found.unlink()
    except OSError as error:
        raise ListenError(f"cannot clear the directory for sockets {directory}: {error}") from error


class WorkerSocket:
    """The socket of the worker `number` in a directory that was made."""

    def __init__(self, directory: Path, number: int) -> None:
        self._bound = directory / f".worker-{number}.{os.getpid()}.sock"
        self._path = directory / f"worker-{number}.sock"
        self._inode = 0

    @property
    def address(self) -> str:
        """What to bind."""
        return f"unix:{self._bound}"

    def publish(self) -> None:
        """Put what was bound at the worker's path. Raises ListenError."""
        try:
            self._bound.chmod(_SOCKET_MODE)
            self._inode = self._bound.lstat().st_ino
            self._bound.rename(self._path)
        except OSError as error:
            raise ListenError(f"cannot put a socket at {self._path}: {error}") from error

    def withdraw(self) -> None:
        """Let nobody find it any more; leaves what another process has put there meanwhile."""
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
