"""How findings speak of several rules and of the order of two.

Law: words only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.ruleset.rules import DecisionPoint, Rule


def listed(names: Sequence[str], most: int) -> str:
    """``a``, ``a and b``, ``a, b and 3 more``."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1:,} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def first_difference(point: DecisionPoint, first: Rule, second: Rule) -> str:
    """Why one rule comes before another."""
    for key in point.order:
        if key == "priority" and first.priority != second.priority:
            return f"has the higher priority, {first.priority} against {second.priority}"
        if key == "specificity" and first.specificity != second.specificity:
            return f"is more specific, {_conditions(first.specificity)} against {second.specificity}"
        if key in {"value", "recency"} and key == "value" and first.value != second.value:
            return "has the higher value"
    return "comes first, by its id alone" if not first.table else "comes first"


def _conditions(count: int) -> str:
    return f"{count} condition{'' if count == 1 else 's'}"
