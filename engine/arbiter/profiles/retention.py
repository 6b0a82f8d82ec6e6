"""What of a subject need not be kept any longer.

Law: reads within a transaction that others begin and end, and writes nothing. An event that a window of a feature can
still reach is needed, whatever the limits say, and so is one of the last hour: clocks of workers differ, and may be set
back by that much with every feature still right.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from arbiter.profiles import records
from arbiter.profiles.holdings import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.values import Limits

SLACK: Final = 3600 * 1_000_000  # µs


def bounded(limits: Limits) -> bool:
    """Whether anything is ever to be collected."""
    bounds = (limits.late, limits.keep_for, limits.keep_events, limits.inactive)
    return any(bound is not None for bound in bounds)


class Retention:
    """What the limits leave of subjects at `now` (µs), in one transaction, with `features` to be kept right."""

    def __init__(
        self,
        environment: Environment,
        txn: lmdb.Transaction[bytes],
        features: FeatureSet,
        limits: Limits,
        now: int,
    ) -> None:
        self._environment = environment
        self._txn = txn
        self._features = features
        self._limits = limits
        self._now = now

    def concerns(self, key: bytes, raw: bytes) -> bool:
        """Whether there is anything to collect of a subject, whose record in `profile` is `raw`."""
        if len(raw) == KEY_BYTES:  # an alias
            return False
        if self._limits.inactive is not None:
            touched = records.decode_hot(raw).touched
            if not touched or self.is_inactive(touched):
                return True
        found = (next(self.events(key), None), next(self.ids(key), None))
        return any(each is not None for each in found)

    def is_inactive(self, touched: int) -> bool:
        """Whether a subject that was last written to at `touched` (µs) is to be dropped."""
        return self._limits.inactive is not None and touched <= self._now - self._limits.inactive

    def events(self, key: bytes, *, inactive: bool = False) -> Iterator[bytes]:
        """The places in `by_subject` of events that may leave the log, oldest first; of the inactive all that may."""
        last = self._end(key, inactive=inactive)
        newest = records.place(key, self._now - SLACK, records.LAST_POSITION)
        reach = self._features.reach
        for place, type_ in self._entries(self._environment.by_subject, key):
            if place > last or place > newest:
                return
            _, at, _ = records.displace(place)
            if at <= self._now - SLACK - reach.get(self._type(place, type_), 0):
                yield place

    def ids(self, key: bytes) -> Iterator[tuple[bytes, int]]:
        """The keys in `seen` of events that could not come again, with the times (µs) of the events."""
        late = self._limits.late
        if late is None:
            return
        last = records.moment(self._now - late - SLACK)
        for found, at in self._entries(self._environment.seen, key):
            if at and at <= last:
                yield found, records.at_moment(at)

    def _entries(self, database: lmdb._Database, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor(database) as cursor:
            if cursor.set_range(key):
                yield from takewhile(lambda entry: entry[0][:KEY_BYTES] == key, cursor)

    def _end(self, key: bytes, *, inactive: bool) -> bytes:
        """The last place that age or number alone would have go."""
        limits = self._limits
        if inactive:
            return records.place(key, records.LAST, records.LAST_POSITION)
        by_age, by_number = key, None
        if limits.keep_for is not None:
            by_age = records.place(key, self._now - limits.keep_for, records.LAST_POSITION)
        if limits.keep_events is not None:
            by_number = self._beyond(key, limits.keep_events)
        return by_age if by_number is None else max(by_age, by_number)

    def _beyond(self, key: bytes, number: int) -> bytes | None:
        """The place of the newest event after the newest `number`, None when there are not so many."""
        with self._txn.cursor(self._environment.by_subject) as cursor:
            end = records.place(key, records.LAST, records.LAST_POSITION)
            found = cursor.prev() if cursor.set_range(end) else cursor.last()
            while found and cursor.key()[:KEY_BYTES] == key:
                if not number:
                    return cursor.key()
                number -= 1
                found = cursor.prev()
        return None

    def _type(self, place: bytes, type_: bytes) -> str:
        """An event's type: that of its place, or, for one logged before types stood there, that of the event."""
        if type_:
            return type_.decode()
        return records.decode_event(self._txn.get(place[24:], b"", self._environment.log)).type
