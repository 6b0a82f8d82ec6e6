"""The bitmap index: which branches can still be true for this subject, in one AND per attribute.

Law: bits in, bits out; it knows branches by number and attributes by path, nothing of rules, models or requests. The
index law: an attribute's mask for a value holds the bits whose literals on that attribute are *true* for it, and all
bits that do not mention it; the mask for a missing attribute holds only bits that do not mention it or ask for its
absence. Python holds True == 1 == 1.0, so tables are kept by kind of value.

Per attribute and kind: exact points in a dict, ranges as masks between sorted edges found by bisection. An edge right
behind a value is the next value of its kind (the next double, the string with a NUL behind it, the next microsecond),
so that one kind of edge serves `<`, `<=`, `>` and `>=`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.generated import function_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.branches import Branch, Literal

_KINDS: tuple[tuple[type, ...], ...] = ((bool,), (int, float), (str,), (bytes,), (datetime,))
_MISSING = object()
_LOOKS = 4  # attributes between two looks whether anything is left: a look costs a tenth of a look-up


class Table(msgspec.Struct, frozen=True):
    """One kind's masks for one attribute: `exact` by value, else `spans[bisect_right(edges, value)]`."""

    exact: dict[Any, int]
    edges: list[Any]
    spans: list[int]


class Attribute(msgspec.Struct, frozen=True):
    """The masks of one attribute: by class of value, for any other value, and for a missing one."""

    path: tuple[str, ...]
    tables: dict[type, Table]
    other: int
    missing: int


class Index:
    """The masks of all attributes that the branches of one decision point test."""

    def __init__(self, branches: Sequence[Branch], symbols: Symbols, label: str) -> None:
        by_path: dict[tuple[str, ...], dict[int, list[Literal]]] = {}
        for bit, branch in enumerate(branches):
            for literal in branch.literals:
                by_path.setdefault(literal.path, {}).setdefault(bit, []).append(literal)
        self.everything = (1 << len(branches)) - 1
        self.attributes = tuple(_attribute(path, bits, self.everything) for path, bits in sorted(by_path.items()))
        self.match: Callable[[View], int] = _matcher(self, symbols, label)
        """The bits that can be true for a view: every bit whose literals all hold."""


def _attribute(path: tuple[str, ...], bits: dict[int, list[Literal]], everything: int) -> Attribute:
    silent = everything & ~_mask_of(bits, everything)
    asks_absence = [b for b, literals in bits.items() if all(x.test == "absent" for x in literals)]
    asks_presence = {b: literals for b, literals in bits.items() if not any(x.test == "absent" for x in literals)}
    tables: dict[type, Table] = {}
    for kind in _KINDS:
        table = _table(kind, asks_presence, silent, everything)
        tables |= dict.fromkeys(kind, table)
    # A value of a kind without tables (a list, a map) differs from every constant, and has no order with any.
    loose = [b for b, literals in asks_presence.items() if all(x.test in {"ne", "has"} for x in literals)]
    return Attribute(path, tables, silent | _mask_of(loose, everything), silent | _mask_of(asks_absence, everything))


def _mask_of(bits: Iterable[int], everything: int) -> int:
    """One integer with the given bits set, built in linear time."""
    raw = bytearray((everything.bit_length() + 7) // 8)
    for bit in bits:
        raw[bit >> 3] |= 1 << (bit & 7)
    return int.from_bytes(raw, "little")


def _table(kind: tuple[type, ...], bits: dict[int, list[Literal]], silent: int, everything: int) -> Table:
    points: dict[Any, tuple[list[int], list[int]]] = {}  # value → bits that hold only there, bits that fail there
    starts: dict[Any, list[int]] = {}
    ends: dict[Any, list[int]] = {}
    always: list[int] = []
    for bit, literals in bits.items():
        need = _requirement(kind, literals)
        if need is None:
            continue
        if need.only is not None:
            for value in need.only:
                points.setdefault(value, ([], []))[0].append(bit)
            continue
        for value in need.never:
            points.setdefault(value, ([], []))[1].append(bit)
        if need.low is None:
            always.append(bit)
        else:
            starts.setdefault(need.low, []).append(bit)
        if need.high is not None:
            ends.setdefault(need.high, []).append(bit)
    edges = sorted({*starts, *ends})
    mask = silent | _mask_of(always, everything)
    spans = [mask]
    for edge in edges:
        # Bits go on at their low edge and off at their high one; a range is never empty, so the two differ.
        mask = (mask | _mask_of(starts.get(edge, ()), everything)) & ~_mask_of(ends.get(edge, ()), everything)
        spans.append(mask)
    exact = {}
    for value, (on, off) in points.items():
        around = spans[bisect_right(edges, value)]
        exact[value] = (around | _mask_of(on, everything)) & ~_mask_of(off, everything)
    return Table(exact, edges, spans)


class _Requirement(msgspec.Struct):
    """What one bit asks of values of one kind: one of `only`, or in [low, high) and none of `never`."""

    low: Any = None
    high: Any = None
    only: set[Any] | None = None
    never: set[Any] = msgspec.field(default_factory=set)


def _requirement(kind: tuple[type, ...], literals: list[Literal]) -> _Requirement | None:
    """The conjunction of a bit's literals on one attribute for one kind of value; None when nothing satisfies it."""
    need = _Requirement()
    for literal in literals:
        values = [v for v in literal.values if v.__class__ in kind]
        match literal.test:
            case "eq":
                need.only = set(values) if need.only is None else need.only & set(values)
            case "ne":
                need.never |= set(values)
            case "lt" | "le" | "gt" | "ge":
                if not values:
                    return None
                edge = values[0] if literal.test in {"lt", "ge"} else _behind(values[0])
                if literal.test in {"lt", "le"}:
                    need.high = edge if need.high is None else min(need.high, edge)
                else:
                    need.low = edge if need.low is None else max(need.low, edge)
    if need.low is not None and need.high is not None and need.low >= need.high:
        return None
    if need.only is not None:
        need.only = {v for v in need.only - need.never if _inside(v, need)}
        return need if need.only else None
    return need


def _inside(value: Any, need: _Requirement) -> bool:
    return (need.low is None or value >= need.low) and (need.high is None or value < need.high)


def _behind(value: Any) -> Any:
    """The least value of its kind above `value`."""
    if value.__class__ is str:
        return value + "\0"
    if value.__class__ is bytes:
        return value + b"\0"
    if value.__class__ is datetime:
        return value + timedelta(microseconds=1)
    return math.nextafter(value, math.inf)


def _matcher(index: Index, symbols: Symbols, label: str) -> Callable[[View], int]:
    """One generated function that looks every attribute up and ANDs the masks: a loop would pay for each step twice."""
    names: dict[str, Any] = {"M": _MISSING, "bisect": bisect_right, "EVERYTHING": index.everything}
    lines = ["def match(v):", "    p = v.profile; c = v.context; f = v.features", "    mask = EVERYTHING"]
    for place, attribute in enumerate(index.attributes):
        root, name = attribute.path
        key, unit, source = name, 0, "p" if root == "profile" else "c"
        if root == "features":
            feature = symbols.features[name]
            key, unit, source = feature.key, feature.unit, "f"
        names[f"missing{place}"] = attribute.missing
        lines += [f"    x = {source}.get({key!r}, M)", "    if x is M:", f"        mask &= missing{place}", "    else:"]
        if unit:
            lines.append(f"        x = (v.clock - x) / {unit}")
        lines += [f"        {line}" for line in _look_up(attribute, place, names)]
        if place % _LOOKS == _LOOKS - 1:
            lines += ["    if not mask:", "        return 0"]
    return function_of(["\n".join([*lines, "    return mask", ""])], names, f"index of {label}")


def _look_up(attribute: Attribute, place: int, names: dict[str, Any]) -> list[str]:
    """The lines that AND the mask of a present value `x`: a branch per kind whose values the attribute tells apart."""
    lines, word = ["k = x.__class__"], "if"
    alike: dict[type, int] = {}  # kinds whose values all have one mask
    for number, kind in enumerate(_KINDS):
        table = attribute.tables[kind[0]]
        if not table.exact and not table.edges:
            alike |= dict.fromkeys(kind, table.spans[0])
            continue
        exact, edges, spans = (f"{part}{place}_{number}" for part in ("exact", "edges", "spans"))
        names |= {exact: table.exact, edges: table.edges, spans: table.spans}
        lines.append(f"{word} {' or '.join(f'k is {each.__name__}' for each in kind)}:")
        if not table.edges:
            names[spans] = table.spans[0]
            lines.append(f"    mask &= {exact}.get(x, {spans})")
        elif not table.exact:
            lines.append(f"    mask &= {spans}[bisect({edges}, x)]")
        else:
            lines += [f"    m = {exact}.get(x)", f"    mask &= {spans}[bisect({edges}, x)] if m is None else m"]
        word = "elif"
    names |= {f"alike{place}": alike, f"other{place}": attribute.other, "datetime": datetime}
    rest = f"mask &= alike{place}.get(k, other{place})"
    return [*lines, "else:", f"    {rest}"] if word == "elif" else [lines[0], rest]
