"""A subject's log, page by page.

Law: reads within a transaction that others begin and end; a page looks at a bounded number of events, so that a rare
type costs many short reads and never a long one.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.profiles import records
from arbiter.profiles.holdings import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.types import Event

LOOKED_AT: Final = 10_000  # events of a page, whether they are listed or not


class Listing(msgspec.Struct, frozen=True):
    """Which events: start <= at < end (µs, None open), of these types (none: all), by time, then position.

    `after` is where the page before ended: time (µs) and position of the last event that it looked at.
    """

    start: int | None = None
    end: int | None = None
    types: frozenset[str] = frozenset()
    newest_first: bool = False
    limit: int = 100
    after: tuple[int, int] | None = None


class EventPage(msgspec.Struct, frozen=True):
    """Events, and where the next page begins, None at the end. A page may be short, even empty, and not the last."""

    events: list[Event]
    after: tuple[int, int] | None


def page(environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, listing: Listing) -> EventPage:
    """The next page of the log of the subject with this key."""
    found: list[Event] = []
    after: tuple[int, int] | None = None
    places = _places(environment, txn, key, listing)
    for place, type_ in islice(places, LOOKED_AT):
        _, *rest = records.displace(place)
        after = (rest[0], rest[1])
        if not _may_be(type_, listing.types):
            continue
        event = records.decode_event(txn.get(place[KEY_BYTES + 8 :], b"", environment.log))
        if not listing.types or event.type in listing.types:
            found.append(event)
            if len(found) == listing.limit:
                break
    return EventPage(found, None if next(places, None) is None else after)


def _may_be(type_: bytes, types: Collection[str]) -> bool:
    """Whether an event may be of one of the types; of one logged before types stood in the index, nobody knows yet."""
    return not types or not type_ or type_.decode() in types


def _places(
    environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, listing: Listing
) -> Iterator[tuple[bytes, bytes]]:
    """The places between the bounds, in the order that is wanted, each with its type."""
    low = records.place(key, records.NEVER if listing.start is None else listing.start, 0)
    high = records.place(key, records.LAST, records.LAST_POSITION)
    if listing.end is not None:
        high = records.place(key, max(records.NEVER, listing.end - 1), records.LAST_POSITION)
    with txn.cursor(environment.by_subject) as cursor:
        if listing.newest_first:
            begin = high if listing.after is None else min(high, records.place(key, *listing.after))
            there = cursor.set_range(begin)
            if not there or cursor.key() > begin or listing.after is not None:
                there = cursor.prev() if there else cursor.last()
            while there and low <= cursor.key():
                yield cursor.item()
                there = cursor.prev()
            return
        begin = low if listing.after is None else max(low, records.place(key, *listing.after))
        there = cursor.set_range(begin)
        if there and listing.after is not None and cursor.key() == records.place(key, *listing.after):
            there = cursor.next()
        while there and cursor.key() <= high:
            yield cursor.item()
            there = cursor.next()
