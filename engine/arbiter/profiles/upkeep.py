"""The thread that keeps a store in order while nobody asks: rebuilds, refreshes, what is to go, dead readers.

Law: all of its writes go through the writer's queue in small pieces, so it never holds up a caller for long. Nothing
depends on it for being right: reads compute what a record lacks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import lmdb

from arbiter.errors import ArbiterError, LimitExceeded
from arbiter.profiles.figures import Figures, Rebuilding
from arbiter.profiles.quota import quota_of
from arbiter.profiles.refreshing import Rebuild, Refresh
from arbiter.profiles.shedding import shed
from arbiter.profiles.sweeping import Sweep
from arbiter.profiles.watching import ReaderWatch

if TYPE_CHECKING:
    from collections.abc import Collection

    from arbiter.profiles.current import Current
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.values import Limits
    from arbiter.profiles.writer import Writer

_PIECE = 64
_PAUSE = 0.02
_ROUND = 5.0
_log = logging.getLogger(__name__)


class Upkeep:
    """Runs until closed. `rebuilding` is what remains of rewriting records for another feature set, None for nothing.

    `noticed` counts reads of records that were out of date.
    """

    def __init__(self, current: Current, writer: Writer, limits: Limits, *, background: bool) -> None:
        self.rebuilding: Rebuilding | None = None
        self._wanted = ""  # the id of the set that records are rewritten for
        self._told = False
        self.sweep = Sweep(current, writer, limits)
        self.noticed = 0
        self.readers = ReaderWatch(current.path)
        self._current = current
        self._writer = writer
        self._limits = limits
        self._stale: deque[bytes] = deque(maxlen=4096)
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arbiter-upkeep", daemon=True)
        if background:
            self._thread.start()

    def rebuild(self, features: FeatureSet, before: Collection[str]) -> None:
        """Begin to rewrite records for these features. `before` are the keys of those that were counted already.

        What remains is known after the first step, within a moment.
        """
        self._wanted = features.id
        self._told = False
        self.rebuilding = Rebuilding(features.names(without=before), 1)
        self._wake.set()

    def notice(self, key: bytes) -> None:
        """Remember a subject whose hot record is out of date."""
        self.noticed += 1
        self._stale.append(key)
        self._wake.set()

    def step(self, limit: int) -> int:
        """Rewrite at most `limit` records; about how many remain. Raises StoreError."""
        feature_set, remaining = self._writer.submit(Rebuild(limit)).result()
        if feature_set == self._wanted:
            self._tell(remaining)
            self.rebuilding = remaining
        return 0 if remaining is None else int(remaining.left)

    def _tell(self, remaining: Rebuilding | None) -> None:
        """Log once that profiles are rewritten, and once that they are."""
        if remaining is not None and not self._told:
            named = ", ".join(remaining.features) or "none is new"
            _log.info("features changed (%s): about %d profiles are rewritten", named, remaining.left)
            self._told = True
        elif remaining is None and self._told:
            _log.info("all profiles are rewritten for the changed features")
            self._told = False

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
                handle = self._current.latest().handle
                handle.reader_check()
                self.readers.look(handle.readers(), time.monotonic())
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
            more = shed(self._current, self._writer, self._limits) or more


def figures_of(
    environment: Environment, txn: lmdb.Transaction[bytes], quota: int, reads: int, writer: Writer, upkeep: Upkeep
) -> Figures:
    """What a process that has read so many profiles did with its store, and how full that is."""
    return Figures(
        reads=reads,
        computed=upkeep.noticed,
        written=writer.written,
        waiting=writer.waiting,
        used_bytes=environment.used_bytes(txn),
        quota_bytes=quota_of(environment, txn, quota),
        rebuilding=upkeep.rebuilding,
        file_bytes=(environment.handle.info()["last_pgno"] + 1) * environment.page_bytes,
        oldest_read_s=upkeep.readers.oldest_s,
        collected=upkeep.sweep.collected,
        previous_ids=txn.stat(environment.previous)["entries"],
    )
