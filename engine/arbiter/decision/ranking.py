"""What sorts rules that compete: the order keys of their decision point.

Law: pure; the walk and its explanation sort by the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.image import tie_break

if TYPE_CHECKING:
    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import CompiledRule, Point


def last_change(rule: CompiledRule, changes: dict[str, int], view: View) -> int | None:
    """The newest change (µs) among the names that the rule's condition reads, context and what the view hides not
    counted; None when none is known.
    """
    seen = (key for key in rule.change_keys if key in changes and _is_seen(key, view))
    return max((changes[key] for key in seen), default=None)


def _is_seen(key: str, view: View) -> bool:
    root, _, name = key.partition(".")
    return name in (view.features if root == "features" else view.account if root == "account" else view.profile)


def order_key(point: Point, rule: CompiledRule, value: float | None, change: int | None) -> tuple[float | str, ...]:
    """What sorts rules of one point, best first: its order keys, then the rule id. Unknown sorts last."""
    keys: list[float | str] = []
    for name in point.declared.order:
        match name:
            case "priority":
                keys.append(-rule.priority)
            case "specificity":
                keys.append(-rule.specificity)
            case "value":
                keys.append(float("inf") if value is None else -value)
            case "recency":
                keys.append(float("inf") if change is None else -change)
    return (*keys, *tie_break(rule.rule))
