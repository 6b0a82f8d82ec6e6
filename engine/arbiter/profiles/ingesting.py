"""A batch of events, as it is applied inside the transaction that it shares with others.

Law: an event is logged once and counted once, in the same transaction. One that was seen is dropped whatever its time,
and so is one of a subject that was erased since; another must be dated within the bounds, and no further back than ids
are remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField
from arbiter.profiles import records
from arbiter.profiles.naming import keep_name
from arbiter.profiles.records import Ingested
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group
    from arbiter.types import Event

    Entry = tuple[bytes, bytes, Event, bytes, bytes]


class IngestEvents:
    """Checked events with their subject keys, `seen` keys, encodings and sealed subject ids, which are empty where ids
    are not kept. Answered with `Ingested`.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.weight = len(entries)

    def apply(self, group: Group) -> Ingested:
        """Log the new ones and count them in the features."""
        group.check_quota()
        new, erased = self.new(group)
        for key, seen, event, encoded, sealed in new:
            group.txn.put(seen, records.moment(event.at), db=group.environment.seen)
            opened, states = group.open_states(key)
            group.log(key, event, encoded)
            group.features.insert(states, event)
            opened.profile.touched = group.now
            if sealed:
                keep_name(group.environment, group.txn, key, sealed)
        return Ingested(len(new), len(self._entries) - len(new) - erased, group.position, erased)

    def new(self, group: Group) -> tuple[list[Entry], int]:
        """Those that were not seen before, and how many others are of subjects that were erased since.

        Raises InvalidField for a new one that is dated out of bounds.
        """
        known, get, limits = group.environment.seen, group.txn.get, group.limits
        earliest = records.NEVER if limits.late is None else group.now - limits.late
        latest = records.LAST if limits.ahead is None else group.now + limits.ahead
        for entry in self._entries:  # if an id moves to another key, what stands for it does from then on
            group.resolve(entry[0])
        erased = 0
        found: dict[bytes, Entry] = {}
        for number, entry in enumerate(self._entries):
            sent, seen, event, encoded, _ = entry
            key = group.resolve(sent)
            if event.at <= max(group.erased_until(sent), group.erased_until(key)):
                erased += 1
                continue
            if key != sent:  # an alias: the event is of the subject that it stands for
                seen = records.seen_key(key, event.id)
                entry = key, seen, event, encoded, b""  # noqa: PLW2901 - as above
            if seen in found or get(seen, None, known) is not None:
                continue
            if not earliest <= event.at <= latest:
                raise _out_of_bounds(number, event.at, group.now, late=event.at < earliest)
            if event.at <= group.cold(key).forgotten:
                raise _forgotten(number, group.cold(key).forgotten)
            found[seen] = entry
        return list(found.values()), erased


def _out_of_bounds(number: int, at: int, now: int, *, late: bool) -> InvalidField:
    field, off = f"events[{number}].at", _span(abs(now - at))
    if late:
        message = f"{field} is {off} ago, earlier than `events.late_days` allows: leave the event out, or raise that"
        return InvalidField(message, field=field, reason="events.late_days")
    message = (
        f"{field} is {off} ahead of the server's clock, more than `events.ahead_seconds` allows: set the clock of "
        "whoever dates events right, or raise that"
    )
    return InvalidField(message, field=field, reason="events.ahead_seconds")


def _forgotten(number: int, until: int) -> InvalidField:
    field = f"events[{number}].at"
    return InvalidField(
        f"{field} is not after {from_micros(until).isoformat()}, and up to then the ids of this subject's events were "
        "forgotten, as `events.late_days` had it: it may have been counted before; leave the event out",
        field=field,
        reason="events.late_days",
    )


def _span(micros: int) -> str:
    seconds = micros / 1e6
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"
