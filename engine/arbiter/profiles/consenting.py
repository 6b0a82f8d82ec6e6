"""What a subject says of a purpose, as it is recorded inside the transaction that it shares with others.

Law: the newest time decides, in whatever order the entries arrive; of one time whatever says no. The history of a
purpose is bounded, and its newest entry never goes. What is recorded twice is there once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles import records
from arbiter.profiles.values import check_id, check_name, check_time
from arbiter.types import ConsentEntry, ConsentState

if TYPE_CHECKING:
    from collections.abc import Iterable

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.group import Group

AHEAD = 60_000_000  # µs by which a time may lie ahead of our clock, since no two clocks are the same
decode_entries = msgspec.msgpack.Decoder(tuple[ConsentEntry, ...]).decode


class ConsentChange(msgspec.Struct, frozen=True):
    """What a subject says of a purpose, and through which `source`: a form, a call centre.

    `at` is when (µs); without it, now and after all that is recorded. `by` is the name of the caller, if it is known.
    """

    subject_id: str
    purpose: str
    state: ConsentState
    source: str
    at: int | None = None
    by: str = ""


class ConsentRecorded(msgspec.Struct, frozen=True):
    """What holds now of the purpose, and whether the change was recorded: it is not when it was recorded before, nor
    when it is older than the whole of a full history.
    """

    current: ConsentEntry
    recorded: bool


def check_change(change: ConsentChange) -> None:
    """Raise InvalidField for what is wrong whatever is stored."""
    check_id(change.subject_id, "subject_id")
    check_name(change.purpose, "purpose")
    check_id(change.source, "source")
    if change.at is not None:
        check_time(change.at, "at")


def consents_in(
    txn: lmdb.Transaction[bytes], environment: Environment, key: bytes
) -> dict[str, tuple[ConsentEntry, ...]]:
    """What is recorded of the subject with this key, by purpose, each the newest first."""
    found: dict[str, tuple[ConsentEntry, ...]] = {}
    with txn.cursor(environment.consent) as cursor:
        if cursor.set_range(key):
            for place, raw in cursor.iternext():
                if place[:16] != key:
                    break
                found[place[16:].decode()] = decode_entries(raw)
    return found


def in_order(entries: Iterable[ConsentEntry]) -> tuple[ConsentEntry, ...]:
    """Entries of one purpose, the one that counts first."""
    return tuple(sorted(entries, key=_said, reverse=True))


def granted_of(consents: dict[str, tuple[ConsentEntry, ...]]) -> tuple[str, ...]:
    """The purposes whose newest entry is a grant, sorted: what the hot record holds."""
    return tuple(sorted(name for name, entries in consents.items() if entries[0].state is ConsentState.GRANTED))


def link_consents(group: Group, anonymous: bytes, known: bytes, by: str) -> tuple[str, ...]:
    """Give what an anonymous id said of purposes to the known one; what that one has granted then.

    Where both said something, a no of either holds, unless the known one granted later than the anonymous one said no.
    """
    environment, txn = group.environment, group.txn
    ours, theirs = consents_in(txn, environment, known), consents_in(txn, environment, anonymous)
    for purpose, said in theirs.items():
        name = purpose.encode()
        txn.delete(anonymous + name, db=environment.consent)
        entries = set(said)
        if purpose in ours:
            entries |= set(ours[purpose])
            newest = in_order(entries)[0]
            # A grant of the anonymous one, later than a no of the known one: it may be somebody else's.
            if newest.state is ConsentState.GRANTED and ours[purpose][0].state is not ConsentState.GRANTED:
                at = max(group.now, newest.at + 1)
                entries.add(ConsentEntry(at, ours[purpose][0].state, "link", group.now, by))
        kept = in_order(entries)[: group.limits.consent_history]
        txn.put(known + name, records.encode(kept), db=environment.consent)
    return granted_of(consents_in(txn, environment, known))


class RecordConsent:
    """A change that `check_change` has passed. Answered with `ConsentRecorded`."""

    weight = 1

    def __init__(self, key: bytes, change: ConsentChange) -> None:
        self._key = key
        self._change = change

    def apply(self, group: Group) -> ConsentRecorded:
        """Record it, and bring what the subject has granted up to date."""
        change, now = self._change, group.now
        key = group.resolve(self._key)
        place = key + change.purpose.encode()
        raw = group.txn.get(place, None, group.environment.consent)
        known = () if raw is None else decode_entries(raw)
        entry = self._entry(known[0] if known else None, now)
        if entry is None or any(_said(entry) == _said(each) for each in known):
            return ConsentRecorded(known[0], recorded=False)
        if not known:
            self._check_room(group, key)
        if change.state is ConsentState.GRANTED:
            group.check_quota()  # who says no is heard even by a full store
        kept = in_order((*known, entry))[: group.limits.consent_history]
        if entry not in kept:
            return ConsentRecorded(kept[0], recorded=False)
        group.txn.put(place, records.encode(kept), db=group.environment.consent)
        opened = group.open(key)
        granted = granted_of(consents_in(group.txn, group.environment, key))
        opened.profile = msgspec.structs.replace(opened.profile, granted=granted, touched=now)
        opened.changed = True
        return ConsentRecorded(kept[0], recorded=True)

    def _entry(self, newest: ConsentEntry | None, now: int) -> ConsentEntry | None:
        """What is to be recorded; None when, of a change without a time, it is what holds already."""
        change, at = self._change, self._change.at
        if at is None:
            if newest is not None and (newest.state, newest.source) == (change.state, change.source):
                return None
            at = now if newest is None else max(now, newest.at + 1)
        elif at > now + AHEAD:
            raise InvalidField(
                f"at lies {(at - now) / 1e6:,.0f} s ahead of the server's clock, and until then nothing that is said "
                "later would count: send the time at which it was said, or none for now",
                field="at",
            )
        return ConsentEntry(at, change.state, change.source, now, change.by)

    @staticmethod
    def _check_room(group: Group, key: bytes) -> None:
        allowed = group.limits.consent_purposes
        if len(consents_in(group.txn, group.environment, key)) >= allowed:
            raise LimitExceeded(
                f"`consent_purposes` allows {allowed} purposes a subject, and so many are recorded: use one of them",
                field="purpose",
                reason="consent_purposes",
            )


def _said(entry: ConsentEntry) -> tuple[int, bool, str, str]:
    """What makes an entry, and sorts entries of a purpose: of one time a grant comes first, so that a no counts."""
    return entry.at, entry.state is not ConsentState.GRANTED, entry.state, entry.source
