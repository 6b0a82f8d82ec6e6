"""Which decisions had an outcome, and which were shown, for whoever joins them with something else than SQL knows.

Law: records in, ids of decisions out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arbiter.learning.report.reading import Records

_OF_RULE = "(? = '' OR rule IN ('', ?))"


def with_outcome(records: Records, name: str, within: int | None, rule: str = "") -> set[str]:
    """The decisions with an outcome of that name less than `within` µs after them, None for ever; of those that are
    said of one rule, with `rule` those of this one.
    """
    found = records.rows(
        f"""
        SELECT DISTINCT decision FROM happened
        WHERE kind = 'outcome' AND name = ? AND moment >= decided_at AND (? IS NULL OR moment - decided_at < ?)
            AND {_OF_RULE}
        """,  # noqa: S608 - text of ours
        name, within, within, rule, rule,
    )  # fmt: skip
    return {decision for (decision,) in found}


def shown(records: Records, rule: str = "") -> set[str]:
    """The decisions of which it was said that they, or with `rule` what that rule delivered, were shown."""
    found = records.rows(
        f"SELECT DISTINCT decision FROM happened WHERE kind = 'exposure' AND {_OF_RULE}",  # noqa: S608 - text of ours
        rule, rule,
    )  # fmt: skip
    return {decision for (decision,) in found}


def names(records: Records) -> list[str]:
    """What outcomes there are, by name."""
    found = records.rows("SELECT DISTINCT name FROM happened WHERE kind = 'outcome' AND name IS NOT NULL ORDER BY name")
    return [name for (name,) in found]
