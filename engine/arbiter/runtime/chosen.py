"""Which of the things that pass are chosen, each with the same chance and whatever becomes of the others.

Law: drawn are the gaps between the chosen, which are geometric, so that the other things cost nothing. Not for secrets.
"""

from __future__ import annotations

import math
from random import random


class Chosen:
    """Of things of which a `share` is chosen. For one thread at a time."""

    def __init__(self, share: float) -> None:
        # A gap of n has the chance (1 - share)^n: L. Devroye, Non-Uniform Random Variate Generation, 1986, X.2.
        self._scale = -1 / math.log1p(-share) if 0 < share < 1 else 0.0 if share else math.inf
        self._gap = self._next()

    def among(self, count: int) -> tuple[int, ...]:
        """The places of those chosen of the next so many."""
        places = []
        while self._gap < count:
            places.append(int(self._gap))
            self._gap += 1 + self._next()
        self._gap -= count
        return tuple(places)

    def _next(self) -> float:
        if math.isinf(self._scale):
            return math.inf
        return math.floor(-math.log1p(-random()) * self._scale)  # noqa: S311 - no secret
