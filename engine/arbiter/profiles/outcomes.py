"""What became of decisions, as events of their subjects, inside the transaction that a batch shares with others.

Law: a report is an event like others, once it is let in: it is logged, counted, exported, linked, forgotten and erased
as they are. It is judged by its decision: one of a subject that was erased since is dropped, and so is one that is
older than events may be. What was recorded is a duplicate, unless its subject was erased.
"""

from __future__ import annotations

import enum
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import InvalidField
from arbiter.profiles import records
from arbiter.profiles.arms import Lesson, learn
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.referring import ReferTo
from arbiter.types import RESERVED, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group


class Recorded(enum.IntEnum):
    """What became of a report."""

    ACCEPTED = 1
    DUPLICATE = 2
    EXPIRED = 3
    SUBJECT_ERASED = 4


class Report(msgspec.Struct, frozen=True):
    """An event that says what became of a decision: the `key` of that one's subject, when it was `decided` (µs) and by
    which snapshot, and what errors call the report. `lessons` are what bandits learn of it.
    """

    key: bytes
    decided: int
    snapshot: str
    event: Event
    field: str
    lessons: tuple[Lesson, ...] = ()


class Became(msgspec.Struct, frozen=True):
    """What became of a report, and what the log of decisions calls the subject of a new one, empty for not at all."""

    recorded: Recorded
    reference: bytes = b""


def id_of(*told: str) -> str:
    """The id of an event that Arbiter records of itself: the same of all that tells it from others, whenever told."""
    return RESERVED + blake2b("\0".join(told).encode(), digest_size=16).hexdigest()


class RecordReports:
    """Reports whose ids are free for them alone. Answered with what became of each, in their order.

    Where there is a log, `logged` is the purpose that a subject must have granted to stand in it, empty for any.
    """

    def __init__(self, reports: Sequence[Report], logged: str | None = None) -> None:
        self._reports = [(each, records.encode(each.event)) for each in reports]
        self._logged = logged
        self.weight = len(reports)

    def apply(self, group: Group) -> list[Became]:
        """Record the new ones. Raises InvalidField for one that is dated too far ahead, LimitExceeded."""
        group.check_quota()
        found, new = [], {}
        for report, encoded in self._reports:
            key = group.resolve(report.key)
            seen = records.seen_key(key, report.event.id)
            became = Recorded.DUPLICATE if seen in new else _judged(group, report, key, seen)
            if became is Recorded.ACCEPTED:
                new[seen] = (key, seen, report.event, encoded, b"")
            found.append(became)
        if new:
            IngestEvents(list(new.values())).apply(group)
        for (report, _), became in zip(self._reports, found, strict=True):
            if became is Recorded.ACCEPTED:
                for lesson in report.lessons:
                    learn(group, lesson)
        return [
            Became(each, self._reference(group, report.key) if each is Recorded.ACCEPTED else b"")
            for each, (report, _) in zip(found, self._reports, strict=True)
        ]

    def _reference(self, group: Group, key: bytes) -> bytes:
        if self._logged is None or (self._logged and self._logged not in group.open(key).profile.granted):
            return b""
        return ReferTo(key).apply(group)


def _judged(group: Group, report: Report, key: bytes, seen: bytes) -> Recorded:
    limits, at = group.limits, report.event.at
    if report.decided <= max(group.erased_until(report.key), group.erased_until(key)):
        return Recorded.SUBJECT_ERASED
    if group.txn.get(seen, None, group.environment.seen) is not None:
        return Recorded.DUPLICATE
    if limits.late is not None and report.decided < group.now - limits.late:
        return Recorded.EXPIRED
    if at <= group.cold(key).forgotten:
        return Recorded.EXPIRED
    if limits.ahead is not None and at > group.now + limits.ahead:
        field = f"{report.field}.at"
        raise InvalidField(
            f"{field} is {(at - group.now) / 1e6:,.0f} seconds ahead of the server's clock, more than "
            "`events.ahead_seconds` allows: set the clock of whoever dates reports right, or raise that",
            field=field,
            reason="events.ahead_seconds",
        )
    return Recorded.ACCEPTED
