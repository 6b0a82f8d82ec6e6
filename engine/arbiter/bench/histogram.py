"""How long calls took: counts by duration, each kept within 0.2 percent.

Law: adds up and reads out. Exact durations are kept until there are many, then counted in buckets whose width grows
with what they hold, 256 to each power of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_MANY = 1 << 16
_PARTS = 256
_BUCKETS = 64 * _PARTS
SHOWN = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """Durations in ns. `add` takes one; it is the list's own method, since it is called for every call."""

    def __init__(self) -> None:
        self._fresh: list[int] = []
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._longest = 0
        self.add = self._fresh.append

    def settle(self) -> None:
        """Count what was added, once it is much: to be called now and then."""
        if len(self._fresh) >= _MANY:
            self._count()

    def _count(self) -> None:
        if self._fresh:
            self._longest = max(self._longest, *self._fresh)
            fractions, powers = np.frexp(np.maximum(np.array(self._fresh, np.float64), 1.0))
            places = (powers - 1) * _PARTS + ((fractions - 0.5) * 2 * _PARTS).astype(np.int64)
            self._counts += np.bincount(places, minlength=_BUCKETS)
            self._fresh.clear()

    def __len__(self) -> int:
        """How many durations."""
        return int(self._counts.sum()) + len(self._fresh)

    def percentile(self, percent: float) -> float:
        """The duration in ns that `percent` of all do not exceed; 0 when there are none."""
        self._count()
        total = len(self)
        if not total:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), max(1, np.ceil(total * percent / 100))))
        power, part = divmod(place, _PARTS)
        middle = float(2**power * (1 + (part + 0.5) / _PARTS))
        return min(middle, float(self._longest))

    @property
    def longest(self) -> int:
        """The longest in ns; 0 when there are none."""
        self._count()
        return self._longest

    def microseconds(self) -> dict[str, float]:
        """Percentiles and the longest, in µs, by name."""
        shown: dict[str, Any] = {f"p{each:g}": round(self.percentile(each) / 1000, 1) for each in SHOWN}
        return shown | {"max": round(self.longest / 1000, 1)}
