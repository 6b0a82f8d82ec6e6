"""Who makes models that are needed together run as one graph, beside the calls that go on.

Law: a set of models is merged when a decision first needs just these, never while it waits: until then, and where they
cannot be merged, they run one by one and answer the same. A snapshot has a bounded number of sets. What was merged for
one snapshot is merged for the next before that decides.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from arbiter.models.failure import ModelFailure

if TYPE_CHECKING:
    from arbiter.snapshot import Snapshot

_log = logging.getLogger("arbiter.models")
MOST_SETS = 32  # of one snapshot; each costs a session, some hundred kB


class Merger:
    """Merges what is asked for, on a thread that ends when there is nothing left to do."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Snapshot, tuple[str, ...]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, snapshot: Snapshot, names: tuple[str, ...]) -> None:
        """Have these models of the snapshot merged soon, if it has not too many sets. Called once for each set."""
        if len(snapshot.merged) >= MOST_SETS:
            return
        snapshot.merged[names] = ()
        with self._lock:
            self._asked.put((snapshot, names))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="arbiter-merger", daemon=True)
                self._thread.start()

    def prepare(self, snapshot: Snapshot, before: Snapshot) -> None:
        """Merge in `snapshot` what is merged in the one before it."""
        if snapshot is before:
            return
        for names in list(before.merged):
            if all(name in snapshot.models for name in names):
                merge(snapshot, names, before)

    def wait(self) -> None:
        """Wait until all that was asked for is merged."""
        while (thread := self._thread) is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._asked.empty():
                    self._thread = None
                    return
                snapshot, names = self._asked.get()
            merge(snapshot, names)


def merge(snapshot: Snapshot, names: tuple[str, ...], before: Snapshot | None = None) -> None:
    """Have these models of the snapshot run as one from now on; one by one, where that cannot be."""
    try:
        snapshot.merge(names, before)
    except ModelFailure as error:
        snapshot.merged[names] = ()
        _log.warning("%s; they run one by one", error)
    except Exception:  # noqa: BLE001 - a fault of ours: whoever merges goes on, and so does who decides
        snapshot.merged[names] = ()
        _log.exception("models %s cannot be merged, and run one by one", ", ".join(names))
