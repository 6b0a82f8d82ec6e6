"""What a rule asks of each thing that it looks at: its condition as tests of terms.

Law: trees in, tests out; no values of terms, no masks. A term is whatever stands on one side of a comparison with
constants, a name mostly; a part of a condition that is no such comparison is a term of its own, true or false. Terms
are told apart by what they say, never by where they stand. Two terms are taken to have nothing to do with each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.expr.syntax import conjuncts, with_children
from arbiter.expr.tree import AnyNode, Call, Const, ListOf, Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.expr.tree import Expression
    from arbiter.ruleset.tables.regions import Value
    from arbiter.ruleset.terms import Active

_TESTS = {"_<_": "lt", "_<=_": "le", "_>_": "gt", "_>=_": "ge", "_==_": "eq", "_!=_": "ne", "@in": "eq"}
_FLIPPED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_", "_==_": "_==_", "_!=_": "_!=_"}
_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


class Test(msgspec.Struct, frozen=True):
    """A term is below or above a constant (lt, le, gt, ge), or equals any or none of some (eq, ne)."""

    test: str
    values: tuple[Value, ...]


class Both(msgspec.Struct, frozen=True):
    """Two statements of one term, of which both hold, or either."""

    left: Statement
    right: Statement
    all: bool


Statement = Test | Both
TRUE = Test("eq", (("bool", True),))
FALSE = Test("eq", (("bool", False),))


class Term:
    """What is tested: equal wherever it stands. `text` is how it was written first."""

    __slots__ = ("node", "text")

    def __init__(self, node: AnyNode, text: str) -> None:
        self.node = node
        self.text = text

    def __eq__(self, other: object) -> bool:
        """Whether both say the same."""
        return isinstance(other, Term) and self.node == other.node

    def __hash__(self) -> int:
        """As for equality."""
        return hash(self.node)


def term_of(expression: Expression) -> Term:
    """An expression as a term."""
    return Term(_placeless(expression.root), expression.source)


def statements(when: Iterable[Expression], active: Active | None) -> Iterator[tuple[Term, Statement]]:
    """What a condition and dates say, term by term: all of it must hold."""
    for expression in when:
        for node in conjuncts(expression.root):
            found, statement = _stated(node, wanted=True)
            yield Term(_placeless(found), expression.source[slice(*found.span)]), statement
    if active is None:
        return
    clock, dates = (_NOW, active) if active.local is None else (_LOCAL, active.local)
    for test, edge in (("ge", dates.start), ("lt", dates.until)):
        if edge is not None:
            yield clock, Test(test, (("timestamp", edge),))


def _stated(node: AnyNode, *, wanted: bool) -> tuple[AnyNode, Statement]:
    """The term that a condition speaks of, and what it says of it when it is to be `wanted`."""
    match node:
        case Call(function="!_", args=(arg,)):
            return _stated(arg, wanted=not wanted)
        case Call(function="_&&_" | "_||_", args=(left, right)):
            (term, first), (other, second) = _stated(left, wanted=wanted), _stated(right, wanted=wanted)
            if _placeless(term) == _placeless(other):
                return term, Both(first, second, (node.function == "_&&_") is wanted)
        case Call(function="@in", args=(term, ListOf(items=items))) if all(isinstance(i, Const) for i in items):
            return _compared("@in", term, [i for i in items if isinstance(i, Const)], wanted=wanted)
        case Call(function=function, args=(term, Const() as constant)) if function in _FLIPPED:
            return _compared(function, term, [constant], wanted=wanted)
        case Call(function=function, args=(Const() as constant, term)) if function in _FLIPPED:
            return _compared(_FLIPPED[function], term, [constant], wanted=wanted)
    return node, TRUE if wanted else FALSE


def _compared(function: str, term: AnyNode, constants: list[Const], *, wanted: bool) -> tuple[AnyNode, Statement]:
    test = _TESTS[function] if wanted else _NEGATED[_TESTS[function]]
    return term, Test(test, tuple((c.kind, c.value) for c in constants))


def _placeless(node: AnyNode) -> AnyNode:
    """The tree without its places."""
    return with_children(msgspec.structs.replace(node, span=(0, 0)), _placeless)


_NOW = Term(Name(("now",), "timestamp"), "now")
_LOCAL = Term(Name(("now", "local"), "timestamp"), "now on the subject's clock")
