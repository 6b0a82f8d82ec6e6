"""Expressions that differ in their literals alone are parsed and checked once.

Law: gives exactly what the slow way (`check`) gives, or nothing. The slow way reads the first expression of a shape;
for the next one, its literals and places are put into that tree. This comes to the same because

- a shape is the text between the literals, letter by letter, and the kind of each literal. The literals are those that
  cel-cpp cannot take for anything else: short decimal numbers, and strings in one pair of quotes without escapes,
  quotes or brackets. No other quote and no comment may stand in the text. So the lexer finds the same tokens, the
  parser the same tree, and the checker, which knows kinds and no values, the same types;
- our own part looks at the value of a literal only in functions that are not among `_BLIND`, and where it looks for
  brackets, no such literal holds one;
- whatever has a mistake is left to the slow way, which words it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.expr.tree import AnyNode, Call, Const, ListOf, Name, Select

if TYPE_CHECKING:
    from collections.abc import Callable

    Shifts = list[int]
    Values = list[Any]
    Make = Callable[[Shifts, Values], AnyNode]

# What the slow way bounds by its length is longer than this.
_LONGEST: Final = 500
_LITERAL: Final = re.compile(
    r"""(?<![\w."'])([0-9]{1,15}(?:\.[0-9]{1,15})?(?![\w.])"""
    r"""|"[^"'\\`(){}\[\]\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*"(?!["'\w])"""
    r"""|'[^"'\\`(){}\[\]\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*'(?!["'\w]))"""
)
_BETWEEN: Final = re.compile(r"""["'\\`{}]|//""")
# Functions for which neither cel-cpp's checker nor ours looks at the value of an argument.
_BLIND: Final = frozenset(
    {"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_&&_", "_||_", "!_", "_?_:_", "_[_]", "_+_", "_-_", "_*_"}
    | {"_/_", "_%_", "has", "size", "startsWith", "endsWith", "contains"}
)


class Shaped(msgspec.Struct, frozen=True, gc=False):
    """An expression cut at its literals: `key` is equal for expressions of one shape."""

    key: tuple[str, ...]
    literals: list[str]


class _Unfit(Exception):
    """The tree holds something that is not known to be the same for other literals."""


def cut(source: str) -> Shaped | None:
    """The shape of an expression; None when it is too long to have one, or without literals."""
    if len(source) > _LONGEST:
        return None
    parts = _LITERAL.split(source)
    literals = parts[1::2]
    if not literals:
        return None
    parts[1::2] = ["s" if text[0] in "\"'" else "d" if "." in text else "i" for text in literals]
    return Shaped(tuple(parts), literals)


class Shape:
    """How to make the tree of any expression of one shape."""

    def __init__(self, lengths: list[int], make: Make) -> None:
        self._lengths = lengths
        self._make = make

    def tree(self, shaped: Shaped) -> AnyNode:
        """The tree of an expression that has this shape."""
        # The i-th shift is how far what stands between the literals i-1 and i lies from where it did.
        longer = (len(text) - length for text, length in zip(shaped.literals, self._lengths, strict=True))
        return self._make([0, *accumulate(longer)], list(map(_value, shaped.literals)))


def shape_of(source: str, shaped: Shaped, root: AnyNode) -> Shape | None:
    """The shape of an expression whose tree is `root`; None when other literals might lead to another tree."""
    if any(_BETWEEN.search(text) for text in shaped.key[::2]):
        return None
    maker = _Maker(source, shaped)
    try:
        shape = Shape([len(text) for text in shaped.literals], maker.make(root))
    except _Unfit:
        return None
    # Each literal stands in the tree once, and the tree can be made again.
    whole = sorted(maker.used) == list(range(len(shaped.literals)))
    return shape if whole and shape.tree(shaped) == root else None


def _value(literal: str) -> Any:
    if literal[0] in "\"'":
        return literal[1:-1]
    return float(literal) if "." in literal else int(literal)


class _Maker:
    """Turns a tree into functions that make it again from shifts and values."""

    def __init__(self, source: str, shaped: Shaped) -> None:
        self.used: list[int] = []
        self._source = source
        self._starts: list[int] = []
        self._ends: list[int] = []
        at = 0
        for text, literal in zip(shaped.key[::2], shaped.literals, strict=False):
            self._starts.append(at + len(text))
            at += len(text) + len(literal)
            self._ends.append(at)

    def make(self, node: AnyNode) -> Make:
        start, end = node.span
        if end <= self._starts[0] and isinstance(node, (Name, Const)):
            return lambda _shifts, _values: node  # no literal before its end: it may be shared
        before, after = self._shift(start), self._shift(end)
        match node:
            case Const(kind=kind, value=value):
                return self._const(kind, value, start, end)
            case Name(path=path, type=kind):
                return lambda shifts, _: Name(path, kind, (start + shifts[before], end + shifts[after]))
            case Select(operand=operand, field=field, test=test):
                inner = self.make(operand)
                return lambda shifts, values: Select(
                    inner(shifts, values), field, test, (start + shifts[before], end + shifts[after])
                )
            case ListOf(items=items):
                makes = tuple(map(self.make, items))
                return lambda shifts, values: ListOf(
                    tuple([make(shifts, values) for make in makes]), (start + shifts[before], end + shifts[after])
                )
            case Call(function=function, args=args, method=method) if function in _BLIND:
                makes = tuple(map(self.make, args))
                return lambda shifts, values: Call(
                    function,
                    tuple([make(shifts, values) for make in makes]),
                    method,
                    (start + shifts[before], end + shifts[after]),
                )
        raise _Unfit

    def _const(self, kind: str, value: object, start: int, end: int) -> Make:
        before, after = self._shift(start), self._shift(end)
        if kind in {"bool", "null"}:
            return lambda shifts, _: Const(kind, value, (start + shifts[before], end + shifts[after]))
        # A sign is part of a number only where it stands right before it.
        signed = self._source[start] == "-"
        if before == len(self._starts) or (self._starts[before], self._ends[before]) != (start + signed, end):
            raise _Unfit
        self.used.append(before)
        if signed:
            return lambda shifts, values: Const(kind, -values[before], (start + shifts[before], end + shifts[after]))
        return lambda shifts, values: Const(kind, values[before], (start + shifts[before], end + shifts[after]))

    def _shift(self, offset: int) -> int:
        """How many literals end at or before an offset, which must not lie within one."""
        count = bisect_right(self._ends, offset)
        if count < len(self._starts) and self._starts[count] < offset:
            raise _Unfit
        return count
