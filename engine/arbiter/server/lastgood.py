"""The last good content of files that operators replace while the server runs.

Law: says when files have changed and keeps what was last read well; what is in them is for who reads them. A change is
seen by the files' marks (inode, size, times), so that a swapped link, an editor and a copy all count.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_log = logging.getLogger("arbiter.security")
_Content = TypeVar("_Content")
_Marks = tuple[tuple[int, int, int, int] | None, ...]


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
