"""Rules in a form that belongs to no engine: what each engine under comparison writes its own from.

Law: plain data. How an engine likes its rules is the business of the module that speaks to it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

POINT = "bench.point"


class Condition(NamedTuple):
    """One test of one attribute of the profile. `chance` is the share of people who pass, by which whoever wants may
    put the choosiest first; `true` has no values, `in` has several, the others have one.
    """

    name: str
    test: Literal["==", ">", "<=", "in", "true"]
    values: tuple[Any, ...]
    chance: float

    def cel(self) -> str:
        """The condition as authors write it."""
        name = f"profile.{self.name}"
        if self.test == "true":
            return name
        written = [json.dumps(value) for value in self.values]
        return f"{name} in [{', '.join(written)}]" if self.test == "in" else f"{name} {self.test} {written[0]}"


class PlainRule(NamedTuple):
    """A rule: all conditions hold, the higher priority wins, the lower id among equals."""

    id: str
    priority: int
    conditions: tuple[Condition, ...]


def in_order(rules: Iterable[PlainRule]) -> list[PlainRule]:
    """The rules, best first."""
    return sorted(rules, key=lambda rule: (-rule.priority, rule.id))


def choosiest_first(rule: PlainRule) -> list[Condition]:
    """The rule's conditions, the one that fewest people pass first."""
    return sorted(rule.conditions, key=lambda condition: condition.chance)


def point_lines() -> list[str]:
    """The declaration of the decision point, as lines of a rule file."""
    return [
        f"decisions:\n  {POINT}:\n    slots: 1\n    order: [priority]",
        "    default: {action: show, params: {offer: none}}",
    ]


def rule_lines(name: str, priority: int, conditions: Iterable[str]) -> list[str]:
    """A rule with these expressions, as lines of a rule file below `rules:`."""
    return [
        f"  - id: {name}\n    decision: {POINT}\n    priority: {priority}\n    when:",
        *(f"      - '{condition}'" for condition in conditions),
        f"    then: {{action: show, params: {{offer: {name}}}}}",
    ]


def files_of(rules: Iterable[PlainRule], per_file: int = 5_000) -> dict[str, bytes]:
    """The rules as rule files of at most `per_file` rules, the first of which declares the decision point."""
    return written((rule_lines(r.id, r.priority, [c.cel() for c in r.conditions]) for r in rules), per_file)


def written(rules: Iterable[list[str]], per_file: int = 5_000) -> dict[str, bytes]:
    """The same for rules that are lines already, each made by `rule_lines`."""
    files, rest, start = {}, list(rules), point_lines()
    for low in range(0, len(rest), per_file):
        lines = [*(start if not low else []), "rules:"]
        for rule in rest[low : low + per_file]:
            lines += rule
        files[f"bench-{low // per_file:03d}.yaml"] = "\n".join([*lines, ""]).encode()
    return files
