"""Thompson sampling: with which chance each of several arms is drawn, given how often each has won and lost.

Law: pure; numbers in, numbers out, no state, no clock. What an arm wins with is believed to be Beta distributed, wins
and losses being the parameters; an arm is drawn with the chance that it is the best one. These chances are computed,
and not sampled, so that whoever draws by them knows the propensity of what was drawn, which is then exact whatever
error the chances have as posterior probabilities (tests hold that below 1e-6).

Sources: Thompson, On the likelihood that one unknown probability exceeds another in view of the evidence of two
samples, Biometrika 25, 1933; Chapelle and Li, An empirical evaluation of Thompson sampling, NIPS 2011. On the scale of
log-odds a Beta density has no poles, and is smooth: it is integrated by Gauss-Legendre panels that lie as close as the
narrowest arm asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.polynomial import legendre

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LEAST: Final = 0.1
"""Wins and losses below this are too few for the panels: what priors must have at least."""
_NODES: Final = 8
_POINTS, _WEIGHTS = legendre.leggauss(_NODES)
# Row k integrates a polynomial, given by its values at the points, from -1 to point k.
_UP_TO: Final = np.array([
    legendre.legval(_POINTS, legendre.legint(column, lbnd=-1))
    for column in np.linalg.inv(legendre.legvander(_POINTS, _NODES - 1)).T
]).T  # fmt: skip
# Where panels of one arm end, in its own widths to either side of where it is densest.
_ENDS: Final = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 17.0, 22.0, 30.0, 40.0])


def chances(arms: Sequence[tuple[float, float]], floor: float = 0.0) -> tuple[float, ...]:
    """The chance with which each arm is drawn, in their order; they add up to 1.

    An arm is its wins and losses, the prior among them, each at least `LEAST`. A share of `floor`, from 0 to 1, is
    drawn with equal chances.
    """
    count = len(arms)
    if count == 1:
        return (1.0,)
    if all(arm == arms[0] for arm in arms):  # as before anything was learned
        return (1 / count,) * count
    best = _best(np.array(arms, dtype=np.float64))
    mixed = (1 - floor) * best / best.sum() + floor / count
    return tuple(mixed.tolist())


def _best(arms: Numbers) -> Numbers:
    """The probability of each arm that it is the best."""
    wins, losses = arms[:, :1], arms[:, 1:]
    panels = _panels(wins, losses)
    half = np.diff(panels)[:, None] / 2
    odds = ((panels[:-1] + panels[1:])[:, None] / 2 + half * _POINTS).ravel()
    density = np.exp(_log_density(odds, wins, losses) - _log_density(_mode(wins, losses), wins, losses))
    inside = density.reshape(len(arms), -1, _NODES)
    masses = (inside * _WEIGHTS).sum(axis=2) * half[:, 0]
    whole = masses.sum(axis=1)
    before = np.cumsum(masses, axis=1) - masses
    below = before[:, :, None] + half * (inside @ _UP_TO.T)
    below = np.clip(below / whole[:, None, None], 0.0, 1.0)
    # Of all others, without dividing: what is below an arm may be 0.
    ones = np.ones((1, *below.shape[1:]))
    ahead = np.concatenate([ones, np.cumprod(below[:-1], axis=0)])
    behind = np.concatenate([np.cumprod(below[:0:-1], axis=0)[::-1], ones])
    found: Numbers = ((inside * ahead * behind * _WEIGHTS).sum(axis=2) * half[:, 0]).sum(axis=1) / whole
    return found


def _panels(wins: Numbers, losses: Numbers) -> Numbers:
    """Where panels end, of all arms together, ascending."""
    middle, width = _mode(wins, losses), np.sqrt(1 / wins + 1 / losses)
    left, right = np.maximum(width, 1 / wins), np.maximum(width, 1 / losses)
    ends = np.concatenate([middle - left * _ENDS, middle, middle + right * _ENDS], axis=1)
    step = width.min() / 4  # arms that are alike have their panels nearly together: more of them would tell no more
    found: Numbers = np.unique(np.round(ends / step)) * step
    return found


def _mode(wins: Numbers, losses: Numbers) -> Numbers:
    found: Numbers = np.log(wins / losses)
    return found


def _log_density(odds: Numbers, wins: Numbers, losses: Numbers) -> Numbers:
    """Of the log-odds of a Beta variable, but for a constant."""
    found: Numbers = wins * odds - (wins + losses) * np.logaddexp(0.0, odds)
    return found
