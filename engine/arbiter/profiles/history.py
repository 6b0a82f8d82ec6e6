"""The history of a subject's attributes: for each of the newest versions who made it, when, and what it changed.

Law: written in the transaction of the update that it tells of; keyed by subject key and version, so that all of a
subject's lies together. What it holds is as personal as the attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.profiles.attributes import same
from arbiter.profiles.records import LAST
from arbiter.types import from_micros

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.group import Group
    from arbiter.profiles.records import Profile


class Change(msgspec.Struct, array_like=True, frozen=True):
    """What became of one attribute, or of being in a managed segment, ``segments.NAME``: None is absent. `expires` and
    `before_expires` are the µs times at which the two values go, None for never; a value whose time is over is None
    too.
    """

    before: Any
    after: Any
    expires: int | None = None
    before_expires: int | None = None

    def live(self, now: int) -> Change:
        """The change without values whose time is over at `now` (µs)."""
        before = None if self.before_expires is not None and self.before_expires <= now else self.before
        after = None if self.expires is not None and self.expires <= now else self.after
        if before is self.before and after is self.after:
            return self
        return Change(before, after, self.expires, self.before_expires)


class Version(msgspec.Struct, frozen=True):
    """One version of a profile: made at `at` (µs) by `by`, empty where nobody asks who calls; `changes` by name."""

    version: int
    at: int
    by: str
    changes: dict[str, Change]


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    at: int
    by: str
    changes: dict[str, Change]

    def live(self, now: int) -> dict[str, Change]:
        return {name: change.live(now) for name, change in self.changes.items()}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


def record(group: Group, key: bytes, before: Profile, after: Profile, by: str) -> None:
    """Tell what an update made of `before`, and forget the version that is one too many."""
    kept = group.limits.versions
    database = group.environment.history
    if kept:
        entry = _Entry(group.now, by, _changes(before, after))
        group.txn.put(_place(key, after.version), _encode(entry), db=database)
    first = after.version - kept + 1
    if first > 1:
        _forget(group.txn, database, key, first)


def lapse(txn: lmdb.Transaction[bytes], database: lmdb._Database, key: bytes, now: int) -> None:
    """Take out of a subject's history the values whose time is over at `now` (µs)."""
    with txn.cursor(database) as cursor:
        there = cursor.set_range(key)
        while there and cursor.key()[:16] == key:
            entry = _decode(cursor.value())
            left = entry.live(now)
            if any(left[name] is not change for name, change in entry.changes.items()):
                cursor.put(cursor.key(), _encode(_Entry(entry.at, entry.by, left)))
            there = cursor.next()


def versions(txn: lmdb.Transaction[bytes], database: lmdb._Database, key: bytes, limit: int, now: int) -> list[Version]:
    """At most `limit` of a subject's versions that are kept, newest first, as of `now` (µs)."""
    found: list[Version] = []
    with txn.cursor(database) as cursor:
        there = cursor.prev() if cursor.set_range(_place(key, LAST)) else cursor.last()
        while there and len(found) < limit and cursor.key()[:16] == key:
            entry = _decode(cursor.value())
            version = int.from_bytes(cursor.key()[16:], "big")
            found.append(Version(version, entry.at, entry.by, entry.live(now)))
            there = cursor.prev()
    return found


def live(value: bytes, now: int) -> bytes:
    """An entry without values whose time is over at `now` (µs)."""
    entry = _decode(value)
    return _encode(_Entry(entry.at, entry.by, entry.live(now)))


def shown(rest: bytes, value: bytes) -> dict[str, Any]:
    """An entry as plain values, for whoever asks what is held of them; what is absent is left out."""
    entry = _decode(value)
    return {
        "version": int.from_bytes(rest, "big"),
        "at": from_micros(entry.at),
        "by": entry.by,
        "changes": {name: _change_shown(change) for name, change in entry.changes.items()},
    }


def _change_shown(change: Change) -> dict[str, Any]:
    expires = None if change.expires is None else from_micros(change.expires)
    told = {"before": change.before, "after": change.after, "expires": expires}
    return {name: value for name, value in told.items() if value is not None}


def _changes(before: Profile, after: Profile) -> dict[str, Change]:
    old, new = before.attributes, after.attributes
    changes = {}
    for name in {**old, **new}:
        change = Change(old.get(name), new.get(name), after.expires.get(name), before.expires.get(name))
        # None stands for absent: it is no value of the engine.
        if change.expires != change.before_expires or not same(change.before, change.after):
            changes[name] = change
    for name in set(before.managed) ^ set(after.managed):
        was = name in before.managed
        changes[f"segments.{name}"] = Change(was or None, None if was else True)
    return changes


def _forget(txn: lmdb.Transaction[bytes], database: lmdb._Database, key: bytes, first: int) -> None:
    """Drop what is older than the version `first`: one, but where fewer are kept than before."""
    with txn.cursor(database) as cursor:
        there = cursor.set_range(key)
        while there and key <= cursor.key() < _place(key, first):
            there = cursor.delete()


def _place(key: bytes, version: int) -> bytes:
    return key + version.to_bytes(8, "big")
