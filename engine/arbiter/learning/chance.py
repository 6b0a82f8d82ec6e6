"""How likely a figure is by chance: the tails of the distributions that judge experiments.

Law: numbers in, numbers out; pure, and nothing but the standard library. Tests hold each to SciPy.

Sources. Incomplete gamma: Abramowitz and Stegun, 6.5.29 (series) and 6.5.31 (continued fraction). Incomplete beta:
26.5.8 (continued fraction), evaluated by Lentz's method (Applied Optics 15, 1976).
"""

from __future__ import annotations

from math import exp, inf, isinf, lgamma, log, log1p
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_ENOUGH: Final = 1e-15
_TINY: Final = 1e-300
_TERMS: Final = 100_000
_HALVINGS: Final = 200


def chi_square_beyond(statistic: float, freedom: int) -> float:
    """The probability that chi-square with `freedom` degrees is `statistic` or more."""
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    if isinf(x):
        return 0.0
    scale = exp(a * log(x) - x - lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * _ENOUGH:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - scale * total)
    return scale / _fraction(lambda n: -n * (n - a), lambda n: x + 2 * n + 1 - a)


def student_below(t: float, freedom: float) -> float:
    """The probability that Student's t with `freedom` degrees (any number above 0) is `t` or less."""
    whole = freedom + t * t
    # By the smaller of two shares that add up to 1: what is next to 1 has lost how far it is from there.
    inside = _beta(0.5, freedom / 2, t * t / whole) if t * t < freedom else 1 - _beta(freedom / 2, 0.5, freedom / whole)
    beyond = (1 - inside) / 2
    return 1 - beyond if t > 0 else beyond


def student_quantile(share: float, freedom: float) -> float:
    """The t that is exceeded with the probability 1 - `share`, which is between 0 and 1."""
    if isinf(freedom):
        return normal_quantile(share)
    if share < 0.5:  # noqa: PLR2004 - the middle
        return -student_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while student_below(high, freedom) < share:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (middle, high) if student_below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def normal_quantile(share: float) -> float:
    """The deviation that is exceeded with the probability 1 - `share`, which is between 0 and 1."""
    return NormalDist().inv_cdf(share)


def binomial_beyond(found: float, of: float, share: float) -> float:
    """How likely it is that `found` of `of`, or a number at least as far off on either side, happen where each happens
    with the probability `share`: twice the smaller tail, at most 1. Numbers need not be whole: those that stand for
    fewer independent ones are not.
    """
    above = _beta(found, of - found + 1, share) if found > 0 else 1.0
    below = _beta(of - found, found + 1, 1 - share) if found < of else 1.0
    return min(1.0, 2 * min(above, below))


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function of `x` from 0 to 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    scale = exp(a * log(x) + b * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a

    def above(n: int) -> float:
        m = n // 2
        if n % 2 == 0:
            return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))

    return scale / _fraction(above, lambda _: 1.0)


def _fraction(above: Callable[[int], float], below: Callable[[int], float]) -> float:
    """b0 + a1 / (b1 + a2 / (b2 + ...)), with `above` giving a and `below` giving b by number."""
    found = c = below(0) or _TINY
    d = 0.0
    for n in range(1, _TERMS):
        d = 1 / ((below(n) + above(n) * d) or _TINY)
        c = (below(n) + above(n) / c) or _TINY
        change = c * d
        found *= change
        if abs(change - 1) < _ENOUGH:
            return found
    return found if found == found else inf  # noqa: PLR0124 - NaN is not itself
