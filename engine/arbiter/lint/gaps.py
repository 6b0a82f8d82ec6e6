"""Gaps in decision tables.

Law: the analysis of tables finds them; here they become findings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.decision.wording import shown
from arbiter.lint.finding import Finding
from arbiter.lint.subjects import Subject, winners
from arbiter.ruleset.tables.analysis import TooMany, find_gap
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.ruleset.rules import Rule, Ruleset
    from arbiter.ruleset.tables.analysis import Example
    from arbiter.snapshot import Snapshot


def check_tables(ruleset: Ruleset, snapshot: Snapshot, now: int) -> Iterator[Finding]:
    """A finding for each table that leaves an input without a row and does not say that it may."""
    rows: dict[str, list[Rule]] = {}
    for rule in ruleset.rules:
        if rule.table and rule.enabled:
            rows.setdefault(rule.table, []).append(rule)
    for table in ruleset.tables:
        if table.gaps_allowed:
            continue
        try:
            gap = find_gap(table, rows.get(table.id, []))
        except TooMany:
            continue
        if gap is None:
            continue
        subject = _subject(gap, now)
        ids = {rule.id for rule in rows.get(table.id, [])}
        if subject is not None and not ids.isdisjoint(winners(snapshot, table.decision, subject)):
            subject = None
        given = ", ".join(f"{term} = {shown(_plain(*value))}" for term, value in gap) or "any input"
        yield Finding(
            code="table-gap",
            position=table.position,
            message=f"no row of the table `{table.id}` matches {given}",
            hint="add a row for it, or say `gaps: allowed`",
            subject=subject,
            outcome="matches no row",
        )


def _subject(gap: Example, now: int) -> Subject | None:
    """The input as a subject; None where a column is more than a name."""
    found: dict[str, dict[str, Any]] = {"profile": {}, "account": {}, "context": {}, "features": {}}
    models: dict[str, dict[str, Any]] = {}
    moment, dated = now, False
    for term, (kind, value) in gap:
        match term.split("."):
            case ["profile" | "account" | "context" | "features" as root, name] if name.isidentifier():
                found[root][name] = _plain(kind, value)
            case ["models", model, output] if output.isidentifier():
                models.setdefault(model, {})[output] = _plain(kind, value)
            case ["now"]:
                moment, dated = value, True
            case _:
                return None
    return Subject(
        id="s0",
        now=moment,
        profile=found["profile"],
        account=found["account"],
        context=found["context"],
        features=found["features"],
        models=models,
        dated=dated,
    )


def _plain(kind: str, value: Any) -> Any:
    return from_micros(value) if kind == "timestamp" else value
