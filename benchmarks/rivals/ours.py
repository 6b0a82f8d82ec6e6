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


_NOTHING: dict[str, Any] = {}


def best_rule(point: Point) -> Callable[[dict[str, Any]], str]:
    """A function to the best rule's id, or an empty text: the index, then the survivors, best first, up to one whose
    checks hold.
    """
    match, blocks, entry = point.index.match, point.entries, point.entry

    def first(number: int, mask: int, view: View) -> str:
        while mask:
            low = mask & -mask
            bit = low.bit_length() - 1
            branch, rule, _ = blocks[number][bit] or entry(number, bit)
            if branch.before is None or branch.before(view):
                return rule.id
            mask ^= low
        return ""

    def best_of_one(person: dict[str, Any]) -> str:
        view = View(person, _NOTHING, _NOTHING, 0)
        found = match(view)
        return first(0, found, view) if found else ""

    def best(person: dict[str, Any]) -> str:
        view = View(person, _NOTHING, _NOTHING, 0)
        for number, mask in match(view):
            if found := first(number, mask, view):
                return found
        return ""

    return best_of_one if point.single else best


def all_rules(point: Point) -> Callable[[dict[str, Any]], list[str]]:
    """A function to the ids of all rules that hold, best first."""
    match, single, blocks, entry = point.index.match, point.single, point.entries, point.entry

    def every(person: dict[str, Any]) -> list[str]:
        view, holding = View(person, _NOTHING, _NOTHING, 0), []
        found = match(view)
        for number, survivors in ((0, found),) if single else found:
            mask = survivors
            while mask:
                low = mask & -mask
                bit = low.bit_length() - 1
                branch, rule, behind = blocks[number][bit] or entry(number, bit)
                if branch.before is None or branch.before(view):
                    mask &= behind
                    holding.append(rule.id)
                else:
                    mask ^= low
        return holding

    return every


def survivors(point: Point) -> Callable[[dict[str, Any]], int]:
    """A function to how many branches the index leaves, over all blocks: what the index costs alone."""
    left = point.index.survivors
    return lambda person: sum(mask.bit_count() for _, mask in left(View(person, _NOTHING, _NOTHING, 0)))


def decided(point: Point) -> Callable[[dict[str, Any]], str]:
    """A function to the best rule's id by a whole walk: dates, rollouts, groups, rendering and slots too."""

    def decide(person: dict[str, Any]) -> str:
        decision = Walk(point, View(person, _NOTHING, _NOTHING, 0), "someone").advance()
        if not isinstance(decision, Decision):
            raise SystemExit("a benchmark's rule asked for a model")
        return decision.treatments[0].rule_id

    return decide
