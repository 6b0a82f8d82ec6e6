"""Whether a process died over the store: then all of that is read before the next one opens it.

Law: `Doubts` belongs to the supervisor's one thread and never waits. What reads the store is a process of its own,
since a damaged page ends whoever touches it, and what was found stands beside the data: a server that is started again
begins where this one was.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arbiter.errors import ArbiterError
from arbiter.profiles import generations
from arbiter.profiles.environment import damaged
from arbiter.profiles.examining import verify, walk
from arbiter.runtime.logs import start_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.runtime.mailbox import Mailbox

_log = logging.getLogger("arbiter.store")
# How a process ends that reads what is no page: by a fault of memory, or since LMDB or we gave up over it.
FATAL: Final = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}
_PATIENCE_S = 60.0  # whoever is to start waits no longer for all to be read
_KINDLY = 10


class Doubts:
    """Has the store in `path` looked at when a process died over it. `found` is told of damage, in a sentence."""

    def __init__(self, path: Path, level: str, mail: Mailbox, found: Callable[[str], None]) -> None:
        self._path = path
        self._level = level
        self._mail = mail
        self._found = found
        self._examining = False
        self._waiting: list[Callable[[], None]] | None = None  # None: nobody has to wait

    def suspect(self, who: str) -> None:
        """As `begin`, from any thread."""
        self._mail.post(lambda: self.begin(who))

    def begin(self, who: str) -> None:
        """Somebody ended as one does over a damaged page, or did when this server ran last."""
        if self._examining:
            return
        _log.warning("%s: the store in %s is looked at before another opens it", who, self._path)
        self._examining = True
        self._waiting = []
        threading.Thread(target=self._examine, name="arbiter-examining", daemon=True).start()
        self._mail.later(_PATIENCE_S, self._release)

    def resume(self) -> None:
        """Go on with what a server before this one could not finish."""
        try:
            suspected = generations.is_suspected(self._path)
        except OSError as error:
            _log.warning("cannot read the folder of the store in %s: %s", self._path, error)
            return
        if suspected:
            self.begin("a process died over it before this start")

    def after(self, letter: Callable[[], None]) -> None:
        """Call `letter` when the store may be opened: now, if nothing speaks against it."""
        if self._waiting is None:
            letter()
        else:
            self._waiting.append(letter)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for letter in waiting:
            letter()

    def _examine(self) -> None:
        """In a thread of its own: first what is quick, then what is thorough, beside those who serve."""
        found = ""
        try:
            generations.suspect(self._path)
            found = self._outcome(_walked)
            if not found:
                self._mail.post(self._release)
                found = self._outcome(_verified)
        except OSError as error:
            _log.warning("cannot note what became of the store in %s: %s", self._path, error)
        self._mail.post(lambda: self._end(found))

    def _outcome(self, entry: Callable[[str, str], None]) -> str:
        """What a process of its own finds. Raises OSError."""
        process = multiprocessing.get_context("spawn").Process(
            target=entry, args=(str(self._path), self._level), daemon=True
        )
        process.start()
        process.join()
        if process.exitcode in FATAL:
            name = signal.Signals(-process.exitcode).name
            generations.condemn(self._path, f"reading all of it ended a process by {name}")
        return generations.damage_in(generations.folder(self._path, generations.newest(self._path)))

    def _end(self, found: str) -> None:
        self._examining = False
        if found:
            self._found(str(damaged(self._path, found)))
        else:
            self._release()


def _walked(path: str, level: str) -> None:
    """The entry of a spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor ends us
    start_logging(level, "examination")
    try:
        if found := walk(Path(path)):
            generations.condemn(Path(path), found)
        else:
            _log.info("every entry of the store in %s can be read", path)
    except (ArbiterError, OSError) as error:
        _log.warning("the store in %s could not be looked at: %s", path, error)


def _verified(path: str, level: str) -> None:
    """The entry of a spawned process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the copy goes with us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_KINDLY)
    start_logging(level, "examination")
    try:
        if found := verify(Path(path)):
            generations.condemn(Path(path), found)
        else:
            generations.absolve(Path(path))
            _log.info("every page of the store in %s is well: what died, died of something else", path)
    except (ArbiterError, OSError) as error:
        _log.warning("not every page of the store in %s was looked at, so `arbiter store check` it: %s", path, error)
