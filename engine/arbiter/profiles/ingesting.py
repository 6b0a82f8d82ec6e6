"""A batch of events, as it is applied inside the transaction that it shares with others.

Law: an event is logged once and counted once, in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles.records import Ingested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group
    from arbiter.types import Event


class IngestEvents:
    """Checked events with their subject keys, `seen` keys and encodings. Answered with `Ingested`."""

    def __init__(self, entries: Sequence[tuple[bytes, bytes, Event, bytes]]) -> None:
        self._entries = entries
        self.weight = len(entries)

    def apply(self, group: Group) -> Ingested:
        """Log the new ones and count them in the features."""
        group.check_quota()
        accepted = 0
        for key, seen, event, encoded in self._entries:
            if not group.txn.put(seen, b"", overwrite=False, db=group.environment.seen):
                continue
            _, states = group.open_states(key)
            group.log(key, event, encoded)
            group.features.insert(states, event)
            accepted += 1
        return Ingested(accepted, len(self._entries) - accepted, group.position)
