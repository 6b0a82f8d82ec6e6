"""What each rule costs: what of its condition the index answers, what is left to check, and why.

Law: reads trees; measures nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.expr.syntax import walk
from arbiter.expr.tree import AnyNode, Call, Const, Fold, ListOf, Name
from arbiter.ruleset.branches import MAX_BRANCHES, branches_of, models_of, reads_of
from arbiter.ruleset.render import expressions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.expr.tree import Expression
    from arbiter.ruleset.rules import Rule, Ruleset
    from arbiter.snapshot import Snapshot

_ARITHMETIC: Final = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_", "-_"})
_LOGIC: Final = frozenset({"_&&_", "_||_", "!_"})
_COMPARED: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})


class Residual(msgspec.Struct, frozen=True):
    """A part of a condition that is checked for survivors only: its text, and why the index cannot answer it."""

    text: str
    why: str


class RuleCost(msgspec.Struct, frozen=True):
    """What a rule costs. `ways` are its branches, each a bit of the index; `tests` the different tests in it.

    `models` may be run for the rule, by its condition, its value or its parameters.
    """

    rule: str
    decision: str
    position: str
    ways: int
    tests: int
    residual: tuple[Residual, ...]
    models: tuple[str, ...]
    enabled: bool


def rule_costs(snapshot: Snapshot) -> Iterator[RuleCost]:
    """The cost of every rule, by id."""
    ruleset, symbols = snapshot.ruleset, snapshot.symbols
    orders = {point.name: point.order for point in ruleset.decisions}
    for rule in ruleset.rules:
        branches = branches_of([line.root for line in rule.when], symbols)
        checks = {(id(check.node), check.wanted): check for branch in branches for check in branch.checks}
        roots = [line.root for line in rule.when]
        roots += [e.root for param in rule.then.params.values() for e in expressions_of(param)]
        roots += [rule.value.root] if rule.value is not None and "value" in orders[rule.decision] else []
        texts = _Texts(rule, ruleset)
        yield RuleCost(
            rule=rule.id,
            decision=rule.decision,
            position=rule.position,
            ways=len(branches),
            tests=len({id(literal) for branch in branches for literal in branch.literals}),
            residual=tuple(
                Residual(texts.of(check.node, wanted=check.wanted), _why(check.node, check.models))
                for check in checks.values()
            ),
            models=tuple(sorted(models_of(roots, symbols))),
            enabled=rule.enabled,
        )


class _Texts:
    """Finds what an author wrote for a node of a rule's condition or of a segment that it uses."""

    def __init__(self, rule: Rule, ruleset: Ruleset) -> None:
        self._lines: list[Expression] = [*rule.when, *(segment.condition for segment in ruleset.segments)]

    def of(self, node: AnyNode, *, wanted: bool) -> str:
        """The node's source; in `!( )` where it must be false."""
        for line in self._lines:
            if line.source and any(each is node for each in walk(line.root)):
                source = line.source if node is line.root else line.source[slice(*node.span)]
                return " ".join(source.split()) if wanted else f"!({' '.join(source.split())})"
        return "a part of a segment"


def _why(node: AnyNode, models: frozenset[str]) -> str:
    """Why the index cannot answer a node."""
    if models:
        return f"reads {', '.join(f'models.{name}' for name in sorted(models))}"
    inside = walk(node)
    calls = {each.function for each in inside if isinstance(each, Call)}
    if isinstance(node, Call) and node.function in _LOGIC:
        return f"has more than {MAX_BRANCHES} ways of being true"
    if any(isinstance(each, Fold) for each in inside):
        return "looks at the elements one by one"
    if calls & _ARITHMETIC:
        return "computes"
    names = [each for each in inside if isinstance(each, Name)]
    others = calls - _COMPARED - _LOGIC - {"@in", "has", "_?_:_", "_[_]"}
    if others:
        return f"calls {', '.join(f'`{name}`' for name in sorted(others))}"
    if "_?_:_" in calls:
        return "chooses between two values"
    if len({name.path for name in names}) > 1:
        return "compares two names"
    if any(isinstance(each, (Const, ListOf)) for each in inside) and names:
        return "compares with what the index does not hold"
    return "is more than one look at one value"


def inputs_of(snapshot: Snapshot, decision: str) -> set[tuple[str, ...]]:
    """The names that decisions at a point may read, through segments and models."""
    roots: list[AnyNode] = []
    for rule in snapshot.ruleset.rules:
        if rule.decision == decision and rule.enabled:
            roots += [line.root for line in rule.when]
            roots += [e.root for param in rule.then.params.values() for e in expressions_of(param)]
            roots += [rule.value.root] if rule.value is not None else []
    reads = set(reads_of(roots, snapshot.symbols))
    return reads | {p for path in reads if path[0] == "models" for p in snapshot.symbols.model_inputs.get(path[1], ())}
