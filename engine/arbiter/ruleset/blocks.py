"""What a block stores: of up to `MOST` branches, which bits each value of each attribute switches on and off.

Law: branches in, plain data out; equal branches give equal bytes, so that a block is known by its content. The index
law is laid down here: a value has the bits whose literals on its attribute are *true* for it, and all bits that do not
mention the attribute; a missing attribute only bits that do not mention it or ask for its absence. Python holds
True == 1 == 1.0, so bits are kept by kind of value. Whoever opens a block makes masks of the bits: the bits of ten
thousand thresholds are a few kilobytes, their masks are megabytes.

Per attribute and kind: single points, and ranges from a start to an end. An edge right behind a value is the next value
of its kind (the next double, the string with a NUL behind it, the next microsecond), so that one kind of edge serves
`<`, `<=`, `>` and `>=`. A list or a map has bits to begin with; its members add some, and drop some.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.expr.view import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.ruleset.branches import Literal

MOST: Final = 3_600
"""Branches in a block: the masks of that many still come from Python's own small-object pools (512 bytes)."""

KINDS: Final[tuple[tuple[type, ...], ...]] = ((bool,), (int, float), (str,), (bytes,), (datetime,))

_FEW: Final = 24  # bits that are quicker to switch one by one than by a mask of them


class KindBits(msgspec.Struct, frozen=True, array_like=True):
    """The bits of one attribute among the values of one kind: those that hold always; those that ``points[i]`` alone
    switches on and off; those that go on and off at ``edges[i]``. Points and edges are sorted.
    """

    always: list[int]
    points: list[Any]
    on: list[list[int]]
    off: list[list[int]]
    edges: list[Any]
    starts: list[list[int]]
    ends: list[list[int]]


class MemberBits(msgspec.Struct, frozen=True, array_like=True):
    """Of lists and maps: the bits that hold without any member, those that ``points[i]`` adds, and those it drops."""

    alone: list[int]
    points: list[Any]
    adds: list[list[int]]
    drops: list[list[int]]


class AttributeBits(msgspec.Struct, frozen=True, array_like=True):
    """The bits of one attribute in one block: those that mention it, and those that ask for its absence alone.

    A branch that asks for a second member of the same list has that literal in the next `turn` of the attribute.
    """

    path: tuple[str, ...]
    turn: int
    mentions: list[int]
    kinds: tuple[KindBits, KindBits, KindBits, KindBits, KindBits]
    members: MemberBits
    absent: list[int]


class BlockBits(msgspec.Struct, frozen=True, array_like=True):
    """A block of `size` branches. `attributes` are encoded `AttributeBits`: a reader may pause between them."""

    size: int
    attributes: list[msgspec.Raw]


def mask_of(bits: Iterable[int], size: int) -> int:
    """One integer with the given bits set, built in linear time."""
    raw = bytearray((size + 7) // 8)
    for bit in bits:
        raw[bit >> 3] |= 1 << (bit & 7)
    return int.from_bytes(raw, "little")


def switched(mask: int, on: Sequence[int], off: Sequence[int], size: int) -> int:
    """The mask with some bits on, then some off."""
    if len(on) + len(off) > _FEW:
        return (mask | mask_of(on, size)) & ~mask_of(off, size)
    for bit in on:
        mask |= 1 << bit
    for bit in off:
        mask &= ~(1 << bit)
    return mask


def block_of(branches: Sequence[Sequence[Literal]]) -> BlockBits:
    """The block of these branches, each a conjunction of literals; bit i is branch i."""
    asked: dict[tuple[tuple[str, ...], int], dict[int, list[Literal]]] = {}
    for bit, literals in enumerate(branches):
        turns: dict[tuple[str, ...], int] = {}
        for literal in literals:
            turn = 0
            if literal.test == "contains":
                turn = turns.get(literal.path, 0)
                turns[literal.path] = turn + 1
            asked.setdefault((literal.path, turn), {}).setdefault(bit, []).append(literal)
    encode = msgspec.msgpack.encode
    drawn = [_attribute(path, turn, bits) for (path, turn), bits in sorted(asked.items())]
    return BlockBits(len(branches), [msgspec.Raw(encode(each)) for each in drawn])


def _attribute(path: tuple[str, ...], turn: int, bits: dict[int, list[Literal]]) -> AttributeBits:
    asks_absence = [b for b, literals in bits.items() if all(x.test == "absent" for x in literals)]
    asks_presence = {b: literals for b, literals in bits.items() if not any(x.test == "absent" for x in literals)}
    first, second, third, fourth, fifth = (each.bits() for each in _drawn(asks_presence))
    return AttributeBits(
        path=path,
        turn=turn,
        mentions=list(bits),
        kinds=(first, second, third, fourth, fifth),
        members=_members(asks_presence),
        absent=asks_absence,
    )


class _Kind:
    """Where the bits of one attribute hold among the values of one kind, while they are drawn."""

    __slots__ = ("always", "ends", "kind", "off", "on", "starts")

    def __init__(self, kind: tuple[type, ...]) -> None:
        self.kind = kind
        self.always: list[int] = []
        self.on: dict[Any, list[int]] = {}
        self.off: dict[Any, list[int]] = {}
        self.starts: dict[Any, list[int]] = {}
        self.ends: dict[Any, list[int]] = {}

    def add(self, bit: int, literals: Sequence[Literal]) -> None:
        """Draw one bit, which holds where all of its literals do."""
        need = _requirement(self.kind, literals)
        if need is None:
            return
        if need.only is not None:
            for value in need.only:
                self.on.setdefault(value, []).append(bit)
            return
        for value in need.never:
            self.off.setdefault(value, []).append(bit)
        if need.low is None:
            self.always.append(bit)
        else:
            self.starts.setdefault(need.low, []).append(bit)
        if need.high is not None:
            self.ends.setdefault(need.high, []).append(bit)

    def bits(self) -> KindBits:
        """All that was drawn."""
        points, edges = sorted({*self.on, *self.off}), sorted({*self.starts, *self.ends})
        return KindBits(
            self.always,
            points, [self.on.get(value, []) for value in points], [self.off.get(value, []) for value in points],
            edges, [self.starts.get(edge, []) for edge in edges], [self.ends.get(edge, []) for edge in edges],
        )  # fmt: skip


def _drawn(bits: dict[int, list[Literal]]) -> Sequence[_Kind]:
    """All kinds with all bits. Most bits have one literal on an attribute, which speaks of one kind or of all alike."""
    kinds = [_Kind(kind) for kind in KINDS]
    by_class = {each: kind for kind in kinds for each in kind.kind}
    for bit, literals in bits.items():
        test, values = literals[0].test, literals[0].values
        if len(literals) > 1 or test == "ne":
            for kind in kinds:
                kind.add(bit, literals)
        elif test == "has":
            for kind in kinds:
                kind.always.append(bit)
        elif test == "eq":
            for kind in dict.fromkeys(by_class[value.__class__] for value in values):
                kind.add(bit, literals)
        elif test not in {"contains", "lacks"}:
            by_class[values[0].__class__].add(bit, literals)
    return kinds


def _members(bits: dict[int, list[Literal]]) -> MemberBits:
    """A list or a map differs from every constant and has no order with any; what it contains is looked at."""
    on: dict[tuple[str, Any], list[int]] = {}
    off: dict[tuple[str, Any], list[int]] = {}
    alone: list[int] = []
    for bit, literals in bits.items():
        if not all(x.test in {"ne", "has", "contains", "lacks"} for x in literals):
            continue
        wanted = [x.values[0] for x in literals if x.test == "contains"]
        for value in wanted:
            on.setdefault(_keyed(value), []).append(bit)
        for literal in literals:
            if literal.test == "lacks":
                off.setdefault(_keyed(literal.values[0]), []).append(bit)
        if not wanted:
            alone.append(bit)
    keys = sorted({*on, *off})
    points = [value for _, value in keys]
    return MemberBits(alone, points, [on.get(key, []) for key in keys], [off.get(key, []) for key in keys])


def _keyed(value: Any) -> tuple[str, Any]:
    kind = next(kind for kind in KINDS if value.__class__ in kind)
    return kind[0].__name__, value


class _Requirement(msgspec.Struct):
    """What one bit asks of values of one kind: one of `only`, or in [low, high) and none of `never`."""

    low: Any = None
    high: Any = None
    only: set[Any] | None = None
    never: set[Any] = msgspec.field(default_factory=set)


def _requirement(kind: tuple[type, ...], literals: Sequence[Literal]) -> _Requirement | None:
    """The conjunction of a bit's literals on one attribute for one kind of value; None when nothing satisfies it."""
    need = _Requirement()
    for literal in literals:
        values = [v for v in literal.values if v.__class__ in kind]
        match literal.test:
            case "eq":
                need.only = set(values) if need.only is None else need.only & set(values)
            case "ne":
                need.never |= set(values)
            case "contains" | "lacks":
                return None
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
    if value.__class__ is int and abs(value) > EXACT:
        return value + 1  # only the clock's µs get there, and they are whole
    return math.nextafter(value, math.inf)
