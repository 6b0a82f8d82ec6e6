"""The link of an anonymous id to a known one, as it is applied inside the transaction that it shares with others.

Law: all of it or nothing, in one transaction: attributes merge, logs interleave, an event that both have counts once,
and from then on the anonymous id is an alias. What was linked stays linked; doing it again does nothing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import AlreadyLinked, InvalidField, LimitExceeded
from arbiter.profiles import history, records
from arbiter.profiles.aliases import ALIAS_BYTES, add_alias, aliases_of
from arbiter.profiles.consenting import link_consents
from arbiter.profiles.holdings import HOLDINGS, own, unlog
from arbiter.profiles.merging import merged
from arbiter.profiles.naming import keep_name
from arbiter.profiles.records import Cold, Linked
from arbiter.profiles.subjects import Subject
from arbiter.profiles.values import check_id
from arbiter.profiles.windows import MOST

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.group import Group

# What linking merges itself; all else that is held of the anonymous one is moved as it is.
_MERGED: Final = frozenset({"profile", "window", "by_subject", "seen", "history", "consent", "name"})
# And what the known one has none of afterwards: versions of another profile, and the other id.
_DROPPED: Final = frozenset({"history", "name"})
_Entries = list[tuple[bytes, bytes]]


def check_link(anonymous_id: str, known_id: str) -> None:
    """Raise InvalidField for what is wrong whatever is stored."""
    check_id(anonymous_id, "anonymous_id")
    check_id(known_id, "known_id")
    if anonymous_id == known_id:
        raise InvalidField("anonymous_id and known_id are the same id: name two", field="anonymous_id")


class LinkIdentity:
    """Makes an anonymous id an alias of a known one. Answered with `Linked`."""

    weight = 256  # about what a long log weighs

    def __init__(self, anonymous: bytes, known: bytes, by: str = "", sealed: bytes = b"") -> None:
        """`sealed` is the known id, if ids are kept."""
        self._anonymous = anonymous
        self._known = known
        self._by = by
        self._sealed = sealed

    def apply(self, group: Group) -> Linked:
        """Merge the two, unless they are one already."""
        group.resolve(self._anonymous)  # if an id moves to another key, what stands for it does from then on
        known, anonymous = group.resolve(self._known), group.resolve(self._anonymous)
        if anonymous == known:
            return Linked(group.open(known).profile.version)
        if anonymous != self._anonymous:
            raise AlreadyLinked(
                "anonymous_id is linked to somebody else already, and a link is for good: give whoever uses it now an "
                "id of their own, or link that known id if the two are one person",
                field="anonymous_id",
            )
        group.check_quota()
        group.let_go(anonymous)
        group.let_go(known)
        places = _entries(group, group.environment.by_subject, anonymous)
        _check_room(group, anonymous, known, len(places))
        before = group.open(known).profile
        profile = merged(before, group.open(anonymous).profile, group.declared.profile, group.limits)
        counting = _Counting(group, anonymous, known, len(places))
        group.let_go(anonymous)
        doubles = _move_log(group, anonymous, known, places)
        for holding in HOLDINGS:
            if holding.database not in _MERGED:
                holding.move(group.environment, group.txn, anonymous, known)
            elif holding.database in _DROPPED:  # what came of the versions the link tells
                holding.erase(group.environment, group.txn, anonymous)
        granted = link_consents(group, anonymous, known, self._by)
        profile = msgspec.structs.replace(profile, granted=granted)
        group.txn.delete(anonymous, db=group.environment.window)
        add_alias(group.environment, group.txn, known, anonymous, group.now)
        group.join(anonymous, known)
        if self._sealed and known == self._known:
            keep_name(group.environment, group.txn, known, self._sealed)
        opened = group.open(known)
        opened.profile, opened.cold, opened.changed = profile, counting.cold(opened.subject, doubles), True
        if profile.version != before.version:
            history.record(group, known, before, profile, self._by)
        return Linked(profile.version, True, len(places) - len(doubles), len(doubles))


class _Counting:
    """The features of two logs that become one: the states of the longer, in which the shorter's events are counted.

    What cannot be told from these is counted anew: events at one time, of which `first` and `last` must know the order,
    those that the longer one counts and that are dropped, and those that have left the shorter one's log.
    """

    def __init__(self, group: Group, anonymous: bytes, known: bytes, events: int) -> None:
        self._group = group
        ours = Subject(group.environment, group.txn, known)
        theirs = Subject(group.environment, group.txn, anonymous)
        self._is_ours = sum(1 for _ in islice(ours.places(), events)) == events
        longer, shorter = (known, anonymous) if self._is_ours else (anonymous, known)
        self._longer, self._shorter = group.cold(longer), group.cold(shorter)
        self._ours, self._theirs = group.cold(known), group.cold(anonymous)
        self._added = [(place[24:], event) for place, event in (theirs if self._is_ours else ours).placed_events()]
        counted = ours if self._is_ours else theirs
        self._in_turn = not any(counted.has_event_at(event.at) for _, event in self._added)

    def cold(self, subject: Subject, doubles: set[bytes]) -> Cold:
        """The cold record of the subject that has both logs, without the events at the positions `doubles`."""
        features, now, ours, theirs = self._group.features, self._group.now, self._ours, self._theirs
        gone = features.joined(ours.gone, theirs.gone)
        forgotten = max(ours.forgotten, theirs.forgotten)
        if not self._in_turn or self._shorter.gone or (doubles and not self._is_ours):
            return Cold(features.complete({}, now, subject.events, gone), gone, forgotten)
        states = self._longer.states
        for count, (position, event) in enumerate(self._added, 1):
            if position not in doubles:
                features.insert(states, event)
            if count % MOST == 0:
                features.compact(states, now)
        return Cold(states, gone, forgotten)


def _check_room(group: Group, anonymous: bytes, known: bytes, events: int) -> None:
    allowed = group.limits.link_events
    if events > allowed:
        raise LimitExceeded(
            f"the anonymous one has {events:,} events, and `link_events` allows {allowed:,}, since they move in one "
            "piece and all other writes wait for it",
            field="anonymous_id",
            reason="link_events",
        )
    ids = 1 + sum(len(aliases_of(group.environment, group.txn, key)) for key in (anonymous, known))
    if ids > group.limits.aliases:
        raise LimitExceeded(
            f"one subject would have {ids:,} ids beside its own, and `aliases` allows {group.limits.aliases:,}",
            field="anonymous_id",
            reason="aliases",
        )


def _move_log(group: Group, anonymous: bytes, known: bytes, places: _Entries) -> set[bytes]:
    """Give the anonymous one's events to the known one, but for those whose ids it has; the positions of these."""
    environment, txn = group.environment, group.txn
    doubles, dropped = set(), set()
    for rest, value in _entries(group, environment.seen, anonymous):
        if not txn.put(known + rest, value, overwrite=False, db=environment.seen):
            doubles.add(rest)
        txn.delete(anonymous + rest, db=environment.seen)
    for rest, value in places:
        position = rest[8:]
        if doubles and _id_of(txn.get(position, b"", environment.log)) in doubles:
            unlog(environment, txn, anonymous + rest)
            dropped.add(position)
        else:
            txn.put(known + rest, value, db=environment.by_subject)
            own(environment, txn, position, known)
            txn.delete(anonymous + rest, db=environment.by_subject)
    return dropped


def _entries(group: Group, database: lmdb._Database, key: bytes) -> _Entries:
    """What follows the subject's key in each key of a database, and the value."""
    found: _Entries = []
    with group.txn.cursor(database) as cursor:
        there = cursor.set_range(key)
        while there and cursor.key().startswith(key):
            found.append((cursor.key()[ALIAS_BYTES:], cursor.value()))
            there = cursor.next()
    return found


def _id_of(event: bytes) -> bytes:
    return records.seen_key(b"", records.decode_event(event).id)
