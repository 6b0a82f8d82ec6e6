"""What a store can tell of itself.

Law: plain numbers, of which telemetry makes metrics; no store, no clock.
"""

from __future__ import annotations

import msgspec


class Written(msgspec.Struct):
    """What reached the disk: transactions, the ns that they took, and how many held how many operations.

    `groups` counts transactions by the power of two that is not below their number of operations.
    """

    commits: int = 0
    time: int = 0
    operations: int = 0
    groups: dict[int, int] = {}

    def add(self, operations: int, time: int) -> None:
        """Count a transaction."""
        self.commits += 1
        self.time += time
        self.operations += operations
        size = 1 << (operations - 1).bit_length()
        self.groups[size] = self.groups.get(size, 0) + 1


class Collected(msgspec.Struct):
    """What was no longer to be kept, and went: events, ids of events, inactive subjects."""

    events: int = 0
    ids: int = 0
    subjects: int = 0

    def add(self, other: Collected) -> None:
        """Count what another piece took."""
        self.events += other.events
        self.ids += other.ids
        self.subjects += other.subjects


class Rebuilding(msgspec.Struct, frozen=True):
    """That profiles are rewritten for a changed set of features. Reads are right meanwhile, only slower.

    `features` are the names of those that are counted anew, sorted; about so many profiles are `left` to look at.
    """

    features: tuple[str, ...]
    left: int


class Figures(msgspec.Struct, frozen=True):
    """What a process did with a store, and how that stands.

    `reads` are of profiles, `computed` those of them whose feature values were out of date; `waiting` are writes.
    `file_bytes` is the size of the file, free pages and all; `oldest_read_s` for how many seconds the oldest state that
    somebody reads has been held; `previous_ids` lie under an earlier key.
    """

    reads: int = 0
    computed: int = 0
    written: Written = msgspec.field(default_factory=Written)
    waiting: int = 0
    used_bytes: int = 0
    quota_bytes: int = 0
    rebuilding: Rebuilding | None = None
    file_bytes: int = 0
    oldest_read_s: float = 0.0
    collected: Collected = msgspec.field(default_factory=Collected)
    previous_ids: int = 0
