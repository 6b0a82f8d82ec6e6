"""The values that one name can have, cut into cells: no literal tells two values of one cell apart.

Law: literals and a declared type in, sets of cells out. A set is an integer with one bit a cell. Cells are exact: each
has a value of its own, and what no declared value can be has no cell.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.types import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.ruleset.branches import Literal

Cells = int
MISSING: Final = object()
LISTED: Final = object()  # stands for a list or a map; what it holds are names of their own, see `space`
UNNAMED: Final = object()  # a value of a type that no literal speaks of

_KIND: Final[dict[type, str]] = {
    bool: "bool", int: "number", float: "number", str: "string", bytes: "bytes", datetime: "timestamp",
}  # fmt: skip
_OF_TYPE: Final = {"int": "number", "double": "number"}
_SCALARS: Final = ("number", "string", "bool", "timestamp", "bytes")
_ORDERS: Final = frozenset({"lt", "le", "gt", "ge"})


class Allowed(msgspec.Struct, frozen=True):
    """What a name can hold: a type (``dyn``: any), the only values (empty: any), the least number.

    `always` is the number that it is for who has none of its own: it is never missing then. Whole numbers that may be
    chosen at will lie `stride` apart.
    """

    type: str = "dyn"
    values: tuple[Any, ...] = ()
    least: int | None = None
    always: int | None = None
    stride: int = 1


class Domain:
    """The cells of one name. `cells` has a value for each, or one of `MISSING`, `LISTED`, `UNNAMED`."""

    def __init__(self, literals: Iterable[Literal], allowed: Allowed) -> None:
        literals = list(literals)
        constants: dict[str, set[Any]] = {}
        ranged: set[str] = set()
        for literal in literals:
            for value in literal.values if literal.test not in {"contains", "lacks"} else ():
                kind = _KIND[value.__class__]
                constants.setdefault(kind, set()).add(value)
                if literal.test in _ORDERS:
                    ranged.add(kind)
        kinds: Sequence[str] = [kind for kind in _SCALARS if kind in constants]
        open_ended = allowed.type == "dyn"
        if not open_ended:
            kinds = [kind] if (kind := _OF_TYPE.get(allowed.type, allowed.type)) in _SCALARS else []
        lists = allowed.type in {"list", "map"} or (
            open_ended and any(literal.test in {"contains", "lacks"} for literal in literals)
        )
        self.cells: list[Any] = []
        self._lines: dict[str, tuple[int, list[Any]]] = {}
        for kind in kinds:
            line = _line(kind, constants.get(kind, set()), kind in ranged, allowed)
            self._lines[kind] = (len(self.cells), line)
            self.cells += line
        self.scalars = (1 << len(self.cells)) - 1
        self.listed = self._own(LISTED) if lists else 0
        unnamed = self._own(UNNAMED) if open_ended else 0
        self.present = self.scalars | self.listed | unnamed
        self.missing = self._own(MISSING) if allowed.always is None else 0
        self.everything = self.present | self.missing
        self.usual = self.missing.bit_length() - 1 if allowed.always is None else self._place(allowed.always, constants)
        """The cell of who says nothing of this name."""
        self.spare: Any = next((v for kind, v in _SPARE.items() if kind not in self._lines), _SPARE["list"])

    def _own(self, value: object) -> Cells:
        self.cells.append(value)
        return 1 << (len(self.cells) - 1)

    def _place(self, number: int, constants: dict[str, set[Any]]) -> int:
        """The cell in which a number lies; it becomes the cell's value."""
        _, line = self._lines["number"]
        place = bisect_left(line, number)
        if place < len(line) and line[place] == number:
            return place
        if place == len(line) or line[place] in constants.get("number", ()):
            place -= 1
        line[place] = self.cells[place] = type(line[place])(number)
        return place

    @property
    def deliverable(self) -> Cells:
        """The cells of values that can surely stand inside a text."""
        start, line = self._lines.get("bytes", (0, []))
        return self.scalars & ~(((1 << len(line)) - 1) << start)

    def holding(self, literal: Literal) -> Cells:
        """The cells whose values make the literal true."""
        match literal.test:
            case "eq":
                return self._points(literal.values)
            case "ne":
                return self.present & ~self._points(literal.values)
            case "has":
                return self.present
            case "absent":
                return self.missing
            case "contains" | "lacks":
                return self.listed
        (value,) = literal.values
        start, line = self._lines.get(_KIND[value.__class__], (0, []))
        cut = (bisect_left if literal.test in {"lt", "ge"} else bisect_right)(line, value)
        below = ((1 << cut) - 1) << start
        return below if literal.test in {"lt", "le"} else (((1 << len(line)) - 1) << start) & ~below

    def _points(self, values: Iterable[Any]) -> Cells:
        found = 0
        for value in values:
            start, line = self._lines.get(_KIND[value.__class__], (0, []))
            place = bisect_left(line, value)
            if place < len(line) and line[place] == value:
                found |= 1 << (start + place)
        return found


_SPARE: Final[dict[str, Any]] = {"string": "other", "number": 0, "bool": True, "timestamp": EPOCH, "list": []}


def _line(kind: str, constants: set[Any], ranged: bool, allowed: Allowed) -> list[Any]:  # noqa: FBT001 - an internal fact
    """Sorted values of one kind, one for each constant and one for each gap between, below and above them."""
    if allowed.values:
        return sorted({v for v in allowed.values if _KIND[v.__class__] == kind})
    if kind == "bool":
        return [False, True]
    if kind == "number":
        return _numbers(constants, allowed)
    known = sorted(constants)
    if not ranged:
        insort(known, _another(kind, constants))
        return known
    below, between, above = _GAPS[kind]
    line = [] if (least := below(known[0])) is None else [least]
    for lower, upper in pairwise(known):
        gap = between(lower, upper)
        line += [lower] if gap is None else [lower, gap]
    return [*line, known[-1], *(v for v in [above(known[-1])] if v is not None)]


def _another(kind: str, constants: set[Any]) -> Any:
    """A value of the kind that is none of the constants, as plain as can be."""
    first: Any = {"string": "other", "bytes": b"other", "timestamp": datetime.fromisoformat("2026-01-01T00:00:00Z")}[
        kind
    ]
    step: Any = {"string": "-", "bytes": b"-", "timestamp": timedelta(days=1)}[kind]
    while first in constants:
        first += step
    return first


def _numbers(constants: set[Any], allowed: Allowed) -> list[Any]:
    whole, least = allowed.type == "int", allowed.least
    known = sorted({v for v in constants if (not whole or v == int(v)) and (least is None or v >= least)})
    bounds = sorted(constants) if whole else known
    if not bounds:
        return [_typed(max(1, least or 0), allowed.type)]
    line: list[Any] = []
    for lower, upper in pairwise([None, *bounds, None]):
        gap = _whole_between(lower, upper, allowed) if whole else _between(lower, upper, least)
        if gap is not None:
            line.append(_typed(gap, allowed.type))
        if upper in known and upper is not None:
            line.append(_typed(upper, allowed.type))
    return line


def _whole_between(lower: Any, upper: Any, allowed: Allowed) -> int | None:
    """An integer strictly between two numbers, None where there is none; None for a side is no bound."""
    first: int | None = None if lower is None else math.floor(lower) + 1
    if allowed.least is not None:
        first = allowed.least if first is None else max(first, allowed.least)
    last: int | None = None if upper is None else math.ceil(upper) - 1
    if first is None:
        return None if last is None else last + 1 - allowed.stride
    far = first - 1 + allowed.stride
    if last is None:
        return far
    return None if first > last else far if far <= last else first


def _between(lower: Any, upper: Any, least: int | None) -> Any:
    """A number strictly between two, plain where one is."""
    if lower is None:
        gap = upper - 1
        if least is not None and gap < least:
            return None if upper <= least else (least + upper) / 2
        return gap
    if upper is None:
        return lower + 1
    if (whole := math.floor(lower) + 1) < upper:
        return whole
    middle = (lower + upper) / 2
    if lower < middle < upper:
        return middle
    following = math.nextafter(lower, math.inf)
    return following if following < upper else None


def _typed(value: Any, kind: str) -> Any:
    if kind == "double":
        return float(value)
    return int(value) if value == int(value) and (kind == "int" or abs(value) < 1 << 53) else value


def _text_before(first: str) -> str | None:
    return next((text for text in ("a", "A", "0", "") if text < first), None)


def _text_between(lower: Any, upper: Any) -> Any:
    tails: tuple[Any, ...] = ("-", "a", "0", " ", "\0") if isinstance(lower, str) else (b"-", b"a", b"0", b" ", b"\0")
    return next((lower + tail for tail in tails if lower + tail < upper), None)


def _moment_between(lower: datetime, upper: datetime) -> datetime | None:
    middle = lower + (upper - lower) / 2
    day = lower + timedelta(days=1)
    return day if day < upper else middle if lower < middle < upper else None


def _moment_beside(at: datetime, days: int) -> datetime | None:
    for step in (timedelta(days=days), timedelta(microseconds=days)):
        try:
            return at + step
        except OverflowError:
            continue
    return None


_GAPS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any], Callable[[Any], Any]]]] = {
    "string": (_text_before, _text_between, lambda last: last + "a"),
    "bytes": (lambda first: b"" if first else None, _text_between, lambda last: last + b"a"),
    "timestamp": (lambda first: _moment_beside(first, -1), _moment_between, lambda last: _moment_beside(last, 1)),
}
