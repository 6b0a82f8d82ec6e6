"""Histograms in plain memory: one list of integers each.

Law: adding a value is a bisection and two additions in place. The list holds a count for each bound, one for what is
beyond the last, and at the end the sum of all values, so that lists of several processes are added number by number.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Log-linear, six to a decade from 10 µs to 10 s: neighbours differ by two thirds at most. In nanoseconds.
_STEPS = (10, 15, 20, 30, 50, 70)
DURATIONS: Final = (*(step * 10**power for power in range(3, 9) for step in _STEPS), 10**10)
# How many writes a transaction holds.
SIZES: Final = tuple(2**power for power in range(12))


def empty(bounds: Sequence[int] = DURATIONS) -> list[int]:
    """Return a histogram of nothing."""
    return [0] * (len(bounds) + 2)


def add(histogram: list[int], value: int, bounds: Sequence[int] = DURATIONS) -> None:
    """Count a value: in the first bound that is not below it, as Prometheus does."""
    histogram[bisect_left(bounds, value)] += 1
    histogram[-1] += value


def count(histogram: Sequence[int]) -> int:
    """Return how many values were counted."""
    return sum(histogram[:-1])


def together(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the histogram of all that several have counted."""
    return [sum(numbers) for numbers in zip(*histograms, strict=True)]
