"""The last good content of files that operators replace while the server runs.

Law: says when files have changed and keeps what was last read well; what is in them is for who reads them. A change is
seen by the files' marks (inode, size, times), so that a swapped link, an editor and a copy all count.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, Generic, TypeVar

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_log = logging.getLogger("arbiter.security")
_Content = TypeVar("_Content")
_Marks = tuple[tuple[int, int, int, int] | None, ...]


class UnusableFile(ArbiterError):
    """A file of certificates, keys or callers cannot be used; the message names it and says how to mend it."""


class LastGood(Generic[_Content]):
    """What `read` makes of `paths`, made once now. Raises what `read` raises.

    Later, `look` reads again when a file has changed. Content that cannot be read, an ArbiterError, changes nothing and
    is logged once.
    """

    def __init__(self, what: str, paths: Sequence[Path], read: Callable[[], _Content]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        # Before reading: a change in between is seen by the next look.
        self._marks = self._look()
        self.content = read()

    def look(self) -> bool:
        """Read again if need be; whether `content` is new."""
        marks = self._look()
        if marks == self._marks:
            return False
        self._marks = marks
        try:
            self.content = self._read()
        except ArbiterError as error:
            _log.error("%s stay as they were: %s", self._what, error)
            return False
        _log.info("%s were read again", self._what)
        return True

    def _look(self) -> _Marks:
        return tuple(_marks(path) for path in self._paths)


def _marks(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # The last one also tells of a change of owner or mode, which may mend a file that could not be read.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def content_of(path: Path, *, secret: bool) -> bytes:
    """Return a file's bytes. Raises UnusableFile when it cannot be read, when every user of the machine may change it,
    or, if it is `secret`, may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UnusableFile(f"{path} is no regular file")
            if mode & stat.S_IWOTH:
                raise UnusableFile(f"every user of this machine may change {path}: run `chmod o-w {path}`")
            if secret and mode & stat.S_IROTH:
                raise UnusableFile(
                    f"every user of this machine may read {path}, which holds secrets: run `chmod o-r {path}`, or set "
                    "`defaultMode: 0440` where it is a volume of Kubernetes"
                )
            return file.read()
    except OSError as error:
        raise UnusableFile(f"cannot read {path}: {error.strerror or error}") from error
