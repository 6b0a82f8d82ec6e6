"""Sums that are exact: the same numbers give the same total in whatever order, grouping or process they were added.

Law: pure. A *part* is a number, or ``[whole, doubles, partials]``: the total of its ints, how many doubles it holds,
and doubles whose exact sum is the rest. Nothing is ever subtracted, so nothing drifts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

INT64 = range(-(1 << 63), 1 << 63)


def fold(parts: Iterable[Any]) -> list[Any]:
    """One part that stands for all of `parts`; it holds few partials, however many doubles went in."""
    whole, doubles, floats = _collect(parts)
    partials: list[float] = []
    for value in floats:
        _grow(partials, value)
    if whole not in INT64:  # MessagePack keeps 64 bits
        for half in _halves(whole):
            _grow(partials, half)
        whole = 0
    return [whole, doubles, partials]


def total(parts: Iterable[Any]) -> int | float | None:
    """The sum: an int when all are ints and it fits 64 bits, else a double; None when it is no finite double."""
    whole, doubles, floats = _collect(parts)
    if not doubles:
        exact = whole + sum(map(int, floats))  # these floats are whole numbers that left 64 bits
        return exact if exact in INT64 else float(exact)
    try:
        result = math.fsum([*floats, *_halves(whole)])
    except (OverflowError, ValueError):  # ValueError: infinities of both signs
        return None
    return result if math.isfinite(result) else None


def doubles(part: Any) -> list[float]:
    """Doubles whose exact sum is a part, none larger than it by more than rounding: they may be weighed one by one."""
    whole, _, floats = _collect([part])
    if not whole:
        return floats
    nearest = float(whole)
    return [*floats, nearest, float(whole - int(nearest))]


def _collect(parts: Iterable[Any]) -> tuple[int, int, list[float]]:
    whole = doubles = 0
    floats: list[float] = []
    for part in parts:
        if type(part) is int:
            whole += part
        elif type(part) is float:
            doubles += 1
            floats.append(part)
        else:
            whole += part[0]
            doubles += part[1]
            floats += part[2]
    return whole, doubles, floats


def _halves(whole: int) -> tuple[float, float]:
    """Two doubles whose exact sum is `whole` (below 85 bits)."""
    return float(whole >> 32) * 4294967296.0, float(whole & 0xFFFFFFFF)


def _grow(partials: list[float], value: float) -> None:
    """Add `value` to non-overlapping partials, exactly (Shewchuk 1997, the way math.fsum works inside)."""
    kept = 0
    for partial in partials:
        small, large = (value, partial) if abs(value) < abs(partial) else (partial, value)
        high = large + small
        low = small - (high - large)
        if not math.isfinite(high):
            partials[:] = [math.inf]  # the sum has left the doubles, for good
            return
        if low:
            partials[kept] = low
            kept += 1
        value = high
    partials[kept:] = [value]
