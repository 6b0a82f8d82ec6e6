"""What is wrong with one rule's condition by itself: parts that exclude each other, parts that say nothing new.

Law: one rule at a time; other rules are not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.expr.syntax import conjuncts
from arbiter.lint.cover import Cover, Covered, point_in
from arbiter.lint.masks import Masks
from arbiter.lint.space import Box, Space, empty
from arbiter.lint.subjects import Subject, subject_at
from arbiter.ruleset.branches import reads_of
from arbiter.ruleset.rules import Effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.expr.tree import AnyNode, Expression
    from arbiter.lint.contest import Given
    from arbiter.ruleset.rules import Rule

_SILENT = Effect("", {})


class Part(msgspec.Struct, frozen=True):
    """A part of a condition that `&&` or a list joins with others, as an expression of its own; `line` is where it
    stands, and the path of the line.
    """

    expression: Expression
    line: Expression
    path: str

    @property
    def text(self) -> str:
        """The part as its author wrote it."""
        return self.expression.source


def parts_of(rule: Rule) -> list[Part]:
    """The parts of a rule's condition, in source order."""
    return [
        Part(_part(line, node), line, f"when[{number}]")
        for number, line in enumerate(rule.when)
        for node in conjuncts(line.root)
    ]


def _part(line: Expression, node: AnyNode) -> Expression:
    source = line.source if node is line.root else line.source[slice(*node.span)]
    return msgspec.structs.replace(line, source=source.strip(), root=node)


def impossible_parts(rule: Rule, parts: Sequence[Part], given: Given) -> list[Part]:
    """The smallest set of parts, of one or two, that nobody meets; all where it takes more."""
    for part in parts:
        if not _ways(rule, [part], given):
            return [part]
    for later, part in enumerate(parts):
        for earlier in parts[:later]:
            if not _ways(rule, [earlier, part], given):
                return [earlier, part]
    return list(parts)


def subject_of(rule: Rule, parts: Sequence[Part], given: Given) -> Subject | None:
    """Somebody who meets these parts, the rule's dates apart, where stored values alone decide that."""
    space = _space([_only(rule, parts)], given)
    way = next((way for way in space.ways[0] if way.possible and way.exact), None)
    return None if way is None else subject_at(space, point_in(way.box))


def meets_dates(rule: Rule, given: Given) -> bool:
    """Whether somebody meets the rule's condition, its dates apart."""
    return bool(_ways(msgspec.structs.replace(rule, active=None), parts_of(rule), given))


def redundant_parts(rule: Rule, parts: Sequence[Part], given: Given) -> list[tuple[Part, bool]]:
    """The parts that are true whenever the others are, and whether one of the others is the same."""
    if len(parts) < 2:  # noqa: PLR2004 - it takes two
        return []
    reads = [reads_of([part.expression.root], given.snapshot.symbols) for part in parts]
    kept = list(range(len(parts)))
    found = []
    for number in reversed(range(len(parts))):
        others = [other for other in kept if other != number]
        known = set().union(*(reads[other] for other in others))
        always = any((allowed := given.allowed.get(path)) and allowed.always is not None for path in reads[number])
        if not others or not (reads[number] <= known or always):
            continue
        if _implied(rule, [parts[other] for other in others], parts[number], given):
            own = given.trees.of(parts[number].expression)
            found.append((parts[number], any(given.trees.of(parts[o].expression) == own for o in others)))
            kept.remove(number)
    return found[::-1]


def _implied(rule: Rule, others: Sequence[Part], part: Part, given: Given) -> bool:
    bare = msgspec.structs.replace(rule, active=None)
    space = _space([_only(bare, others), _only(bare, [part])], given)
    boxes: list[Box | None] = [way.box for way in space.ways[1] if way.possible]
    usual = [domain.usual for domain in space.domains]
    cover = Cover(space, boxes, Masks(boxes, usual), [0] * len(boxes))
    ways = [way for way in space.ways[0] if way.possible]
    return bool(ways) and all(isinstance(cover.search(way.box, (1 << len(boxes)) - 1, 0, 1), Covered) for way in ways)


def _ways(rule: Rule, parts: Sequence[Part], given: Given) -> bool:
    """Whether somebody meets these parts within the rule's dates."""
    return any(not empty(way.box) for way in _space([_only(rule, parts)], given).ways[0])


def _only(rule: Rule, parts: Sequence[Part]) -> Rule:
    return msgspec.structs.replace(rule, when=tuple(part.expression for part in parts), then=_SILENT)


def _space(rules: Sequence[Rule], given: Given) -> Space:
    return Space(rules, given.trees, given.allowed, given.now)
