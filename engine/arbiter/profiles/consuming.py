"""Events that were read from a log elsewhere, applied together with how far that log was read.

Law: where a partition was read to changes in the transaction that logs its events, and only from where it stood, so
that each message counts once, whoever reads it and however often. What a partition is, and what its messages say, is
its reader's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError, CallerError
from arbiter.profiles.ingesting import IngestEvents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.group import Group
    from arbiter.profiles.records import Ingested


class OffsetGap(ArbiterError):
    """A partition is stored up to an earlier message than the first of a batch: what lies between would be lost."""


class EventsRefused(ArbiterError):
    """Some events of a batch cannot be stored; nothing of it was. `errors` says which, by partition and offset."""

    def __init__(self, errors: dict[tuple[Partition, int], CallerError]) -> None:
        self.errors = errors
        super().__init__(f"{len(errors)} events cannot be stored, {next(iter(errors.values()))}")


class Partition(msgspec.Struct, frozen=True, order=True):
    """A partition of a topic, as a group of readers sees it: each group has a place of its own in it."""

    group: str
    topic: str
    number: int

    def key(self) -> bytes:
        """Its key in the database `offset`."""
        return f"{self.group}\0{self.topic}\0{self.number}".encode()


class Span(msgspec.Struct, frozen=True):
    """The messages of a partition from the offset `start` to before `end`: the `entries` of those that are events.

    An entry is an event as `Store.prepare` gives it, with its offset. `anew`: the topic was made anew, and what is
    stored of the partition is of no use any more.
    """

    partition: Partition
    start: int
    end: int
    entries: Sequence[tuple[int, Any]] = ()
    anew: bool = False


class ConsumeEvents:
    """Log the events of some spans, and move where their partitions were read to. Answered with `Ingested`."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self.weight = max(1, sum(len(span.entries) for span in spans))

    def apply(self, group: Group) -> Ingested:
        """Apply what is not applied yet. Raises OffsetGap for what does not follow what is, and EventsRefused."""
        group.check_quota()
        fresh: list[tuple[Span, int]] = []
        for span in self._spans:
            stored = None if span.anew else read_offset(group.environment, group.txn, span.partition)
            if stored is not None and stored < span.start:
                raise OffsetGap(
                    f"partition {span.partition.number} of topic {span.partition.topic} is stored up to {stored}, and "
                    f"the batch begins at {span.start}: read again from {stored}"
                )
            if stored is None or stored < span.end:
                fresh.append((span, span.start if stored is None else stored))
        entries = [
            ((span.partition, offset), entry)
            for span, start in fresh
            for offset, entry in span.entries
            if offset >= start
        ]
        try:
            done = IngestEvents([entry for _, entry in entries]).apply(group)
        except CallerError:
            # One at least: whoever hears of it shall hear of all.
            raise EventsRefused(_refused(entries, group)) from None
        for span, _ in fresh:
            group.txn.put(span.partition.key(), span.end.to_bytes(8, "big"), db=group.environment.offset)
            group.wrote = True
        return done


def _refused(
    entries: Iterable[tuple[tuple[Partition, int], Any]], group: Group
) -> dict[tuple[Partition, int], CallerError]:
    found = {}
    for place, entry in entries:
        try:
            IngestEvents([entry]).new(group)
        except CallerError as error:
            found[place] = error.with_traceback(None)
    return found


def read_offset(environment: Environment, txn: lmdb.Transaction[bytes], partition: Partition) -> int | None:
    """The offset of the first message of a partition that is not stored; None when nothing of it ever was."""
    raw = txn.get(partition.key(), None, environment.offset)
    return None if raw is None else int.from_bytes(raw, "big")


def read_offsets(
    environment: Environment, txn: lmdb.Transaction[bytes], partitions: Iterable[Partition]
) -> dict[Partition, int]:
    """By partition what `read_offset` says, for those of which something is stored."""
    found = {partition: read_offset(environment, txn, partition) for partition in partitions}
    return {partition: offset for partition, offset in found.items() if offset is not None}
