"""How a feature's value is read from what is stored of it, at a clock.

Law: arithmetic on one stored value, and its inverse. Most features are stored as they are read. What time alone changes
is stored so that no clock makes it wrong: an age as the time that it counts from, a decaying total as what it was at
some time, and a ratio with either in it as what is stored of its two features.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

_NUMBERS = (int, float)


class FeatureRead(msgspec.Struct, frozen=True):
    """How one feature is read: what is stored of it stands under `key`.

    With a `unit` (µs) that is the µs time of an event, and the value the event's age in units. With a `half_life` (µs)
    it is ``[total, time]``, and the value that total after it has decayed since that time (µs). With `of`, two reads,
    it is a list of what is stored of either, and the value the first by the second. Otherwise it is the value.
    """

    key: str
    unit: int = 0
    half_life: int = 0
    of: tuple[FeatureRead, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether time alone changes the value."""
        return bool(self.unit or self.half_life or self.of)

    @property
    def computed(self) -> bool:
        """Whether reading it takes `value`, since it is more than a plain value or an age."""
        return bool(self.half_life or self.of)

    def value(self, stored: Any, clock: int) -> Any:
        """The value at `clock` (µs); None for a feature that is missing, of which None is stored."""
        if stored is None:
            return None
        if self.half_life:
            return stored[0] * 2.0 ** ((stored[1] - clock) / self.half_life)
        if self.unit:
            return (clock - stored) / self.unit
        if self.of:
            first, second = self.of
            return quotient(first.value(stored[0], clock), second.value(stored[1], clock))
        return stored

    def known(self, stored: Any, clock: int) -> Any:
        """The value at `clock` (µs); raises KeyError when it is missing."""
        value = self.value(stored, clock)
        if value is None:
            raise KeyError(self.key)
        return value

    def stored(self, value: Any, clock: int) -> Any:
        """What must be stored for the value at `clock` (µs) to be this one."""
        if self.half_life:
            return [float(value), clock]
        if self.unit:
            return clock - round(value * self.unit)
        if self.of:
            first, second = self.of
            return [first.stored(value, clock), second.stored(1, clock)]
        return value


def quotient(first: Any, second: Any) -> float | None:
    """The first by the second, a double; None when either is no number, or the result no finite one."""
    if type(first) not in _NUMBERS or type(second) not in _NUMBERS or not second:
        return None
    result = first / second
    return float(result) if math.isfinite(result) else None
