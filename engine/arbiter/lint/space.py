"""The rules of one decision point as boxes: for each name, the cells in which a way of matching holds.

Law: conditions in, boxes out; which rule beats which is not known here. What the index cannot answer is a name of its
own, true, false or unknown: two rules with the same residual check share it. Model outputs are names too. A box never
leaves a subject out that matches; where every part of it is a literal on a stored value it lets no other in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.expr.evaluate import evaluate
from arbiter.expr.ops import Unknown
from arbiter.expr.syntax import walk, with_children
from arbiter.expr.tree import AnyNode, Name
from arbiter.expr.view import Symbols, View
from arbiter.lint.domains import Allowed, Domain
from arbiter.ruleset.branches import NOW, Branch, Literal, branches_of
from arbiter.ruleset.render import expressions_of
from arbiter.ruleset.terms import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbiter.expr.tree import Expression
    from arbiter.lint.domains import Cells
    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.terms import Param

Path = tuple[Any, ...]
Box = dict[int, "Cells"]
"""Name's number → cells. A name that is not there may have any; no cells, and nothing is in the box."""

_READABLE: Final = frozenset({"profile", "account", "context", "features", "models", "experiments"})
_CHECK: Final = "check"
_ELEMENT: Final = "element"
_DAY_US: Final = 86_400_000_000


class Way(msgspec.Struct, frozen=True):
    """One way of matching. `sure` is the box in which the rule certainly is eligible and renders, None for nowhere;
    `exact` says that `box` is about stored values alone, `possible` that the condition can be met, rendering apart.
    """

    rule: int
    box: Box
    sure: Box | None
    exact: bool
    possible: bool


class Check(msgspec.Struct):
    """A residual check as a domain: true, false, unknown."""

    everything: Cells = 7
    missing: Cells = 4
    usual: int = 2


class Held(Check):
    """Whether a list holds something: it does, or it does not."""

    everything: Cells = 3
    missing: Cells = 0
    usual: int = 1


class Trees:
    """Trees as the lint compares them: without places, model outputs and experiments under names that
    the index takes.
    """

    def __init__(self, symbols: Symbols) -> None:
        self._known: dict[str, AnyNode] = {}
        segments = {name: bare(node) for name, node in symbols.segments.items()}
        self.symbols = msgspec.structs.replace(symbols, segments=segments)

    def of(self, expression: Expression) -> AnyNode:
        """The tree of an expression."""
        found = self._known.get(expression.source)
        if found is None:
            found = self._known[expression.source] = bare(expression.root)
        return found


def bare(node: AnyNode) -> AnyNode:
    """The tree without spans, model outputs and experiments as attributes of a profile that no file can name."""
    if isinstance(node, Name):
        return Name(named(node.path), node.type)
    return with_children(msgspec.structs.replace(node, span=(0, 0)), bare)


def named(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path under which the lint knows an outside name."""
    return ("profile", ".".join(path)) if path[0] in {"models", "experiments"} else path


class Space:
    """The names and the ways of one decision point. `rules` are its enabled rules, in an order of the caller's."""

    def __init__(
        self, rules: Sequence[Rule], trees: Trees, allowed: Mapping[tuple[str, ...], Allowed], now: int
    ) -> None:
        self.rules = rules
        self.now = now
        self._trees = trees
        self._numbers: dict[Path, int] = {}
        drafts = [self._draft(rule) for rule in rules]
        self.needs = [_needs(rule) for rule in rules]
        literals: dict[Path, list[Literal]] = {}
        for branches in drafts:
            for branch in branches:
                for literal in branch.literals:
                    literals.setdefault(literal.path, []).append(literal)
        for rule, paths in zip(rules, self.needs, strict=True):
            for path in paths or ():
                literals.setdefault(path, []).append(Literal(path, "has"))
            for path in _names_of(rule):
                literals.setdefault(path, []).append(Literal(path, "has"))
        clock = Allowed("int", always=now, stride=_DAY_US)
        self.domains: list[Domain | Check] = []
        self.paths: list[Path] = []
        for path, of_path in literals.items():
            self._add(path, Domain(of_path, allowed.get(path, clock if path == NOW else Allowed())))
        self.ways: list[list[Way]] = [
            [self._way(place, branch) for branch in branches] for place, branches in enumerate(drafts)
        ]

    def _add(self, path: Path, domain: Domain | Check) -> int:
        self._numbers[path] = len(self.domains)
        self.domains.append(domain)
        self.paths.append(path)
        return len(self.domains) - 1

    def _draft(self, rule: Rule) -> list[Branch]:
        branches = self.branches([self._trees.of(e) for e in rule.when])
        if rule.active is None:
            return branches
        dates = tuple(
            Literal(NOW, test, (edge,))
            for test, edge in (("ge", rule.active.start), ("lt", rule.active.until))
            if edge is not None
        )
        return [Branch((*branch.literals, *dates), branch.checks) for branch in branches]

    def branches(self, conditions: Sequence[AnyNode]) -> list[Branch]:
        """The branches of bare trees, constant checks decided."""
        found = []
        for branch in branches_of(conditions, self._trees.symbols):
            constant = [check for check in branch.checks if not any(isinstance(n, Name) for n in walk(check.node))]
            if all(_constant(check.node, self._trees.symbols) is check.wanted for check in constant):
                found.append(Branch(branch.literals, tuple(c for c in branch.checks if c not in constant)))
        return found

    def box(self, branch: Branch) -> Box:
        """A branch as a box. Its literals are on names that rules of the point have."""
        box: Box = {}
        for literal in branch.literals:
            number = self._numbers[literal.path]
            domain = self.domains[number]
            assert isinstance(domain, Domain)  # noqa: S101 - for the type checker
            box[number] = box.get(number, domain.everything) & domain.holding(literal)
            if literal.test in {"contains", "lacks"}:
                value = literal.values[0]
                self._narrow(
                    box, (_ELEMENT, literal.path, value.__class__, value), 1 if literal.test == "contains" else 2
                )
        for check in branch.checks:
            self._narrow(box, (_CHECK, check.node), 1 if check.wanted else 2)
        return box

    def _narrow(self, box: Box, path: Path, cells: Cells) -> None:
        number = self._numbers.get(path)
        if number is None:
            number = self._add(path, Held() if path[0] == _ELEMENT else Check())
        box[number] = box.get(number, self.domains[number].everything) & cells

    def _way(self, place: int, branch: Branch) -> Way:
        box = self.box(branch)
        active = self.rules[place].active
        if active is not None and active.local is not None:
            # Inside the widest range that the dates can mean, each subject's own clock decides.
            self._narrow(box, (_CHECK, active.local), 1)
        possible = not empty(box)
        needs = self.needs[place]
        sure: Box | None = None
        if needs is not None:
            sure = dict(box)
            for path, inside in needs.items():
                number = self._numbers[path]
                domain = self.domains[number]
                assert isinstance(domain, Domain)  # noqa: S101 - for the type checker
                allowed = domain.deliverable if inside else domain.scalars
                sure[number] = sure.get(number, domain.everything) & allowed
            sure = None if empty(sure) else sure
        for path in _names_of(self.rules[place]):
            # Without this value the rule cannot render, so it cannot win.
            number = self._numbers[path]
            box[number] = box.get(number, self.domains[number].everything) & ~self.domains[number].missing
        return Way(place, box, sure, exact=self.is_exact(box), possible=possible)

    def is_exact(self, box: Box) -> bool:
        """Whether the box is about stored values and the clock alone: no residual check, no model."""
        return not any(
            self.paths[n][0] == _CHECK or (self.paths[n][0] == "profile" and "." in self.paths[n][1]) for n in box
        )

    def is_check(self, number: int) -> bool:
        """Whether a name stands for a residual check."""
        return bool(self.paths[number][0] == _CHECK)

    def element(self, number: int) -> tuple[Path, Any] | None:
        """The list's path and the element, for a name that says whether a list holds something."""
        path = self.paths[number]
        return (path[1], path[3]) if path[0] == _ELEMENT else None


def empty(box: Box) -> bool:
    """Whether nothing is in the box."""
    return not all(box.values())


def met(a: Box, b: Box) -> Box:
    """What is in both boxes."""
    joined = dict(a)
    for number, cells in b.items():
        joined[number] = joined[number] & cells if number in joined else cells
    return joined


def _constant(node: AnyNode, symbols: Symbols) -> Any:
    try:
        return evaluate(node, View({}, {}, {}, 0), symbols)
    except Unknown:
        return None


def _names_of(rule: Rule) -> list[tuple[str, ...]]:
    """The names that stand alone in a `${}` of the rule's parameters: without one of them it cannot render."""
    roots = [e.root for p in rule.then.params.values() for e in expressions_of(p)]
    return [named(root.path) for root in roots if isinstance(root, Name) and root.path[0] in _READABLE]


def _needs(rule: Rule) -> dict[tuple[str, ...], bool] | None:
    """The names that must have a value for the rule to render, and whether inside a text; None when it takes more."""
    found: dict[tuple[str, ...], bool] = {}
    for param in rule.then.params.values():
        for expression, inside in _parts(param):
            root = expression.root
            if not isinstance(root, Name) or root.path[0] not in _READABLE:
                return None
            path = named(root.path)
            found[path] = found.get(path, False) or inside
    return found


def _parts(param: Param) -> Iterable[tuple[Expression, bool]]:
    expressions = expressions_of(param)
    whole = isinstance(param, Template) and len(param.parts) == 1
    return [(e, not whole) for e in expressions]
