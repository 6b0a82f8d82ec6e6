"""Bounds of a difference that hold at every look at once, so that one may look until something is seen.

Law: counts and moments in, bounds out; pure. One entry is one unit whose figure is settled: later looks have more units
and change none.

Source: the one-sided normal mixture boundary of Howard, Ramdas, McAuliffe and Sekhon (Annals of Statistics 49, 2021),
over a variance that is estimated, as in the asymptotic confidence sequences of Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas (Annals of Statistics 52, 2024). It is exact for many units, so few are not judged at all.
"""

from __future__ import annotations

from math import log, sqrt
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.learning.effects import Sample

FEWEST_UNITS: Final = 100
"""Units of each arm below which it is not judged."""
FEWEST_EVENTS: Final = 30
"""Units of which the figure is not 0, of both arms, below which no difference is judged."""
_TIGHTEST: Final = 250.0
"""The variance of the mixture, in units: the boundary is closest at some eight times as many."""


class Bounded(msgspec.Struct, frozen=True):
    """The figures of an arm and of the control over so many units, their difference, and one bound of it from below and
    one from above: each alone holds at all looks together with the confidence that was asked for.
    """

    units: int
    others: int
    arm: float
    control: float
    difference: float
    low: float
    high: float


class Arm(msgspec.Struct, frozen=True):
    """The figure over the units of an arm, and of how many it is not 0."""

    sample: Sample
    events: int


def radius(units: float, miss: float) -> float:
    """By how many standard errors a mean of so many units leaves its bound with the chance `miss`, ever."""
    whole = units + _TIGHTEST
    return sqrt(2 * whole / units * log(1 + sqrt(whole / _TIGHTEST) / (2 * miss)))


def bounded(strata: Iterable[tuple[Arm, Arm]], miss: float, *, binary: bool) -> Bounded | None:
    """The difference of an arm to the control, over strata in which chance did the same, each weighted by its units.

    `miss` is the chance with which a bound may ever be wrong. `binary` figures are 0 or 1. None while too little is
    known.
    """
    known = [each for each in strata if min(each[0].sample.units, each[1].sample.units) >= FEWEST_UNITS]
    if sum(arm.events + control.events for arm, control in known) < FEWEST_EVENTS:
        return None
    units, others = (sum(each[side].sample.units for each in known) for side in (0, 1))
    ours = theirs = variance = 0.0
    for arm, control in known:
        share = (arm.sample.units + control.sample.units) / (units + others)
        ours += share * arm.sample.mean
        theirs += share * control.sample.mean
        variance += share**2 * (_error(arm.sample, binary=binary) + _error(control.sample, binary=binary))
    half = radius(units + others, miss) * sqrt(variance)
    difference = ours - theirs
    return Bounded(units, others, ours, theirs, difference, difference - half, difference + half)


def _error(sample: Sample, *, binary: bool) -> float:
    """The variance of a mean. Of shares that of Agresti and Coull (American Statistician 52, 1998), which is never 0:
    an arm in which nothing happened yet is not sure of it.
    """
    if not binary:
        return sample.variance / sample.units
    share = (sample.mean * sample.units + 2) / (sample.units + 4)
    return share * (1 - share) / sample.units


def together(arms: Sequence[Arm]) -> Arm:
    """The same over all units of several."""
    units = sum(each.sample.units for each in arms)
    mean = sum(each.sample.units * each.sample.mean for each in arms) / units
    spread = sum(
        (each.sample.units - 1) * each.sample.variance + each.sample.units * (each.sample.mean - mean) ** 2
        for each in arms
    )
    sample = type(arms[0].sample)(units, mean, spread / max(1, units - 1))
    return Arm(sample, sum(each.events for each in arms))
