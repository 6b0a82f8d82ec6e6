"""Which questions take so long that others should not wait for them.

Law: numbers in, a yes or no out; no clock. It learns from what answers took, so that it needs not know why: a model, a
regular expression, a thousand rules that are checked one by one.
"""

from __future__ import annotations

from typing import Final

LONG_NS: Final = 1_000_000
# A thing of the moment makes any answer late once; one in two, over and over, is the question's own.
_STRIKES: Final = 10
_MOST: Final = 1_000  # pages are made by callers: there may be any number


class Weights:
    """Questions are named by the decision points that they ask, in order. Threads may share it."""

    def __init__(self) -> None:
        self._strikes: dict[tuple[str, ...], int] = {}
        self._heavy: set[tuple[str, ...]] = set()

    def heavy(self, question: tuple[str, ...]) -> bool:
        """Whether it takes long, as far as is known."""
        return question in self._heavy

    def suspect(self, question: tuple[str, ...]) -> bool:
        """Whether it took long of late: then it is worth finding out what it works, and not only how long it takes."""
        return bool(self._strikes) and question in self._strikes

    def took(self, question: tuple[str, ...], nanoseconds: int) -> bool:
        """Note what an answer took; whether the question counts as heavy from now on, and did not before."""
        strikes = self._strikes
        if nanoseconds < LONG_NS:
            if strikes and question in strikes:
                self._forgive(question)
            return False
        if len(strikes) >= _MOST and question not in strikes:
            return False
        strikes[question] = strikes.get(question, 0) + 1
        if strikes[question] < _STRIKES or question in self._heavy:
            return False
        self._heavy.add(question)
        return True

    def _forgive(self, question: tuple[str, ...]) -> None:
        left = self._strikes.get(question, 0) - 1
        if left > 0:
            self._strikes[question] = left
        else:
            self._strikes.pop(question, None)
