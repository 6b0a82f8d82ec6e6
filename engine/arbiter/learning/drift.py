"""Whether values are still spread as they were: the population stability index, missing values, values out of range.

Law: values are counted, and counts compared with what was counted at training; pure. What they were like is a baseline
as `arbiter.baseline` in a model's file has it.

Source of the index: Siddiqi, Credit Risk Scorecards, 2006, where 0.1 is worth a look and 0.25 is a shift. Under no
shift it is about (1/rows now + 1/rows then) times a chi-squared variable with one degree of freedom less than there are
bins (Yurdakul, Statistical Properties of Population Stability Index, 2018). An alarm needs both: a shift that matters,
and one that chance gives in 1 of 30,000 looks, so few rows alone raise none.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHIFTED: Final = 0.25
MISSING_BY: Final = 0.1  # a share of missing values that differs by so much is another one
OUTSIDE: Final = 0.05  # of the values, beyond all that were trained on
_SURE: Final = 4.0  # normal deviations, beyond which chance is not believed: 1 of 30,000
MISSING: Final = "missing"


class Drift(msgspec.Struct, frozen=True):
    """One input or output: then and now. `psi` is None where there is nothing to compare.

    `chance` is what the index may be by chance alone, with as many rows; `missing` and `outside` are shares. `alarms`
    says in words what is no longer as it was.
    """

    name: str
    rows: int
    psi: float | None
    chance: float
    missing: float
    missing_before: float
    outside: float
    before: list[float]
    now: list[float]
    bins: list[str]
    alarms: list[str]


class Spread(msgspec.Struct, frozen=True):
    """How values were spread at training: shares by the bins between `edges`, or by word.

    Bin i holds what is greater than edges[i - 1] and at most edges[i]. `low` and `high` are the least and the greatest.
    """

    shares: dict[str, float] | list[float]
    missing: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    edges: list[float] = []


class Baseline(msgspec.Struct, frozen=True):
    """What `arbiter.baseline` in a model's file says: how many rows there were, and how values were spread."""

    rows: int = 0
    inputs: dict[str, Spread] = {}
    outputs: dict[str, Spread] = {}


def read_baseline(told: str) -> Baseline:
    """Read what a model's file says. Raises msgspec.DecodeError and ValueError."""
    found = msgspec.json.decode(told, type=Baseline)
    for spread in (*found.inputs.values(), *found.outputs.values()):
        Tally(spread)
    return found


class Tally:
    """Counts values by the bins of a baseline."""

    def __init__(self, spread: Spread) -> None:
        shares = spread.shares
        self._spread = spread
        self._edges = spread.edges
        if isinstance(shares, dict):
            self.bins = [*shares, "another"]
            self.expected = [*shares.values(), max(0.0, 1 - sum(shares.values()))]
            self._places = {word: place for place, word in enumerate(shares)}
        elif len(shares) != len(spread.edges) + 1:
            raise ValueError(f"{len(shares)} shares lie between {len(spread.edges)} edges")
        else:
            self.bins = [*(f"up to {edge:g}" for edge in spread.edges), "above"]
            self.expected = list(shares)
            self._places = {}
        self.counts = [0] * len(self.bins)
        self.missing = 0
        self.outside = 0

    @property
    def missing_before(self) -> float:
        """The share of values that were missing at training."""
        return self._spread.missing

    @property
    def rows(self) -> int:
        """How many values were counted, missing ones too."""
        return sum(self.counts) + self.missing

    def place(self, value: Any) -> tuple[int, bool]:
        """The number of a value's bin, -1 for None, which is missing; and whether it lies out of range."""
        if value is None:
            return -1, False
        if isinstance(self._spread.shares, dict):
            return self._places.get(str(value), len(self._places)), False
        number = float(value)
        return bisect_left(self._edges, number), not self._spread.low <= number <= self._spread.high

    def put(self, place: int, *, outside: bool) -> None:
        """Count a value by what `place` said of it."""
        if place < 0:
            self.missing += 1
        else:
            self.counts[place] += 1
            self.outside += outside

    def take(self, counts: Sequence[int], missing: int, outside: int) -> None:
        """Go on from what was counted by these bins. Raises ValueError where they are others."""
        if len(counts) != len(self.counts):
            raise ValueError(f"{len(counts)} counts for {len(self.counts)} bins")
        self.counts, self.missing, self.outside = [*counts], missing, outside

    def add(self, value: Any) -> None:
        """Count a value, None for a missing one."""
        place, outside = self.place(value)
        self.put(place, outside=outside)

    def judged(self, name: str, trained: int = 0) -> Drift:
        """How what was counted differs from `trained` rows, 0 for more than matter."""
        known, rows = sum(self.counts), self.rows
        missing = self.missing / rows if rows else 0.0
        outside = self.outside / known if known else 0.0
        now = [count / max(1, known) for count in self.counts]
        psi = stability(self.expected, now, known) if known else None
        chance = by_chance(len(self.bins), known, trained) if known else 0.0
        missing_before = self._spread.missing
        alarms = []
        if psi is not None and psi > max(SHIFTED, chance):
            alarms.append(f"values have shifted: a stability index of {psi:.2f}")
        if abs(missing - missing_before) > MISSING_BY + _share_by_chance(missing_before, rows):
            alarms.append(f"{missing:.0%} are missing, and {missing_before:.0%} were")
        if outside > OUTSIDE + _share_by_chance(OUTSIDE, known):
            alarms.append(f"{outside:.0%} lie beyond all that was trained on")
        return Drift(
            name, rows, psi, chance, missing, missing_before, outside, self.expected, now, self.bins, alarms
        )  # fmt: skip


def drift_of(name: str, baseline: Spread, values: Iterable[Any], trained: int = 0) -> Drift:
    """Compare values, None for missing, with their baseline, which is of `trained` rows."""
    tally = Tally(baseline)
    for value in values:
        tally.add(value)
    return tally.judged(name, trained)


def stability(expected: Sequence[float], found: Sequence[float], rows: int) -> float:
    """Σ (found - expected) ln(found / expected) over the bins' shares, that of no row counting as half a row of `rows`:
    what was never seen would cost infinitely much.
    """
    then, now = (np.maximum(np.asarray(each, dtype=np.float64), 0.5 / rows) for each in (expected, found))
    return float(((now - then) * np.log(now / then)).sum())


def by_chance(bins: int, rows: int, trained: int = 0) -> float:
    """What the index hardly passes when nothing has shifted, by the chi-squared approximation (Wilson and Hilferty)."""
    degrees = bins - 1
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + _SURE * math.sqrt(spread)) ** 3 * (1 / rows + (1 / trained if trained else 0.0))


def _share_by_chance(share: float, rows: int) -> float:
    """By how much a share hardly differs by chance alone."""
    return _SURE * math.sqrt(max(share * (1 - share), 0.01) / rows) if rows else 1.0
