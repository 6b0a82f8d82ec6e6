"""One subject inside one transaction: its records, its events in order, its features at a clock.

Law: reads and writes records of single subjects within a transaction that others begin and end; decides nothing about
requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.profiles import records
from arbiter.profiles.records import Cold, Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.types import Event


def unknown(features: FeatureSet) -> Profile:
    """The profile of a subject of whom nothing is stored."""
    return Profile(0, {}, dict(features.empty), "", records.NEVER, None, records.pack_times(features.empty, {}))


def is_right(profile: Profile, features: FeatureSet, now: int) -> bool:
    """Whether the hot record is what holds at `now`, its features those of the set."""
    until = profile.next_change_at
    return profile.feature_set == features.id and profile.valid_from <= now and (until is None or now < until)


class Subject:
    """A subject as a transaction sees it. Times in µs, both ends of a range inclusive, None open."""

    __slots__ = ("_environment", "_txn", "key")

    def __init__(self, environment: Environment, txn: lmdb.Transaction[bytes], key: bytes) -> None:
        self._environment = environment
        self._txn = txn
        self.key = key

    def events(self, first: int | None = None, last: int | None = None) -> Iterator[Event]:
        """Events by time, then position."""
        for _, event in self.placed_events(first, last):
            yield event

    def placed_events(self, first: int | None = None, last: int | None = None) -> Iterator[tuple[bytes, Event]]:
        """The same, each with its key in `by_subject`."""
        log, get = self._environment.log, self._txn.get
        for place in self.places(first, last):
            yield place, records.decode_event(get(place[24:], b"", log))

    def places(self, first: int | None = None, last: int | None = None) -> Iterator[bytes]:
        """The keys of the same in `by_subject`."""
        start = records.place(self.key, records.NEVER if first is None else first, 0)
        with self._txn.cursor(self._environment.by_subject) as cursor:
            if not cursor.set_range(start):
                return
            for place in cursor.iternext(keys=True, values=False):
                if place[:16] != self.key or (last is not None and records.displace(place)[1] > last):
                    return
                yield place

    def has_event_at(self, at: int) -> bool:
        """Whether there is an event at exactly this time."""
        return next(self.places(at, at), None) is not None

    def newest_events(self, last: int | None = None) -> Iterator[Event]:
        """Events by time, then position, backwards."""
        environment, get = self._environment, self._txn.get
        end = records.place(self.key, records.LAST if last is None else last, records.LAST_POSITION)
        with self._txn.cursor(environment.by_subject) as cursor:
            found = cursor.last() if not cursor.set_range(end) else cursor.key() == end or cursor.prev()
            while found and cursor.key()[:16] == self.key:
                yield records.decode_event(get(cursor.key()[24:], b"", environment.log))
                found = cursor.prev()

    def cold(self, features: FeatureSet, now: int) -> Cold:
        """The cold record with a state for every feature, right from `now` on: as stored, or counted from the log."""
        raw = self._txn.get(self.key, None, self._environment.window)
        cold = Cold({}) if raw is None else records.decode_cold(raw)
        cold.states = features.complete(cold.states, now, self.events, cold.gone)
        return cold

    def as_of(self, profile: Profile, features: FeatureSet, now: int, cold: Cold | None = None) -> Profile:
        """`profile` with its features at `now`, and without what expired. The states of a given `cold` forget what has
        left their windows.
        """
        if cold is None:
            cold = self.cold(features, now)
        readings = features.read(cold.states, now, self.events, cold.gone)
        profile = profile.live(now)
        return Profile(
            profile.version,
            profile.attributes,
            readings.values,
            features.id,
            records.NEVER if readings.since is None else readings.since,
            records.first_of(readings.until, profile.expires),
            profile.tail[: 8 * len(profile.attributes)] + records.pack_times(readings.values, readings.changed),
            profile.granted,
            profile.expires,
            profile.touched,
            profile.managed,
            profile.reference,
        )

    def write_cold(self, cold: Cold) -> None:
        """Store the states behind the features."""
        self._txn.put(self.key, records.encode(cold), db=self._environment.window)

    def write_hot(self, profile: Profile) -> None:
        """Store the hot record."""
        self._txn.put(self.key, records.encode_profile(profile), db=self._environment.profile)

    def read_hot(self) -> Profile | None:
        """The hot record as it stands."""
        raw: Any = self._txn.get(self.key, None, self._environment.profile)
        return None if raw is None else records.decode_profile(raw)
