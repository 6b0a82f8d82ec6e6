"""The thread that keeps a store in order while nobody asks: rebuilds, refreshes, what is to go, dead readers.

Law: all of its writes go through the writer's queue in small pieces, so it never holds up a caller for long. Nothing
depends on it for being right: reads compute what a record lacks.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

import lmdb

from arbiter.errors import ArbiterError, LimitExceeded
from arbiter.profiles.refreshing import Rebuild, Refresh
from arbiter.profiles.sweeping import Sweep

if TYPE_CHECKING:
    from arbiter.profiles.current import Current
    from arbiter.profiles.values import Limits
    from arbiter.profiles.writer import Writer

_PIECE = 64
_PAUSE = 0.02
_ROUND = 5.0
_log = logging.getLogger(__name__)


class Upkeep:
    """Runs until closed. `rebuilding` is the id of the feature set that records are being rewritten for, or empty.

    `noticed` counts reads of records that were out of date.
    """

    def __init__(self, current: Current, writer: Writer, limits: Limits, *, background: bool) -> None:
        self.rebuilding = ""
        self.sweep = Sweep(current, writer, limits)
        self.noticed = 0
        self._current = current
        self._writer = writer
        self._stale: deque[bytes] = deque(maxlen=4096)
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arbiter-upkeep", daemon=True)
        if background:
            self._thread.start()

    def rebuild(self, feature_set: str) -> None:
        """Begin to rewrite records for the feature set with this id."""
        self.rebuilding = feature_set
        self._wake.set()

    def notice(self, key: bytes) -> None:
        """Remember a subject whose hot record is out of date."""
        self.noticed += 1
        self._stale.append(key)
        self._wake.set()

    def step(self, limit: int) -> int:
        """Rewrite at most `limit` records; about how many remain. Raises StoreError."""
        feature_set, remaining = self._writer.submit(Rebuild(limit)).result()
        if not remaining and feature_set == self.rebuilding:
            self.rebuilding = ""
        return int(remaining)

    def close(self) -> None:
        """End soon."""
        self._end.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._wake.wait(_ROUND)
            self._wake.clear()
            try:
                self._work()
                self._current.latest().handle.reader_check()
            except LimitExceeded:
                self._end.wait(1.0)  # a full disk, of which the writer has told, or a full queue: later
            except (ArbiterError, lmdb.Error) as error:
                _log.warning("the store in %s could not be kept in order: %s", self._current.path, error)
                self._end.wait(1.0)

    def _work(self) -> None:
        more = True
        while (self.rebuilding or self._stale or more) and not self._end.wait(_PAUSE):
            keys = {self._stale.popleft() for _ in range(min(_PIECE, len(self._stale)))}
            if keys:
                self._writer.submit(Refresh(sorted(keys))).result()
            if self.rebuilding:
                self.step(_PIECE)
            more = self.sweep.step()
