"""Says when it is worth looking at the authored files again.

Law: it never reads a file and never says what changed. It watches directories, for a watch on a file dies with the
inode that an editor replaces, and it also calls now and then without any event, since network file systems send none.
Whoever is called compares contents.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import watchfiles

from arbiter.runtime.sources import ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger("arbiter.watcher")

_QUIET_MS = 20  # a burst ends when nothing moved for this long
_LONGEST_BURST_MS = 400
_POLL_MS = 2_000


class Watcher:
    """Calls `look` from its own thread after every burst of changes below `directories`, and every two seconds."""

    def __init__(self, directories: Sequence[Path], look: Callable[[], None]) -> None:
        self._directories = tuple(directories)
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arbiter-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch. Directories may come and go meanwhile."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when no further call of `look` can come."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch_until_replaced()
            except OSError:
                # A directory went away between the check and the watch, or the system's watches are used up.
                _log.warning("cannot watch the directories, looking every %d ms", _POLL_MS, exc_info=True)
                self._stop.wait(_POLL_MS / 1000)
                self._look()

    def _watch_until_replaced(self) -> None:
        """One watch over the directories that exist; returns when one of them is another than it was."""
        identities = self._identities()
        present = [path for path, identity in zip(self._directories, identities, strict=True) if identity]
        if not present:
            self._stop.wait(_POLL_MS / 1000)
            self._look()
            return
        changes = watchfiles.watch(
            *present,
            watch_filter=_concerns,
            debounce=_LONGEST_BURST_MS,
            step=_QUIET_MS,
            rust_timeout=_POLL_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            stop_event=self._stop,
        )
        for _ in changes:
            if self._stop.is_set():
                return
            self._look()
            if self._identities() != identities:
                return

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._directories]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _concerns(_change: watchfiles.Change, path: str) -> bool:
    name = Path(path).name
    # The link `..data` is how Kubernetes swaps a mounted volume: its own content is read through other names.
    return name.startswith("..") or not ignored(name)
