"""The condition of a step, taken apart: what asks the event alone, what ties it to one before by equality, the rest.

Law: trees in, trees out. Together the parts are true exactly when the whole is.
"""

from __future__ import annotations

from functools import reduce
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.check import names_of
from arbiter.expr.syntax import conjuncts, walk, with_children
from arbiter.expr.tree import AnyNode, Call, Expression, Name
from arbiter.ruleset.triggers import Join, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DIGEST = 6  # bytes


def step_of(label: str, events: tuple[str, ...], where: Expression | None, within: int | None) -> Step:
    """A step with its condition taken apart."""
    own: list[AnyNode] = []
    joins: list[Join] = []
    across: list[AnyNode] = []
    for part in conjuncts(where.root) if where is not None else ():
        join = _join(part)
        if join is not None:
            joins.append(join)
        else:
            (own if _asks_event_alone(part) else across).append(part)
    return Step(
        label=label,
        events=events,
        where=where,
        own=_joined(where, own),
        joins=tuple(dict.fromkeys(joins)),
        across=_joined(where, across),
        within=within,
    )


def _join(node: AnyNode) -> Join | None:
    match node:
        case Call(function="_==_", args=(Name(path=("event", own)), Name(path=(label, other)))) if label != "event":
            return Join(own, label, other)
        case Call(function="_==_", args=(Name(path=(label, other)), Name(path=("event", own)))) if label != "event":
            return Join(own, label, other)
    return None


def _asks_event_alone(node: AnyNode) -> bool:
    return all(each.path[0] == "event" for each in walk(node) if isinstance(each, Name))


def _joined(whole: Expression | None, parts: Sequence[AnyNode]) -> Expression | None:
    """The conjunction of parts of an expression, in its source; None of none."""
    if whole is None or not parts:
        return None
    root = reduce(lambda left, right: Call("_&&_", (left, right), span=(left.span[0], right.span[1])), parts)
    return Expression(whole.source, root, whole.type, whole.position, names_of(walk(root)))


def same_condition(expression: Expression) -> bytes:
    """What two conditions have in common exactly when they say the same, wherever and however laid out."""
    return msgspec.msgpack.encode(_bare(expression.root))


def key_of(kind: str, steps: Iterable[Step], rest: object, unless: Step | None) -> str:
    """The key of a pattern: equal for patterns that mean the same event by event, wherever and however laid out."""
    drawn = [_drawn(step) for step in steps]
    content = msgspec.msgpack.encode([kind, drawn, rest, _drawn(unless) if unless is not None else None])
    return blake2b(content, digest_size=_DIGEST).hexdigest()


def _drawn(step: Step) -> list[Any]:
    where = _bare(step.where.root) if step.where is not None else None
    return [step.label, sorted(step.events), where, step.within]


def _bare(node: AnyNode) -> AnyNode:
    """The tree without what a change of layout or of a declaration changes."""
    if isinstance(node, Name):
        return Name(node.path)
    return with_children(msgspec.structs.replace(node, span=(0, 0)), _bare)
