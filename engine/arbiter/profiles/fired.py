"""What readers see of triggers: firings in order, those of a subject, and how far along a subject is.

Law: short read transactions, and nothing is written. What a state means is the triggers' matter.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from arbiter.profiles.aliases import standing_for
from arbiter.profiles.environment import UNREADABLE, unreadable
from arbiter.profiles.firings import firings_after, firings_of, gone_firing, last_firing
from arbiter.profiles.holdings import last_position
from arbiter.profiles.naming import name_of
from arbiter.profiles.pending import states_of
from arbiter.profiles.reached import read_reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lmdb

    from arbiter.profiles.current import Current
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.firings import FiringRecord
    from arbiter.profiles.keys import Keys


class Told(NamedTuple):
    """A firing, with its position, and the id of its subject, empty where it is not known."""

    position: int
    subject_id: str
    firing: FiringRecord


class Fired:
    """The firings of one store. Each call raises StoreError when the store cannot be read."""

    def __init__(self, current: Current, keys: Keys) -> None:
        self._current = current
        self._keys = keys

    def last(self) -> int:
        """The last position that was ever given; 0 for none."""
        with self.looking() as (environment, txn):
            return last_firing(environment, txn)

    def gone(self) -> int:
        """The last position whose firing was too old to be kept; 0 for none."""
        with self.looking() as (environment, txn):
            return gone_firing(environment, txn)

    def after(
        self, position: int, limit: int, wanted: Callable[[FiringRecord], bool] | None = None, subject_id: str = ""
    ) -> tuple[list[Told], int]:
        """Of at most `limit` firings after a position those that are wanted, of one subject if one is named, in order;
        and the last position that was looked at.
        """
        found = []
        with self.looking() as (environment, txn):
            whose = standing_for(environment, txn, self._keys.subject(subject_id)) if subject_id else b""
            for place, firing in islice(firings_after(environment, txn, position), limit):
                position = place
                if (not whose or firing.subject == whose) and (wanted is None or wanted(firing)):
                    found.append(Told(place, name_of(environment, txn, self._keys, firing.subject), firing))
        return found, position

    def of(self, subject_id: str, limit: int) -> list[Told]:
        """At most `limit` firings of a subject, the newest first."""
        with self.looking() as (environment, txn):
            key = standing_for(environment, txn, self._keys.subject(subject_id))
            name = name_of(environment, txn, self._keys, key)
            return [Told(place, name, firing) for place, firing in islice(firings_of(environment, txn, key), limit)]

    def behind(self) -> int:
        """How many positions of the event log triggers have not looked at; 0 where none ever ran."""
        with self.looking() as (environment, txn):
            reached = read_reached(environment, txn)
            return max(0, last_position(environment, txn) - reached.position) if reached.since else 0

    def states(self, subject_id: str) -> list[bytes]:
        """The states of a subject's triggers, encoded; several where ids were linked and nothing happened since."""
        with self.looking() as (environment, txn):
            key = standing_for(environment, txn, self._keys.subject(subject_id))
            return states_of(environment, txn, key)

    @contextmanager
    def looking(self) -> Iterator[tuple[Environment, lmdb.Transaction[bytes]]]:
        """One state of the store while the block runs, whose errors are told as StoreError too."""
        try:
            environment = self._current.latest()
            with environment.handle.begin() as txn:
                yield environment, txn
        except UNREADABLE as error:
            raise unreadable(error, self._current.path) from error
