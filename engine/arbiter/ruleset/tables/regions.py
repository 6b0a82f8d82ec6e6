"""The values of one term cut into atoms, such that every test of the term is true of all of an atom or of none of it.

Law: a set of atoms is one integer, bit by bit; values and tests in, bits out, and a value of each atom to show. It
knows one term at a time, nothing of rules, and nothing of a term that is missing: no atom is.

Numbers, strings, bytes, moments and durations each lie on a line, which the constants that a term is compared with cut
into points and open stretches. Stretches that hold no value of the declared type are left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Value = tuple[str, Any]
"""A constant of an expression: its kind, and its value as `Const` holds it."""

_LINE_OF: Final = {"int": "number", "double": "number", "uint": "number"}
_LINES: Final = ("number", "string", "bool", "timestamp", "duration", "bytes")
_WHOLE: Final = frozenset({"int", "timestamp", "duration"})  # types whose values are whole numbers
_WORDS: Final = ("other", "another", "some", "a", "A", "zzz")
_BOUNDS: Final = {"timestamp": (-62_135_596_800_000_000, 253_402_300_799_999_999), "int": (-(2**63), 2**63 - 1)}
_OTHERS: Final[dict[str, Value]] = {
    "string": ("string", "other"), "number": ("int", 0), "bool": ("bool", True), "timestamp": ("timestamp", 0),
}  # fmt: skip


class Domain(msgspec.Struct, frozen=True):
    """What a term can be when it is there: its declared type (``dyn``: anything), the only `values`, if some are
    declared, and the lowest number.
    """

    type: str = "dyn"
    values: tuple[Any, ...] = ()
    lowest: int | None = None


class Regions:
    """The atoms of one term, given everything that it is compared with."""

    def __init__(self, domain: Domain, constants: Iterable[Value]) -> None:
        self._domain = domain
        cuts: dict[str, set[Any]] = {name: set() for name in _LINES}
        for kind, value in constants:
            line = _LINE_OF.get(kind, kind)
            if line in cuts:
                cuts[line].add(value)
        own = _LINE_OF.get(domain.type, domain.type)
        if domain.values:
            cuts[own if own in cuts else "string"].update(domain.values)
        if own == "bool":
            cuts["bool"].update((False, True))
        lines = _LINES if own == "dyn" else [own]
        self._lines: dict[str, tuple[int, list[Any]]] = {}
        self.samples: list[Value | None] = []
        """A value of each atom; None for an atom without any."""
        for line in lines:
            points = sorted(cuts.get(line, ()))
            if points or own != "dyn":
                self._lines[line] = len(self.samples), points
                self.samples += self._sampled(line, points)
        if own == "dyn":  # everything else: kinds that nothing is compared with, lists and maps
            other: Value = next((found for line, found in _OTHERS.items() if not cuts[line]), ("list", []))
            self.samples.append(other)
        self.all = sum(1 << atom for atom, sample in enumerate(self.samples) if sample is not None)
        named = {at + 2 * place + 1 for at, points in self._lines.values() for place in range(len(points))}
        self.plain = sum(
            1 << atom for atom, sample in enumerate(self.samples) if atom in named or sample == _OTHERS["string"]
        )
        """The atoms that are shown rather than others: what somebody wrote, and a word."""

    def equal(self, constants: Iterable[Value]) -> int:
        """The atoms of values that equal one of the constants."""
        found = 0
        for kind, value in constants:
            line = self._lines.get(_LINE_OF.get(kind, kind))
            if line is not None:
                found |= 1 << (line[0] + 2 * bisect_left(line[1], value) + 1)
        return found & self.all

    def ordered(self, test: str, kind: str, value: Any) -> int:
        """The atoms of values below (``lt``, ``le``) or above (``gt``, ``ge``) a constant, of its kind alone."""
        line = self._lines.get(_LINE_OF.get(kind, kind))
        if line is None:
            return 0
        first, points = line
        whole = ((1 << (2 * len(points) + 1)) - 1) << first
        edge = first + 2 * bisect_left(points, value) + 1 + (test in {"le", "gt"})
        below = whole & ((1 << edge) - 1)
        return (below if test in {"lt", "le"} else whole & ~below) & self.all

    def _sampled(self, line: str, points: Sequence[Any]) -> list[Value | None]:
        """Samples of stretch, point, stretch, ... , stretch."""
        allowed = set(self._domain.values)
        kind = self._domain.type if self._domain.type != "dyn" else {"number": "double"}.get(line, line)
        found: list[Value | None] = []
        for place, point in enumerate([*points, None]):
            before = points[place - 1] if place else None
            closed = bool(allowed) or line == "bool"
            found.append(None if closed else self._between(line, kind, before, point))
            if point is not None:
                fits = (not allowed or point in allowed) and self._holds(kind, point)
                found.append((_kind_of(line, point), point) if fits else None)
        return found

    def _holds(self, kind: str, value: Any) -> bool:
        lowest, highest = self._bounds(kind)
        if kind in _WHOLE and value != math.floor(value):
            return False
        return (lowest is None or value >= lowest) and (highest is None or value <= highest)

    def _bounds(self, kind: str) -> tuple[Any, Any]:
        lowest, highest = _BOUNDS.get(kind, (None, None))
        return (lowest if self._domain.lowest is None else self._domain.lowest), highest

    def _between(self, line: str, kind: str, low: Any, high: Any) -> Value | None:
        """A value strictly between two points, None for no bound; None when there is none."""
        if line == "string":
            text = _text_between(low, high)
            return None if text is None else ("string", text)
        if line == "bytes":
            data = b"" if low is None else low + b"\0"
            return ("bytes", data) if high is None or data < high else None
        lowest, highest = self._bounds(kind)
        number = _number_between(
            low, high, lowest if low is None else None, highest if high is None else None, whole=kind in _WHOLE
        )
        if number is None or (lowest is not None and number < lowest) or (highest is not None and number > highest):
            return None
        return _kind_of(line, number), number


def _kind_of(line: str, value: Any) -> str:
    return ("int" if isinstance(value, int) else "double") if line == "number" else line


def _text_between(low: str | None, high: str | None) -> str | None:
    for word in _WORDS:
        if (low is None or word > low) and (high is None or word < high):
            return word
    for text in ("", "0") if low is None else (low + "a", low + "\0"):
        if high is None or text < high:
            return text
    return None


def _number_between(low: Any, high: Any, lowest: Any, highest: Any, *, whole: bool) -> Any:
    """A number strictly between `low` and `high`, where None is no bound but that of the type, which is included."""
    if low is None and high is None:
        return max(0, lowest) if lowest is not None else 0
    if low is None:
        below = math.ceil(high) - 1
        return lowest if lowest is not None and below < lowest < high else below
    if high is None:
        above = math.floor(low) + 1
        return highest if highest is not None and above > highest > low else above
    above = math.floor(low) + 1
    if above < high:
        return above
    middle = low + (high - low) / 2
    return middle if not whole and low < middle < high else None
