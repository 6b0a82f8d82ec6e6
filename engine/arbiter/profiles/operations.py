"""What is written: each operation as it is applied inside the transaction that it shares with others.

Law: an operation is checked in full before it puts anything, so that a refused one leaves its neighbours unharmed; a
subject's record is decoded and written once per transaction, however many operations touch it. No threads, no commits,
no clock but the group's.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from arbiter.errors import KeyReused, LimitExceeded, VersionConflict
from arbiter.profiles import records
from arbiter.profiles.attributes import changed_attributes, same
from arbiter.profiles.records import Answer, Ingested, Profile, Update, pack_times
from arbiter.profiles.subjects import Subject, is_right, unknown
from arbiter.profiles.windows import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.values import Limits
    from arbiter.types import Event

REMEMBERED = 24 * 3600 * 1_000_000  # µs that an idempotency key is kept
_FORGOTTEN_AT_ONCE = 64
_BUILT = b"built"


class Operation(Protocol):
    """Something to write. `weight` bounds how many share a transaction."""

    weight: int

    def apply(self, group: Group) -> Any:
        """Write it; the result is for the caller, after the commit. Raises CallerError before it put anything."""


class _Open:
    """A subject that the group works on."""

    __slots__ = ("changed", "profile", "states", "subject")

    def __init__(self, subject: Subject, features: FeatureSet) -> None:
        self.subject = subject
        stored = subject.read_hot()
        self.profile = msgspec.structs.replace(unknown(features), feature_set=features.id) if stored is None else stored
        # Nothing is known, so nothing was left out: such states are right for every clock.
        self.states: dict[str, State] | None = {key: State() for key in features.by_key} if stored is None else None
        self.changed = False


class Group:
    """One write transaction with all that its operations share. `now` (µs) is the clock of all of them."""

    def __init__(
        self,
        environment: Environment,
        txn: lmdb.Transaction[bytes],
        *,
        features: FeatureSet,
        types: Mapping[str, str],
        limits: Limits,
        quota: int,
        now: int,
    ) -> None:
        self.environment = environment
        self.txn = txn
        self.features = features
        self.types = types
        self.limits = limits
        self.now = now
        self.wrote = False
        self._quota = quota
        self._full = environment.used_bytes(txn) >= quota
        self._position = -1
        self._open: dict[bytes, _Open] = {}

    def check_quota(self) -> None:
        """Raise LimitExceeded when the store holds as much as it may."""
        if self._full:
            raise LimitExceeded(
                f"the store holds its quota of {self._quota} bytes: raise the quota or delete subjects; reads go on",
                reason="store_quota",
            )

    def open(self, key: bytes) -> _Open:
        """The subject with this key."""
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = _Open(Subject(self.environment, self.txn, key), self.features)
        return opened

    def open_states(self, key: bytes) -> tuple[_Open, dict[str, State]]:
        """The subject with the states of its features, as of the log before the next event is put there."""
        opened = self.open(key)
        if opened.states is None:
            opened.states = opened.subject.states(self.features, self.now)
        opened.changed = True
        return opened, opened.states

    @property
    def position(self) -> int:
        """The last position of the log."""
        if self._position < 0:
            with self.txn.cursor(self.environment.log) as cursor:
                self._position = int.from_bytes(cursor.key(), "big") if cursor.last() else 0
        return self._position

    def log(self, key: bytes, event: Event, encoded: bytes) -> None:
        """Give an event the next position and put it in the log."""
        position = self._position = self.position + 1
        place = records.place(key, event.at, position)
        self.txn.put(place[24:], encoded, append=True, db=self.environment.log)
        self.txn.put(place, b"", db=self.environment.by_subject)

    def flush(self) -> None:
        """Write every subject that changed. `wrote` tells whether there is anything to commit."""
        changed = [opened for opened in self._open.values() if opened.changed]
        for opened in changed:
            subject, profile = opened.subject, opened.profile
            if opened.states is None and not is_right(profile, self.features, self.now):
                opened.states = subject.states(self.features, self.now)
            if opened.states is not None:
                profile = subject.as_of(profile, self.features, self.now, opened.states)
                self.features.compact(opened.states, self.now)
                subject.write_cold(opened.states)
            subject.write_hot(profile)
        if not changed:
            return
        self.wrote = True
        meta = self.environment.meta
        if self.txn.get(_BUILT, None, meta) not in {None, self.features.id.encode()}:
            self.txn.delete(_BUILT, db=meta)  # records of another feature set stand among those of ours
        self._forget()

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


class UpdateAttributes:
    """An update that `check_update` has passed. Answered with the new version."""

    weight = 1

    def __init__(self, key: bytes, update: Update) -> None:
        self._key = key
        self._update = update
        self._token = self._digest = b""
        if update.idempotency_key:
            self._token = blake2b(key + update.idempotency_key.encode(), digest_size=16).digest()
            body = msgspec.structs.replace(update, unset=tuple(sorted(update.unset)), idempotency_key="")
            self._digest = blake2b(records.encode_sorted(msgspec.structs.astuple(body)), digest_size=16).digest()

    def apply(self, group: Group) -> int:
        """Change the attributes, or answer as before for a repeated key."""
        if self._token:
            raw = group.txn.get(b"k" + self._token, None, group.environment.idem)
            answer = None if raw is None else records.decode_answer(raw)
            if answer is not None and answer.until > group.now:
                if answer.digest == self._digest:
                    return answer.version
                raise KeyReused(
                    f"the key `{self._update.idempotency_key}` was used for another update: use a new one",
                    field="idempotency_key",
                )
        group.check_quota()
        opened = group.open(self._key)
        profile = self._changed(opened.profile, group)
        opened.profile, opened.changed = profile, True
        if self._token:
            self._remember(group, profile.version)
        return profile.version

    def _changed(self, profile: Profile, group: Group) -> Profile:
        expected = self._update.expected_version
        if expected is not None and expected != profile.version:
            raise VersionConflict(
                f"the profile has version {profile.version}, not {expected}: read it again and retry",
                field="expected_version",
            )
        stored, times, limit = profile.attributes, profile.attribute_times(), group.limits.record_bytes
        attributes = changed_attributes(stored, self._update, group.types, group.limits)
        size = len(records.encode(attributes))
        if size > limit:
            raise LimitExceeded(
                f"the profile would have {size:,} bytes, and `record_bytes` allows {limit:,}: store less",
                reason="record_bytes",
            )
        for name, value in attributes.items():
            if name not in stored or not same(stored[name], value):
                times[name] = group.now
        tail = pack_times(attributes, times) + profile.feature_tail()
        return msgspec.structs.replace(profile, version=profile.version + 1, attributes=attributes, tail=tail)

    def _remember(self, group: Group, version: int) -> None:
        until, idem = group.now + REMEMBERED, group.environment.idem
        group.txn.put(b"k" + self._token, records.encode(Answer(until, self._digest, version)), db=idem)
        group.txn.put(b"t" + until.to_bytes(8, "big") + self._token, b"", db=idem)


class IngestEvents:
    """Checked events with their subject keys, `seen` keys and encodings. Answered with `Ingested`."""

    def __init__(self, entries: Sequence[tuple[bytes, bytes, Event, bytes]]) -> None:
        self._entries = entries
        self.weight = len(entries)

    def apply(self, group: Group) -> Ingested:
        """Log the new ones and count them in the features."""
        group.check_quota()
        accepted = 0
        for key, seen, event, encoded in self._entries:
            if not group.txn.put(seen, b"", overwrite=False, db=group.environment.seen):
                continue
            _, states = group.open_states(key)
            group.log(key, event, encoded)
            group.features.insert(states, event)
            accepted += 1
        return Ingested(accepted, len(self._entries) - accepted, group.position)


class Refresh:
    """Bring hot records up to the clock that reads found out of date."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self.weight = len(keys)

    def apply(self, group: Group) -> None:
        """Rewrite those that are still out of date."""
        for key in self._keys:
            if not is_right(group.open(key).profile, group.features, group.now):
                group.open_states(key)


class Rebuild:
    """Rewrite the next few records that were computed for another feature set. All processes share the position."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.weight = limit

    def apply(self, group: Group) -> tuple[str, int]:
        """The feature set's id, and about how many records remain to be looked at."""
        features, environment, txn = group.features, group.environment, group.txn
        meta, mark = environment.meta, features.id.encode()
        if txn.get(_BUILT, None, meta) == mark:
            return features.id, 0
        progress = b"rebuild:" + mark
        group.wrote = True
        with txn.cursor(environment.profile) as cursor:
            found = cursor.set_range(txn.get(progress, b"", meta))
            for _ in range(self._limit):
                if not found:
                    break
                if records.decode_profile(cursor.value()).feature_set != features.id:
                    group.open_states(cursor.key())
                found = cursor.next()
            if found:
                key = cursor.key()
                txn.put(progress, key, db=meta)
                # Keys are hashes, evenly spread: the place of one tells how many come after it.
                ahead = 1.0 - int.from_bytes(key, "big") / (1 << 128)
                return features.id, max(1, round(ahead * txn.stat(environment.profile)["entries"]))
        txn.delete(progress, db=meta)
        txn.put(_BUILT, mark, db=meta)
        return features.id, 0
