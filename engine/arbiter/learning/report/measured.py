"""Outcomes by what rule files call for: under the names of metrics, those that count for each.

Law: asks the records, and changes what they hold of outcomes; of what was shown it changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.learning.report.reading import Records
    from arbiter.ruleset.terms import Metric

_COUNTED: Final = """
    INSERT INTO happened SELECT kind, decision, moment, decided_at, point, rule, ?, value FROM reported
    WHERE name = ? AND moment >= decided_at AND moment - decided_at < ?
"""


def measure(records: Records, metrics: Sequence[Metric]) -> None:
    """Have the records hold, in place of each outcome, one under the name of every metric that it counts for."""
    records.make("CREATE TABLE reported AS SELECT * FROM happened WHERE kind = 'outcome'")
    records.make("DELETE FROM happened WHERE kind = 'outcome'")
    for metric in metrics:
        records.make(_COUNTED, metric.name, metric.outcome, metric.within)
