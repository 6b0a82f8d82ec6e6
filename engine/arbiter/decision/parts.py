"""A rule's condition, part by part in the order written, and its gates: for who asks one rule of many subjects.

Law: pure. A part is a side of the `&&` at the top, and each line of a list is one. Compiled forms say whether it is
true; what they cannot tell, for lack of what it is unknown, the slow evaluator is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.capping import has_room
from arbiter.decision.dates import in_time
from arbiter.decision.walk import in_rollout
from arbiter.expr.compile import truth_function
from arbiter.expr.evaluate import judge
from arbiter.expr.tree import AnyNode, Call
from arbiter.ruleset.branches import models_of
from arbiter.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.compiled import CompiledRule
    from arbiter.ruleset.rules import Rule


class Part(msgspec.Struct, frozen=True):
    """One part of a condition: its text and tree, the models that it needs, and whether it is true, or false; else it
    is unknown.
    """

    text: str
    node: AnyNode
    models: tuple[str, ...]
    is_true: Callable[[View], bool]
    is_false: Callable[[View], bool]


def parts_of(rule: Rule, symbols: Symbols) -> tuple[Part, ...]:
    """The parts of the rule's condition; none where it has none."""
    return tuple(
        Part(
            expression.source[slice(*node.span)],
            node,
            tuple(sorted(models_of([node], symbols))),
            truth_function([(node, True)], symbols, f"part of {rule.id}"),
            truth_function([(node, False)], symbols, f"part of {rule.id}, refuted"),
        )
        for expression in rule.when
        for node in _sides(expression.root)
    )


def missing(parts: Iterable[Part], view: View, symbols: Symbols) -> tuple[str, ...]:
    """The names for lack of which these parts are unknown, as an explanation tells them."""
    return tuple(dict.fromkeys(name for part in parts for name in judge(part.node, view, symbols).missing))


def _sides(node: AnyNode) -> Iterator[AnyNode]:
    match node:
        case Call(function="_&&_", args=sides):
            for side in sides:
                yield from _sides(side)
        case _:
            yield node


def gate(rule: CompiledRule, view: View, subject_id: str) -> Reason | None:
    """What keeps the rule out where its condition holds, other rules not counted; None for nothing."""
    if not in_time(rule.active, view):
        return Reason.INACTIVE
    if not in_rollout(rule, view, subject_id):
        return Reason.ROLLED_OUT_OF
    return None if has_room(rule, view) else Reason.CAPPED
