"""Whether values are still spread as they were: the population stability index, missing values, values out of range.

Law: counts and shares in, figures out; pure. What they were like is a baseline as `arbiter.baseline` in a model's file
has it.

Source of the index: Siddiqi, Credit Risk Scorecards, 2006, where 0.1 is worth a look and 0.25 is a shift. Under no
shift it is, times the rows, about a chi-squared variable with one degree of freedom less than there are bins (Yurdakul,
Statistical Properties of Population Stability Index, 2018); so few rows alone raise no alarm here.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHIFTED: Final = 0.25
MISSING_BY: Final = 0.1  # a share of missing values that differs by so much is another one
OUTSIDE: Final = 0.05  # of the values, beyond all that were trained on
_SURE: Final = 4.0  # normal deviations, beyond which chance is not believed: 1 of 30,000


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


def drift_of(name: str, baseline: Mapping[str, Any], values: Sequence[Any]) -> Drift:
    """Compare values, None for missing, with their baseline."""
    known = [value for value in values if value is not None]
    missing = 1 - len(known) / len(values) if values else 0.0
    before = baseline["shares"]
    if isinstance(before, dict):
        bins, expected, now = _of_words(before, known)
        outside = 0.0
    else:
        bins, expected, now = _of_numbers(baseline, known)
        beyond = sum(not baseline["low"] <= float(value) <= baseline["high"] for value in known)
        outside = beyond / len(known) if known else 0.0
    psi = stability(expected, now, len(known)) if known else None
    chance = by_chance(len(bins), len(known)) if known else 0.0
    missing_before = float(baseline.get("missing", 0.0))
    alarms = []
    if psi is not None and psi > max(SHIFTED, chance):
        alarms.append(f"values have shifted: a stability index of {psi:.2f}")
    if abs(missing - missing_before) > MISSING_BY + _share_by_chance(missing_before, len(values)):
        alarms.append(f"{missing:.0%} are missing, and {missing_before:.0%} were")
    if outside > OUTSIDE + _share_by_chance(OUTSIDE, len(known)):
        alarms.append(f"{outside:.0%} lie beyond all that was trained on")
    return Drift(name, len(values), psi, chance, missing, missing_before, outside, expected, now, bins, alarms)


def stability(expected: Sequence[float], found: Sequence[float], rows: int) -> float:
    """Σ (found - expected) ln(found / expected) over the bins' shares, that of no row counting as half a row of `rows`:
    what was never seen would cost infinitely much.
    """
    then, now = (np.maximum(np.asarray(each, dtype=np.float64), 0.5 / rows) for each in (expected, found))
    return float(((now - then) * np.log(now / then)).sum())


def by_chance(bins: int, rows: int) -> float:
    """What the index hardly passes when nothing has shifted, by the chi-squared approximation (Wilson and Hilferty)."""
    degrees = bins - 1
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + _SURE * math.sqrt(spread)) ** 3 / rows


def _share_by_chance(share: float, rows: int) -> float:
    """By how much a share hardly differs by chance alone."""
    return _SURE * math.sqrt(max(share * (1 - share), 0.01) / rows) if rows else 1.0


def _of_words(before: Mapping[str, float], known: Sequence[Any]) -> tuple[list[str], list[float], list[float]]:
    counts = Counter(str(value) for value in known)
    words = list(before)
    other = sum(count for word, count in counts.items() if word not in before)
    found = [counts[word] for word in words] + [other]
    total = max(1, len(known))
    rest = max(0.0, 1 - sum(before.values()))
    return [*words, "another"], [*before.values(), rest], [count / total for count in found]


def _of_numbers(baseline: Mapping[str, Any], known: Sequence[Any]) -> tuple[list[str], list[float], list[float]]:
    edges = np.asarray(baseline["edges"], dtype=np.float64)
    numbers = np.array([float(value) for value in known], dtype=np.float64)
    counts = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    found = [float(share) for share in counts / max(1, len(numbers))]
    bins = [f"up to {edge:g}" for edge in edges] + ["above"]
    return bins, list(baseline["shares"]), found
