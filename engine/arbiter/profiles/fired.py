"""What readers see of triggers: firings in order, those of a subject, and how far along a subject is.

Law: short read transactions, and nothing is written. What a state means is the triggers' matter.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from arbiter.profiles.aliases import standing_for
from arbiter.profiles.environment import UNREADABLE, unreadable
from arbiter.profiles.firings import firings_after, firings_of, gone_firing, last_firing
from arbiter.profiles.pending import states_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from arbiter.profiles.current import Current
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.firings import FiringRecord
    from arbiter.profiles.keys import Keys

    Firings = list[tuple[int, FiringRecord]]


class Fired:
    """The firings of one store. Each call raises StoreError when the store cannot be read."""

    def __init__(self, current: Current, keys: Keys) -> None:
        self._current = current
        self._keys = keys

    def last(self) -> int:
        """The last position that was ever given; 0 for none."""
        with self._looking() as (environment, txn):
            return last_firing(environment, txn)

    def gone(self) -> int:
        """The last position of those that are no longer kept, since they were too old; 0 for none."""
        with self._looking() as (environment, txn):
            return gone_firing(environment, txn)

    def after(self, position: int, limit: int) -> Firings:
        """At most `limit` firings after a position, each with its own, in order."""
        with self._looking() as (environment, txn):
            return list(islice(firings_after(environment, txn, position), limit))

    def of(self, subject_id: str, limit: int) -> Firings:
        """At most `limit` firings of a subject, each with its position, the newest first."""
        with self._looking() as (environment, txn):
            key = standing_for(environment, txn, self._keys.subject(subject_id))
            return list(islice(firings_of(environment, txn, key), limit))

    def states(self, subject_id: str) -> list[bytes]:
        """The states of a subject's triggers, encoded; several where ids were linked and nothing happened since."""
        with self._looking() as (environment, txn):
            key = standing_for(environment, txn, self._keys.subject(subject_id))
            return states_of(environment, txn, key)

    @contextmanager
    def _looking(self) -> Iterator[tuple[Environment, lmdb.Transaction[bytes]]]:
        try:
            environment = self._current.latest()
            with environment.handle.begin() as txn:
                yield environment, txn
        except UNREADABLE as error:
            raise unreadable(error, self._current.path) from error
