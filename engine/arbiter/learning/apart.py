"""How far what two versions of a model say of the same rows lies apart.

Law: answers in, figures out; pure, and bounded however many answers come: of more than 100,000 pairs that many are
kept, drawn evenly (algorithm R: Vitter, ACM Transactions on Mathematical Software 11, 1985), and what is counted is
counted over all. The same answers in the same order give the same figures.
"""

from __future__ import annotations

import operator
import random
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from arbiter.learning.measures import ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_KEPT: Final = 100_000
TESTS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Threshold(msgspec.Struct, frozen=True):
    """A comparison that rules make, as ``> 0.5``: for how many rows it holds by either version, for how many it comes
    to hold by the new one, and for how many it ceases to.
    """

    test: str
    before: int
    after: int
    come: int
    gone: int


class OutputApart(msgspec.Struct, frozen=True):
    """One output over `rows` of which both versions say something; `differ` of these get another answer.

    Of numbers: the quantiles of what either says and of the differences, new less old, by quantile; the greatest
    difference without its sign; Spearman's rank correlation, None where one of both says the same of all; and what
    becomes of the comparisons in rules. Of words: how many go from which to which, most often first.
    """

    name: str
    rows: int
    differ: int
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    difference: dict[str, float] = {}
    largest: float | None = None
    rank_correlation: float | None = None
    thresholds: list[Threshold] = []
    moves: dict[str, int] = {}


class Answers:
    """Takes pairs of answers to one output; `tests` are comparisons, each an operator and a number."""

    def __init__(self, name: str, tests: Iterable[tuple[str, float]] = ()) -> None:
        self._name = name
        self._tests = {(sign, value): [0, 0, 0, 0] for sign, value in sorted(set(tests), key=lambda each: each[::-1])}
        self._before, self._after = array("d"), array("d")
        self._draw = random.Random(0)  # noqa: S311 - which pairs are kept is no secret
        self._numbers = 0
        self._largest = 0.0
        self._moves: Counter[str] = Counter()
        self._rows = self._differ = 0

    def add(self, before: Any, after: Any) -> None:
        """What both said of a row."""
        self._rows += 1
        self._differ += before != after
        if isinstance(before, str):
            self._moves[f"{before} → {after}"] += before != after
            return
        old, new = float(before), float(after)
        self._largest = max(self._largest, abs(new - old))
        for (sign, value), counts in self._tests.items():
            was, would = TESTS[sign](old, value), TESTS[sign](new, value)
            for place, holds in enumerate((was, would, would and not was, was and not would)):
                counts[place] += holds
        self._numbers += 1
        if len(self._before) < _KEPT:
            self._before.append(old)
            self._after.append(new)
        elif (place := self._draw.randrange(self._numbers)) < _KEPT:
            self._before[place], self._after[place] = old, new

    def found(self) -> OutputApart:
        """How far they lie apart until now."""
        if not self._numbers:
            moves = {move: count for move, count in self._moves.most_common() if count}
            return OutputApart(self._name, self._rows, self._differ, moves=moves)
        before, after = np.array(self._before), np.array(self._after)
        return OutputApart(
            self._name,
            self._rows,
            self._differ,
            _quantiles(before),
            _quantiles(after),
            _quantiles(after - before),
            self._largest,
            _spearman(before, after),
            [Threshold(f"{sign} {value:g}", *counts) for (sign, value), counts in self._tests.items()],
        )


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {f"{each:g}": float(found) for each, found in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _spearman(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float | None:
    """Pearson's correlation of the ranks (Spearman, American Journal of Psychology 15, 1904)."""
    one, other = ranks(before), ranks(after)
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size else None


def middle(found: OutputApart, quantiles: Sequence[str] = ("0.05", "0.5", "0.95")) -> str:
    """The differences in a few words."""
    return " / ".join(f"{found.difference[each]:+.4g}" for each in quantiles) if found.difference else ""
