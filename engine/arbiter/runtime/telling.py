"""Writing down what became of decisions, in the worker that was told.

Law: a row for each report that was recorded, and for no other, once it is on the store's disk. Whose it is stands in it
by the reference that the store gave with the answer, and not at all where it gave none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.learning.happened import Happened, encode_happened, impersonal
from arbiter.profiles.outcomes import Recorded
from arbiter.types import RESERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.outcomes import Became, Report


def rows_of(reports: Sequence[Report], became: Sequence[Became], now: int) -> list[bytes]:
    """The packed rows of those of the reports that are new, as of `now` (µs)."""
    return [
        encode_happened(_row(report, each.reference, now))
        for report, each in zip(reports, became, strict=True)
        if each.recorded is Recorded.ACCEPTED
    ]


def _row(report: Report, reference: bytes, now: int) -> Happened:
    event, said = report.event, report.event.properties
    row = Happened(
        kind=event.type.removeprefix(RESERVED),
        id=event.id,
        decision=said["decision"],
        at=event.at,
        decided_at=report.decided,
        recorded=now,
        subject=reference.hex(),
        point=said["point"],
        snapshot=report.snapshot,
        rule=said["rule"],
        name=said.get("name"),
        value=said.get("value"),
    )
    return row if reference else impersonal(row)
