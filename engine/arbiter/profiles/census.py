"""Everybody in a store, one after the other, in the order of their keys.

Law: reads inside a `Reading` that others begin and end, a bounded number of records at a time, so that no state of the
store is held for long; writes nothing. Keys are hashes, so who comes next says nothing of what is stored of it: those
between any two places are a fair sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.profiles.aliases import ALIAS_BYTES
from arbiter.profiles.keys import Turning
from arbiter.profiles.naming import name_of
from arbiter.profiles.reading import ACCOUNT
from arbiter.profiles.records import decode_hot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from arbiter.profiles.reading import Reading
    from arbiter.profiles.records import Profile

_NAMED: Final = ACCOUNT.encode()  # stands in each record that names an account, as in some others
_SLICE: Final = 10_000  # records that are looked at for the name of an account: some milliseconds


class Subject(msgspec.Struct, frozen=True):
    """A subject that was met: its `key`, its `id` where the store keeps that, else empty, and its profile."""

    key: bytes
    id: str
    profile: Profile


def entries(reading: Reading) -> int:
    """How many records there are: of subjects and accounts, and the ids that were linked to others."""
    found: int = reading.txn.stat(reading.environment.profile)["entries"]
    return found


def some(
    reading: Reading, place: bytes, now: int, limit: int, accounts: Collection[bytes], *, members: bool
) -> tuple[list[Subject], int, bytes | None]:
    """The subjects among the next `limit` records from `place` on, as of `now` (µs); how many records these were, and
    where to go on, None at the end.

    Ids that were linked to others are none of their own, nor are the `accounts` with these keys. With `members` each
    profile is read beside its account.
    """
    found: list[Subject] = []
    named = reading.txn.stat(reading.environment.name)["entries"] > 0
    looked = 0
    for key, raw in _records(reading, place):
        if looked == limit:
            return found, looked, key
        looked += 1
        if len(raw) == ALIAS_BYTES or key in accounts:
            continue
        subject_id = name_of(reading.environment, reading.txn, reading.keys, key) if named else ""
        profile = reading.opened(key, raw, now)
        found.append(Subject(key, subject_id, reading.beside(profile, now) if members else profile))
    return found, looked, None


def named_accounts(reading: Reading, place: bytes, into: set[bytes]) -> bytes | None:
    """Add the keys of the accounts that the next some thousand records name; where to go on, None at the end."""
    for number, (key, raw) in enumerate(_records(reading, place)):
        if number == _SLICE:
            return key
        if _NAMED in raw and len(raw) != ALIAS_BYTES:
            account = decode_hot(raw).attributes.get(ACCOUNT)
            if account.__class__ is str:
                of = reading.keys.account(account)
                into.update((bytes(of), *(of.olds if isinstance(of, Turning) else ())))
    return None


def _records(reading: Reading, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    with reading.txn.cursor(reading.environment.profile) as cursor:
        if cursor.set_range(place) if place else cursor.first():
            yield from cursor
