"""Histograms in plain memory.

Law: noting a value is an append; counting it, a bisection and two additions in place, is done for many at once, where
it costs a fifth of what it costs between the steps of a call, and always before anybody reads. The list of counts holds
one for each bound, one for what is beyond the last, and at the end the sum of all values, so that lists of several
processes are added number by number.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_Noted = TypeVar("_Noted")

# Log-linear, six to a decade from 10 µs to 10 s: neighbours differ by two thirds at most. In nanoseconds.
_STEPS = (10, 15, 20, 30, 50, 70)
DURATIONS: Final = (*(step * 10**power for power in range(3, 9) for step in _STEPS), 10**10)
# How many writes a transaction holds.
SIZES: Final = tuple(2**power for power in range(12))
# So many values are noted at most before they are counted: that takes 30 µs, for which no call should wait long.
NOTED: Final = 256


class Durations:
    """How long things took, in ns. Threads may share it: no value is lost or counted twice.

    `noted` are those that are not counted yet: between the steps of a call they are appended to, and who does calls
    `fold` when there are `NOTED` of them.
    """

    __slots__ = ("_counts", "noted")

    def __init__(self) -> None:
        self.noted: list[int] = []
        self._counts = [0] * (len(DURATIONS) + 2)

    def add(self, value: int) -> None:
        """Count a value: in the first bound that is not below it, as Prometheus does."""
        self._counts[bisect_left(DURATIONS, value)] += 1
        self._counts[-1] += value

    def fold(self) -> None:
        """Count what was noted."""
        self.count(list(drained(self.noted)))

    def count(self, values: list[int]) -> None:
        """Count many values, as `add` each, and sort them: then each bound is looked for among them and not each of
        them among the bounds, which of 256 takes half as long.
        """
        values.sort()
        below = 0
        for place, bound in enumerate(DURATIONS):
            upto = bisect_right(values, bound, below)
            self._counts[place] += upto - below
            below = upto
        # First, since a call between reading and writing back would let another thread in.
        beyond, total = len(values) - below, sum(values)
        self._counts[-2] += beyond
        self._counts[-1] += total

    def counts(self) -> list[int]:
        """Return what was counted until now; the list is counted on in."""
        self.fold()
        return self._counts


def drained(noted: list[_Noted]) -> Iterator[_Noted]:
    """Take out what was noted until now, the last first; of two threads that do, each gets what the other does not."""
    take = noted.pop
    with contextlib.suppress(IndexError):  # another thread had the last
        for _ in range(len(noted)):
            yield take()


def count(histogram: Sequence[int]) -> int:
    """Return how many values were counted."""
    return sum(histogram[:-1])


def together(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the histogram of all that several have counted."""
    return [sum(numbers) for numbers in zip(*histograms, strict=True)]
