"""A round over all subjects that finds what is no longer to be kept, and has it collected.

Law: looks in short read transactions, a slice of subjects each; only what is found there goes to the writer. Rounds
begin an hour after the last one ended, whichever process went it; one that ends half-way is gone on with.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from arbiter.profiles.collecting import LEASE, Collect, Hold, decode_lease
from arbiter.profiles.figures import Collected
from arbiter.profiles.group import BUILT
from arbiter.profiles.retention import Retention, bounded

if TYPE_CHECKING:
    from arbiter.profiles.collecting import Piece
    from arbiter.profiles.current import Current
    from arbiter.profiles.values import Limits
    from arbiter.profiles.writer import Writer

ROUND: Final = 3600 * 1_000_000  # µs
_SLICE = 256
_RENEWED_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class Sweep:
    """This process's part in the rounds. `collected` counts what it took since it began."""

    def __init__(self, current: Current, writer: Writer, limits: Limits) -> None:
        self.collected = Collected()
        self._current = current
        self._writer = writer
        self._limits = limits
        self._owner = os.urandom(8)
        self._place: bytes | None = None  # where the round under way is, if it is ours
        self._renewed = 0.0
        self._round = Collected()

    def step(self) -> bool:
        """Go through the next slice of a round that is due; whether it goes on. Raises StoreError, LimitExceeded."""
        if self._place is None and not self._begin():
            return False
        keys, following = self._look(self._place or b"")
        while keys:
            done: Piece = self._writer.submit(Collect(keys)).result()
            self._round.add(done)
            self.collected.add(done)
            if not done.more:
                break
        if following is None:
            self._hold(b"", self._writer.clock() + ROUND)
            self._end()
            return False
        self._place = following
        if time.monotonic() - self._renewed >= _RENEWED_EVERY_S and not self._hold(following):
            self._end()  # another process goes on with it
        return self._place is not None

    def _begin(self) -> bool:
        """Whether a round is due, and ours to go."""
        if not bounded(self._limits):
            return False
        environment = self._current.latest()
        with environment.handle.begin(environment.meta) as txn:
            raw, built = txn.get(LEASE), txn.get(BUILT)
        if built != self._writer.settings.features.id.encode():
            return False  # records are being rewritten, of which features are computed
        if raw is not None and decode_lease(raw).due > self._writer.clock():
            return False
        return self._hold()

    def _hold(self, place: bytes | None = None, due: int | None = None) -> bool:
        lease = self._writer.submit(Hold(self._owner, place, due)).result()
        self._renewed = time.monotonic()
        if lease is not None and self._place is None:
            self._place = lease.place
        return lease is not None

    def _look(self, place: bytes) -> tuple[list[bytes], bytes | None]:
        """Those of the next subjects of whom something is to go, and the subject to go on with, None at the end."""
        keys: list[bytes] = []
        environment = self._current.latest()
        with environment.handle.begin(environment.profile) as txn, txn.cursor() as cursor:
            retention = Retention(environment, txn, self._writer.settings.features, self._limits, self._writer.clock())
            found = cursor.set_range(place) if place else cursor.first()
            for _ in range(_SLICE):
                if not found:
                    return keys, None
                key, raw = cursor.item()
                if retention.concerns(key, raw):
                    keys.append(key)
                found = cursor.next()
            return keys, cursor.key() if found else None

    def _end(self) -> None:
        done, self._round, self._place = self._round, Collected(), None
        if done.events or done.ids or done.subjects:
            _log.info(
                "collected %d events, %d ids of events and %d inactive subjects of the store in %s",
                done.events, done.ids, done.subjects, self._current.path,
            )  # fmt: skip
