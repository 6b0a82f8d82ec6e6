"""The erasure of a subject, as it is applied inside the transaction that it shares with others.

Law: all that `holdings` lists goes, in one transaction, and a tombstone stands in its place. What was erased is
unreadable once that is on disk; its bytes are gone from the disk when the store is next compacted. No quota holds an
erasure up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles import holdings
from arbiter.profiles.aliases import aliases_of
from arbiter.profiles.compaction import note_erased
from arbiter.profiles.records import Erased
from arbiter.profiles.subjects import Subject
from arbiter.profiles.tombstones import Tombstone

if TYPE_CHECKING:
    from arbiter.profiles.group import Group


class EraseSubject:
    """Erases all that is held of a subject, by any of its ids. Answered with `Erased`; again, with nothing erased."""

    weight = 256  # about what a long log weighs

    def __init__(self, key: bytes) -> None:
        self._key = key

    def apply(self, group: Group) -> Erased:
        """Erase it, whatever there is, and put up the tombstone."""
        environment, txn, key = group.environment, group.txn, group.resolve(self._key)
        names = [key, *aliases_of(environment, txn, key)]
        group.let_go(key)
        # An event may be dated ahead of the clock: one that is erased stays away like the others.
        newest = next(Subject(environment, txn, key).newest_events(), None)
        until = group.now if newest is None else max(group.now, newest.at)
        for name in names:
            group.bury(name, Tombstone(group.now, until))
        erased = holdings.erase_all(environment, txn, key)
        if erased:
            note_erased(txn, environment)
        group.part(key)
        return Erased(group.now, erased)
