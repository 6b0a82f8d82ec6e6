"""Says when it is worth looking at the authored files again.

Law: it never reads a file and never says what changed. It watches directories, for a watch on a file dies with the
inode that an editor replaces, and the links on the way to them, for a watch follows a link once. It also calls now and
then without any event, since network file systems send none. Whoever is called compares contents.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import watchfiles

from arbiter.runtime.sources import ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_log = logging.getLogger("arbiter.watcher")

_QUIET_MS = 20  # a burst ends when nothing moved for this long
_LONGEST_BURST_MS = 400
_POLL_MS = 2_000
_MOST_LINKS = 40


class Watcher:
    """Calls `look` from its own thread after every burst of changes below `directories`, and every two seconds.

    A directory may be reached through links: one that is swapped is such a change.
    """

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
            except (OSError, RuntimeError):
                # A directory went away between the check and the watch, the system's watches are used up, or,
                # a RuntimeError, a file moved whose name is not UTF-8.
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
        with _Links(present) as links:
            changes = watchfiles.watch(
                *present,
                watch_filter=_concerns,
                debounce=_LONGEST_BURST_MS,
                step=_QUIET_MS,
                rust_timeout=_POLL_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                stop_event=_Any(self._stop, links.swapped),
            )
            for _ in changes:
                if self._stop.is_set():
                    return
                self._look()
                if self._identities() != identities:
                    return
        if not self._stop.is_set():
            self._look()

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._directories]


class _Any:
    """Is set when one of some events is."""

    def __init__(self, *events: threading.Event) -> None:
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


class _Links:
    """Sets `swapped`, while the block runs, when a link on the way to one of `directories` is replaced.

    Only the folders that hold the links are watched, not what else lies below them, which may be a whole disk.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        self.swapped = threading.Event()
        self._links = {link for path in directories for link in links_to(path)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="arbiter-watcher-links", daemon=True)

    def __enter__(self) -> Self:
        if self._links:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._links:
            self._thread.join()

    def _watch(self) -> None:
        changes = watchfiles.watch(
            *{link.parent for link in self._links},
            watch_filter=lambda _, path: Path(path) in self._links,
            debounce=_LONGEST_BURST_MS,
            step=_QUIET_MS,
            raise_interrupt=False,
            stop_event=self._over,
            recursive=False,
        )
        try:
            for _ in changes:
                self.swapped.set()
                return
        except (OSError, RuntimeError):
            _log.warning("cannot watch links, looking every %d ms", _POLL_MS, exc_info=True)


def links_to(path: Path) -> list[Path]:
    """Every symbolic link on the way to what `path` names, each as a path without links before its last part.

    Links in a circle end the way, as they do for the kernel.
    """
    found: list[Path] = []
    here, ahead = Path(), [*reversed(path.absolute().parts)]
    while ahead:
        part = ahead.pop()
        step = here.parent if part == ".." else here / part
        if not step.is_symlink():
            here = step
        elif len(found) == _MOST_LINKS:
            break
        else:
            found.append(step)
            ahead += reversed(step.readlink().parts)
    return found


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
