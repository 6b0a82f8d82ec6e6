"""All of a report.

Law: puts its parts together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.learning.report.experiments import trials
from arbiter.learning.report.guards import guarded
from arbiter.learning.report.measured import measure
from arbiter.learning.report.rules import figures, reach
from arbiter.learning.report.segments import rules_by_segment, segments
from arbiter.learning.report.terms import Told

if TYPE_CHECKING:
    from arbiter.learning.report.reading import Records
    from arbiter.learning.report.terms import Question


def report(records: Records, question: Question) -> Told:
    """What the records say of everything that is asked. Raises UnreadableLog."""
    counted = records.row("""
        SELECT count(*), count(DISTINCT subject), count(*) FILTER (coalesce(id, '') = ''), min(moment), max(moment)
        FROM decisions
    """)
    happened = records.row("""
        SELECT count(*) FILTER (kind = 'exposure'), count(*) FILTER (kind = 'outcome'),
            count(*) FILTER (decision NOT IN (SELECT id FROM decisions WHERE id IS NOT NULL))
        FROM happened
    """)
    if question.metrics:
        measure(records, question.metrics)
    decisions, subjects, impersonal, first, last = counted
    exposures, outcomes, unjoined = happened
    found = trials(records, question)
    return Told(
        decisions, subjects, impersonal, exposures, outcomes, unjoined, first, last, question.level,
        found, figures(records, question), reach(records, question), guarded(found, question.guards),
        segments(records, question), rules_by_segment(records, question),
        question.metrics,
    )  # fmt: skip
