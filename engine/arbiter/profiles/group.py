"""One write transaction, and what its operations share: open subjects, the log's position, the clock, the quota.

Law: a subject's record is decoded and written once per transaction, however many operations touch it. An operation is
checked in full before it puts anything, so that a refused one leaves its neighbours unharmed. What an operation does is
its own matter; no threads, no commits, no clock but the group's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from arbiter.errors import LimitExceeded
from arbiter.profiles import history, records, tombstones
from arbiter.profiles.aliases import standing_for
from arbiter.profiles.arrivals import note_arrival
from arbiter.profiles.holdings import last_position
from arbiter.profiles.keys import Turning
from arbiter.profiles.quota import quota_of
from arbiter.profiles.records import Cold
from arbiter.profiles.rekeying import turn
from arbiter.profiles.subjects import Subject, is_right, unknown

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.declared import Declarations
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.tombstones import Tombstone
    from arbiter.profiles.values import Limits
    from arbiter.profiles.windows import State
    from arbiter.types import Event

_FORGOTTEN_AT_ONCE = 64
BUILT = b"built"


class Operation(Protocol):
    """Something to write. `weight` bounds how many share a transaction."""

    weight: int

    def apply(self, group: Group) -> Any:
        """Write it; the result is for the caller, after the commit. Raises CallerError before it put anything."""


class _Open:
    """A subject that the group works on."""

    __slots__ = ("changed", "cold", "expired", "profile", "subject")

    def __init__(self, subject: Subject, features: FeatureSet, now: int) -> None:
        self.subject = subject
        stored = subject.read_hot()
        self.cold: Cold | None = None
        self.changed = False
        if stored is None:
            self.profile = msgspec.structs.replace(unknown(features), feature_set=features.id)
            self.cold = Cold(features.fresh())
        else:
            # What expired is gone for what operations start from; it leaves the disk when the record is written.
            self.profile = stored.live(now)
        self.expired = stored is not None and self.profile is not stored


class Group:
    """One write transaction with all that its operations share. `now` (µs) is the clock of all of them."""

    def __init__(
        self,
        environment: Environment,
        txn: lmdb.Transaction[bytes],
        *,
        features: FeatureSet,
        declared: Declarations,
        limits: Limits,
        quota: int,
        now: int,
    ) -> None:
        self.environment = environment
        self.txn = txn
        self.features = features
        self.declared = declared
        self.limits = limits
        self.now = now
        self.wrote = False
        self._quota = quota_of(environment, txn, quota)
        self._full = environment.used_bytes(txn) >= self._quota
        self._position = -1
        self._arrived = False  # whether the arrival of this commit is noted
        self._tombstones: bool | None = None  # whether there are any; None: nobody has looked
        self._resolved: dict[bytes, bytes] = {}
        self._open: dict[bytes, _Open] = {}

    def check_quota(self) -> None:
        """Raise LimitExceeded when the store holds as much as it may."""
        if self._full:
            raise LimitExceeded(
                f"the store holds its quota of {self._quota} bytes: raise it by `arbiter store quota`, or delete "
                "subjects; reads go on",
                reason="store_quota",
            )

    def resolve(self, key: bytes) -> bytes:
        """The key under which all of a subject lies, given that of any of its ids; an id that lies under an earlier
        key moves first.
        """
        found = self._resolved.get(key)
        if found is None:
            if isinstance(key, Turning):
                turn(self, key)
                key = bytes(key)
            found = self._resolved[key] = standing_for(self.environment, self.txn, key)
        return found

    def join(self, alias: bytes, key: bytes) -> None:
        """Know that `alias`, and all that it stood for, stands for `key` now."""
        self._resolved |= {each: key for each, to in self._resolved.items() if to == alias}

    def part(self, key: bytes) -> None:
        """Know that nothing stands for `key` any more."""
        self._resolved = {each: to for each, to in self._resolved.items() if to != key}

    def open(self, key: bytes) -> _Open:
        """The subject with this key, or that it stands for."""
        key = self.resolve(key)
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = _Open(Subject(self.environment, self.txn, key), self.features, self.now)
        return opened

    def close(self, key: bytes) -> None:
        """Forget a subject of whom nothing is held any more: nothing of it is written."""
        self._open.pop(key, None)

    def erased_until(self, key: bytes) -> int:
        """The µs time up to which events of the subject with this key are dropped, since it was erased."""
        if self._tombstones is None:
            self._tombstones = self.txn.stat(self.environment.tombstone)["entries"] > 0
        stone = tombstones.find(self.environment, self.txn, key) if self._tombstones else None
        return records.NEVER if stone is None else stone.until

    def bury(self, key: bytes, stone: Tombstone) -> None:
        """Put up a tombstone, which holds for what follows in the group too."""
        tombstones.raise_to(self.environment, self.txn, key, stone)
        self._tombstones = self.wrote = True

    def let_go(self, key: bytes) -> None:
        """Write what the group made of a subject, and know nothing of it: its entries are free for others."""
        opened = self._open.pop(key, None)
        if opened is not None and opened.changed:
            self._write(opened)

    def open_states(self, key: bytes) -> tuple[_Open, dict[str, State]]:
        """The subject with the states of its features, as of the log before the next event is put there."""
        opened, cold = self.open(key), self.cold(key)
        opened.changed = True
        return opened, cold.states

    def cold(self, key: bytes) -> Cold:
        """The cold record of the subject with this key, complete for the features of the group."""
        opened = self.open(key)
        if opened.cold is None:
            opened.cold = opened.subject.cold(self.features, self.now)
        return opened.cold

    @property
    def position(self) -> int:
        """The last position of the log."""
        if self._position < 0:
            self._position = last_position(self.environment, self.txn)
        return self._position

    def log(self, key: bytes, event: Event, encoded: bytes) -> None:
        """Give an event the next position and put it in the log."""
        position = self._position = self.position + 1
        if not self._arrived:
            note_arrival(self.environment, self.txn, position, self.now)
            self._arrived = True
        place = records.place(key, event.at, position)
        self.txn.put(place[24:], encoded, append=True, db=self.environment.log)
        self.txn.put(place, event.type.encode(), db=self.environment.by_subject)
        self.txn.put(place[24:], key, append=True, db=self.environment.whose)

    def flush(self) -> None:
        """Write every subject that changed. `wrote` tells whether there is anything to commit."""
        changed = [opened for opened in self._open.values() if opened.changed]
        for opened in changed:
            self._write(opened)
        if not self.wrote:
            return
        meta = self.environment.meta
        if self.txn.get(BUILT, None, meta) not in {None, self.features.id.encode()}:
            self.txn.delete(BUILT, db=meta)  # records of another feature set stand among those of ours
        self._forget()

    def _write(self, opened: _Open) -> None:
        subject, profile = opened.subject, opened.profile
        if opened.cold is None and not is_right(profile, self.features, self.now):
            opened.cold = subject.cold(self.features, self.now)
        if opened.cold is not None:
            profile = subject.as_of(profile, self.features, self.now, opened.cold)
            self.features.compact(opened.cold.states, self.now)
            subject.write_cold(opened.cold)
        subject.write_hot(profile)
        if opened.expired:
            history.lapse(self.txn, self.environment.history, subject.key, self.now)
        self.wrote = True

    def _forget(self) -> None:
        """Drop a few of the idempotency keys whose time is over."""
        idem = self.environment.idem
        with self.txn.cursor(idem) as cursor:
            for _ in range(_FORGOTTEN_AT_ONCE):
                if not cursor.set_range(b"t"):
                    return
                term = cursor.key()
                until = int.from_bytes(term[1:9], "big")
                if until > self.now:
                    return
                cursor.delete()
                raw = self.txn.get(b"k" + term[9:], None, idem)
                if raw is not None and records.decode_answer(raw).until == until:
                    self.txn.delete(b"k" + term[9:], db=idem)
