"""A rule's condition as branches: an OR of ANDs of literals, so that each branch can have one bit in the index.

Law: pure tree work. Conditions go to negation normal form, segments are written out, and disjunctions become branches
as long as they stay few. Every branch holds only when the condition is *true*; unknown never makes a branch hold.
What cannot be answered by one look at one stored value stays a residual check.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.syntax import constant_value, walk
from arbiter.expr.tree import AnyNode, Call, Const, ListOf, Name
from arbiter.expr.view import EXACT
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.expr.view import Symbols

MAX_BRANCHES = 16
NOW = ("now",)
_LAST_MICROS = to_micros(datetime.max.replace(tzinfo=UTC))  # there is no timestamp behind it
_FLIP = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_", "_==_": "_==_", "_!=_": "_!=_"}
_NEGATE = {"_<_": "ge", "_<=_": "gt", "_>_": "le", "_>=_": "lt", "_==_": "ne", "_!=_": "eq"}
_PLAIN = {"_<_": "lt", "_<=_": "le", "_>_": "gt", "_>=_": "ge", "_==_": "eq", "_!=_": "ne"}
_INDEXED_ROOTS = frozenset({"profile", "account", "context", "features", "managed", "experiments"})
_INDEXED_KINDS = frozenset({"bool", "int", "double", "string", "bytes", "timestamp"})


class Literal(msgspec.Struct, frozen=True):
    """One test of one name that the index answers. `test` is eq, ne (any of, none of `values`), lt, le, gt, ge (of
    one value), contains, lacks (a list or a map's keys, one value), has or absent.

    The request's clock has the path `NOW` and is compared in µs since the epoch.
    """

    path: tuple[str, ...]
    test: str
    values: tuple[Any, ...] = ()


class Check(msgspec.Struct, frozen=True):
    """A residual check: `node` must be true, or false where `wanted` is False. `models` are the models it reads."""

    node: AnyNode
    wanted: bool
    models: frozenset[str]


class Branch(msgspec.Struct, frozen=True):
    """One way in which a condition can be true: all literals and all checks hold."""

    literals: tuple[Literal, ...]
    checks: tuple[Check, ...]

    @property
    def models(self) -> frozenset[str]:
        """The models that the branch needs."""
        return frozenset(m for check in self.checks for m in check.models)


def branches_of(conditions: Sequence[AnyNode], symbols: Symbols) -> list[Branch]:
    """The branches of a conjunction of conditions, cheapest first; one branch without literals when there are none."""
    product: list[tuple[Literal | Check, ...]] = [()]
    pending: list[tuple[AnyNode, bool]] = [(node, True) for node in reversed(conditions)]
    expander = _Expander(symbols)
    late: list[tuple[AnyNode, list[tuple[Literal | Check, ...]]]] = []
    while pending:
        node, wanted = pending.pop()
        options = expander.expand(node, wanted)
        if len(options) == 1:
            product = [_joined(done, options[0]) for done in product]
        elif options:
            late.append((node, options))
        else:
            return []
    for node, options in late:
        if len(product) * len(options) <= MAX_BRANCHES:
            product = [_joined(done, option) for done in product for option in options]
        else:
            whole = Check(node, True, models_of([node], symbols))
            product = [(*done, whole) for done in product]
    found = [
        Branch(tuple(p for p in parts if isinstance(p, Literal)), tuple(p for p in parts if isinstance(p, Check)))
        for parts in product
    ]
    return sorted(found, key=lambda b: (bool(b.models), bool(b.checks)))


def models_of(nodes: Iterable[AnyNode], symbols: Symbols) -> frozenset[str]:
    """The models that evaluating `nodes` may read, through segments."""
    return frozenset(path[1] for path in reads_of(nodes, symbols) if path[0] == "models")


def reads_of(nodes: Iterable[AnyNode], symbols: Symbols) -> frozenset[tuple[str, ...]]:
    """Every outside name that evaluating `nodes` may read, with segments followed and left out, and experiments
    followed to what tells who is in them.
    """
    found: set[tuple[str, ...]] = set()
    pending, seen, followed = list(nodes), set(), set()
    while pending:
        for node in walk(pending.pop()):
            if not isinstance(node, Name):
                continue
            if node.path[0] != "segments":
                found.add(node.path)
                if node.path[0] == "experiments" and node.path[1] not in followed:
                    followed.add(node.path[1])
                    pending.extend(symbols.experiments.get(node.path[1], ()))
            elif node.path[1] not in seen:
                seen.add(node.path[1])
                pending.append(symbols.segment(node.path[1]))
    return frozenset(found)


class _Expander:
    """Writes conditions out as disjunctions of conjunctions. A segment is written out once however often it is named:
    segments of segments would double with each level.
    """

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._segments: dict[tuple[str, bool], list[tuple[Literal | Check, ...]]] = {}

    def expand(self, node: AnyNode, wanted: bool) -> list[tuple[Literal | Check, ...]]:  # noqa: FBT001
        """The disjunction of conjunctions that makes `node` `wanted`; an empty list when nothing does."""
        match node:
            case Call(function="!_", args=(arg,)):
                return self.expand(arg, not wanted)
            case Call(function="_&&_" | "_||_", args=(left, right)):
                ways, other = self.expand(left, wanted), self.expand(right, wanted)
                if (node.function == "_&&_") is wanted:
                    if len(ways) * len(other) <= MAX_BRANCHES:
                        return [_joined(a, b) for a in ways for b in other]
                elif len(ways) + len(other) <= MAX_BRANCHES:
                    return _merged([*ways, *other])
            case Name(path=("segments", name)):
                if (name, wanted) not in self._segments:
                    self._segments[name, wanted] = self.expand(self._symbols.segment(name), wanted)
                return self._segments[name, wanted]
            case Const(kind="bool", value=value):
                return [()] if value is wanted else []
            case _:
                ways = _ways(node, wanted)
                if ways:
                    return ways
        return [(Check(node, wanted, models_of([node], self._symbols)),)]


def _joined(a: tuple[Literal | Check, ...], b: tuple[Literal | Check, ...]) -> tuple[Literal | Check, ...]:
    """Both, each part once. By identity: as values, literals on 1 and on true are equal."""
    return tuple({id(part): part for part in (*a, *b)}.values())


def _merged(ways: list[tuple[Literal | Check, ...]]) -> list[tuple[Literal | Check, ...]]:
    """Lone equalities on one name become one literal: ``a == 1 || a == 2`` is one branch."""
    equal: dict[tuple[str, ...], tuple[Any, ...]] = {}
    rest: list[tuple[Literal | Check, ...]] = []
    for way in ways:
        match way:
            case (Literal(path=path, test="eq", values=values),):
                equal[path] = (*equal.get(path, ()), *values)
            case _:
                rest.append(way)
    return [*((Literal(path, "eq", values),) for path, values in equal.items()), *rest]


def _ways(node: AnyNode, wanted: bool) -> list[tuple[Literal | Check, ...]]:  # noqa: FBT001 - the wanted truth
    """The literals that say the same as one test; none when the index cannot answer it."""
    match node:
        case Call(function="startsWith", args=(Name(path=path), Const(kind="string", value=str(prefix)))):
            return _beginning(path, prefix, wanted) if _indexed(path) else []
        case _:
            literal = _literal(node, wanted)
            return [(literal,)] if literal else []


def _beginning(path: tuple[str, ...], prefix: str, wanted: bool) -> list[tuple[Literal | Check, ...]]:  # noqa: FBT001
    """Strings that begin alike lie side by side: a prefix is a range of strings, and what does not have it lies below
    or above.
    """
    above = _first_above(prefix)
    if wanted:
        return [(Literal(path, "ge", (prefix,)), *([Literal(path, "lt", (above,))] if above else []))]
    return [(Literal(path, "lt", (prefix,)),), *([(Literal(path, "ge", (above,)),)] if above else [])]


def _first_above(prefix: str) -> str | None:
    """The least string above all that begin with `prefix`; None when there is none. Surrogates are no characters."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last <= sys.maxunicode:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= last < 0xE000 else last)  # noqa: PLR2004 - the surrogates
        prefix = prefix[:-1]
    return None


def _literal(node: AnyNode, wanted: bool) -> Literal | None:  # noqa: FBT001 - the wanted truth
    match node:
        case Name(path=path) if _indexed(path):
            return Literal(path, "eq", (wanted,))
        case Call(function="has", args=(Name(path=path),)) if _indexed(path):
            return Literal(path, "has" if wanted else "absent")
        case Call(function="@in", args=(Name(path=path), ListOf(items=items))) if _indexed(path):
            if all(_simple(item) for item in items):
                values = tuple(constant_value(i) for i in items if isinstance(i, Const))
                return Literal(path, "eq" if wanted else "ne", values)
        case Call(function="@in", args=(Const() as constant, Name(path=path))) if _indexed(path) and _simple(constant):
            return Literal(path, "contains" if wanted else "lacks", (constant_value(constant),))
        case Call(function=function, args=(Name(path=path), Const() as constant)) if function in _PLAIN:
            return _comparison(path, function, constant, wanted)
        case Call(function=function, args=(Const() as constant, Name(path=path))) if function in _FLIP:
            return _comparison(path, _FLIP[function], constant, wanted)
    return None


def _comparison(path: tuple[str, ...], function: str, constant: Const, wanted: bool) -> Literal | None:  # noqa: FBT001
    test = _PLAIN[function] if wanted else _NEGATE[function]
    if path == NOW and constant.kind == "timestamp" and _simple(constant):
        return Literal(path, test, (constant.value,))
    if not _indexed(path):
        return None
    # Two bools have an order in CEL, but a negated one is not worth a place in the index.
    if not _simple(constant) or (constant.kind == "bool" and test not in {"eq", "ne"}):
        return None
    return Literal(path, test, (constant_value(constant),))


def _indexed(path: tuple[str, ...]) -> bool:
    return path[0] in _INDEXED_ROOTS


def _simple(node: AnyNode) -> bool:
    """Whether a constant can be a key or an edge of the index exactly."""
    if not isinstance(node, Const) or node.kind not in _INDEXED_KINDS:
        return False
    if node.kind == "timestamp":
        return bool(node.value < _LAST_MICROS)
    return node.kind not in {"int", "double"} or abs(node.value) <= EXACT
