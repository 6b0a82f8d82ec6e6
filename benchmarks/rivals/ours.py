"""Arbiter, asked what the others are asked: which is the best rule, and which rules hold at all.

Law: the one place of the benchmarks that knows how a compiled point is matched. What is asked starts from the profile,
as a decision does: the view of it is made inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.types import Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.ruleset.compiled import Point


def best_rule(point: Point, view: View) -> str:
    """The best rule's id, or an empty text: the index, then the survivors, best first, up to one whose checks hold."""
    for number, survivors in point.index.survivors(view):
        mask = survivors
        while mask:
            low = mask & -mask
            bit = low.bit_length() - 1
            branch, rule, _ = point.entries[number][bit] or point.entry(number, bit)
            if branch.before is None or branch.before(view):
                return rule.id
            mask ^= low
    return ""


def all_rules(point: Point, view: View) -> list[str]:
    """The ids of all rules that hold, best first."""
    holding = []
    for number, survivors in point.index.survivors(view):
        mask = survivors
        while mask:
            low = mask & -mask
            bit = low.bit_length() - 1
            branch, rule, behind = point.entries[number][bit] or point.entry(number, bit)
            if branch.before is None or branch.before(view):
                mask &= behind
                holding.append(rule.id)
            else:
                mask ^= low
    return holding


def survivors(point: Point, view: View) -> int:
    """How many branches the index leaves, over all blocks: what the index costs alone."""
    return sum(mask.bit_count() for _, mask in point.index.survivors(view))


def decided(point: Point, view: View) -> str:
    """The best rule's id by a whole walk: dates, rollouts, groups, rendering and slots too."""
    decision = Walk(point, view, "someone").advance()
    if not isinstance(decision, Decision):
        raise SystemExit("a benchmark's rule asked for a model")
    return decision.treatments[0].rule_id


def ask(point: Point, how: Callable[[Point, View], Any]) -> Callable[[dict[str, Any]], Any]:
    """One of the above as a function of a profile."""
    return lambda person: how(point, View(person, {}, {}, 0))
