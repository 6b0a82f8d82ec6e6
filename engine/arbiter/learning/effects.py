"""What an experiment shows: whether its arms have the sizes they should have, and by how much they differ.

Law: counts and moments in, figures out; pure. One entry is one unit, which is what chance assigned: units are
independent of each other, and what one unit did several times is not.

Sources. Sample ratio: Pearson's chi-square (Philosophical Magazine 50, 1900); as a check of experiments Fabijan et al.,
KDD 2019. Difference of proportions: Newcombe's hybrid score interval (method 10, Statistics in Medicine 17, 1998) of
Wilson's intervals. Difference of means: Welch, Biometrika 34, 1947. Ratio of two means of a unit by the delta method:
Deng, Knoblich and Lu, KDD 2018. Over strata: post-stratification, with the interval that is recovered from those of the
strata (Zou and Donner, Statistics in Medicine 27, 2008).
"""

from __future__ import annotations

from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING

import msgspec

from arbiter.learning.chance import chi_square_beyond, normal_quantile, student_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SUSPECT = 0.001
"""The p below which arms are said to have the wrong sizes: strict, since each report looks again."""
_FEW = 5  # expected units of an arm below which chi-square is a rough guide


class SampleRatio(msgspec.Struct, frozen=True):
    """How many units the arms have, and should have by their weights: `p` is the probability of sizes at least as far
    off as these where chance did what it was told. `rough` where so few are expected that it is no more than a guide.
    """

    counts: dict[str, int]
    expected: dict[str, float]
    statistic: float
    freedom: int
    p: float
    rough: bool

    @property
    def suspect(self) -> bool:
        """Whether chance did not do what it was told."""
        return self.p < SUSPECT


class Sample(msgspec.Struct, frozen=True):
    """A figure over the units of an arm: how many units, its mean and its variance (by n - 1)."""

    units: int
    mean: float
    variance: float


class Pair(msgspec.Struct, frozen=True):
    """Two figures over the units of an arm, of which the ratio of the means is asked: what is above, and below."""

    above: Sample
    below: Sample
    covariance: float


class Difference(msgspec.Struct, frozen=True):
    """What an arm has, what the control has, and the difference of both with its interval; NaN where nothing is known.

    `lift` is the difference as a share of the control's figure.
    """

    arm: float
    control: float
    difference: float
    low: float
    high: float
    lift: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def sample_ratio(strata: Iterable[tuple[Mapping[str, int], Mapping[str, float]]]) -> SampleRatio | None:
    """The check of arms over strata, each the units by arm, and the arms' weights, of a time in which these were the
    same. The strata's statistics are added, as are their degrees: right, too, where weights changed. None where there
    is nothing to compare.
    """
    counts: dict[str, int] = {}
    expected: dict[str, float] = {}
    statistic, freedom = 0.0, 0
    rough = False
    for found, weights in strata:
        units, whole = sum(found.values()), sum(weights.values())
        if not units:
            continue
        arms = sorted({*found, *(arm for arm, weight in weights.items() if weight)})
        shares = {arm: weights.get(arm, 0.0) / whole for arm in arms} if whole else dict.fromkeys(arms, 0.0)
        for arm in arms:
            awaited, seen = units * shares[arm], found.get(arm, 0)
            counts[arm] = counts.get(arm, 0) + seen
            expected[arm] = expected.get(arm, 0.0) + awaited
            statistic += (seen - awaited) ** 2 / awaited if awaited else inf
            rough = rough or awaited < _FEW
        freedom += len(arms) - 1
    if not freedom:
        return None
    return SampleRatio(counts, expected, statistic, freedom, chi_square_beyond(statistic, freedom), rough)


def proportions(arm: int, of_arm: int, control: int, of_control: int, level: float = 0.95) -> Difference:
    """The difference of two shares of units."""
    if not of_arm or not of_control:
        return _of(nan, nan, nan, nan)
    (p, p_low, p_high), (q, q_low, q_high) = (wilson(*each, level) for each in ((arm, of_arm), (control, of_control)))
    low = p - q - sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    high = p - q + sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return _of(p, q, low, high)


def means(arm: Sample, control: Sample, level: float = 0.95) -> Difference:
    """The difference of two means over units."""
    return _welch((arm.mean, arm.variance, arm.units), (control.mean, control.variance, control.units), level)


def ratios(arm: Pair, control: Pair, level: float = 0.95) -> Difference:
    """The difference of two ratios, as of all purchases to all decisions, where chance assigned what made these."""
    return _welch(_linear(arm), _linear(control), level)


def combined(strata: Sequence[tuple[int, Difference]]) -> Difference:
    """The difference over strata, each with how many units it has, which is its weight.

    Where the weights of arms changed, units of one time are many in one arm and few in the other: compared together,
    what differs between times would look like an effect. Strata whose interval is not known are left out where others
    have one; of one stratum it is the difference itself.
    """
    known = [each for each in strata if isfinite(each[1].low)] or list(strata)
    whole = sum(units for units, _ in known)
    shares = [(units / whole, found) for units, found in known]
    arm, control, difference = (
        sum(share * getattr(found, figure) for share, found in shares) for figure in ("arm", "control", "difference")
    )
    below = sqrt(sum((share * (found.difference - found.low)) ** 2 for share, found in shares))
    above = sqrt(sum((share * (found.high - found.difference)) ** 2 for share, found in shares))
    return _of(arm, control, difference - below, difference + above)


def wilson(found: float, of: float, level: float) -> tuple[float, float, float]:
    """A share and Wilson's interval of it (JASA 22, 1927). Numbers need not be whole, see `chance.binomial_beyond`."""
    z, p = normal_quantile((1 + level) / 2), found / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return p, max(0.0, middle - half), min(1.0, middle + half)


def _linear(pair: Pair) -> tuple[float, float, int]:
    """The ratio, the variance of one unit's part in it, and the units."""
    if not pair.below.mean:
        return nan, nan, pair.below.units
    ratio = pair.above.mean / pair.below.mean
    spread = pair.above.variance - 2 * ratio * pair.covariance + ratio * ratio * pair.below.variance
    return ratio, max(0.0, spread) / pair.below.mean**2, pair.below.units


def _welch(arm: tuple[float, float, int], control: tuple[float, float, int], level: float) -> Difference:
    (mean, variance, units), (other, spread, others) = arm, control
    if min(units, others) < 2:  # noqa: PLR2004 - no variance
        return _of(mean if units else nan, other if others else nan, nan, nan)
    ours, theirs = variance / units, spread / others
    if not ours + theirs > 0:
        return _of(mean, other, nan, nan)
    freedom = (ours + theirs) ** 2 / (ours**2 / (units - 1) + theirs**2 / (others - 1))
    half = student_quantile((1 + level) / 2, freedom) * sqrt(ours + theirs)
    return _of(mean, other, mean - other - half, mean - other + half)


def _of(arm: float, control: float, low: float, high: float) -> Difference:
    lift = (arm - control) / control if control else nan
    return Difference(arm, control, arm - control, low, high, lift)
