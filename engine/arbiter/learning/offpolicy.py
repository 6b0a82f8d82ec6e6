"""What a policy would have earned, estimated from the log of another one.

Law: arrays in, estimates out; pure. A row of the log is one choice: `rewards` holds what it earned, `logged` the
probability with which the logging policy made it (its propensity, above 0), and `chosen` the one with which the policy
that is judged would have made it. `expected` holds what a model expects of that choice, and `expected_of_policy` what
it expects of the policy in that situation: the mean over its choices. Rows must be independent of each other, but for
those with the same number in `units`: what one subject did several times, say.

Sources. Inverse propensity: Horvitz and Thompson, JASA 47, 1952. Self-normalized: Swaminathan and Joachims, NeurIPS
2015. Doubly robust: Dudík, Langford and Li, ICML 2011. Clipping: Ionides, JCGS 17, 2008. Switching: Wang, Agarwal and
Dudík, ICML 2017. Effective sample size: Kong, 1992; Owen, Monte Carlo theory, chapter 9. Percentile bootstrap: Efron,
Annals of Statistics 7, 1979; of whole units: Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8.
"""

from __future__ import annotations

from math import erfc, sqrt
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from arbiter.learning.measures import middle

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

Way = Literal["inverse_propensity", "self_normalized", "direct", "doubly_robust", "switched"]
_AT_ONCE = 4_000_000  # numbers of a bootstrap that are in memory together


class Log(msgspec.Struct, frozen=True):
    """The rows, each array one entry a row; see above. Without a model `expected` and `expected_of_policy` are None.
    `units` are numbers from 0, None where each row is one of its own.
    """

    rewards: Numbers
    logged: Numbers
    chosen: Numbers
    expected: Numbers | None = None
    expected_of_policy: Numbers | None = None
    units: NDArray[np.int64] | None = None

    def weights(self, clip: float = float("inf")) -> Numbers:
        """How much more often the judged policy makes each choice than the logging one, `clip` at most."""
        return np.minimum(self.chosen / self.logged, clip)


class Estimate(msgspec.Struct, frozen=True):
    """A mean reward of a row by the judged policy, and between which values it lies with the level that was asked for.
    `gain` is by how much that is more than the same rows earned as they are, with an interval of its own.

    `effective` is how many units drawn from that policy itself would say as much as the weighted ones, and `heaviest`
    the share of all weight that the heaviest unit has: when the first is small or the second large, believe nothing.
    """

    way: Way
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    rows: int
    effective: float
    heaviest: float


class NotEstimable(ValueError):
    """The rows do not allow an estimate; the message says why."""


def check(log: Log) -> None:
    """Raise NotEstimable for rows that no estimate can be made of."""
    parts = [part for part in (log.expected, log.expected_of_policy) if part is not None]
    units = [] if log.units is None else [log.units]
    lengths = {len(part) for part in (log.rewards, log.logged, log.chosen, *parts, *units)}
    if len(lengths) != 1 or not lengths - {0}:
        raise NotEstimable(f"there must be one entry of each array for each row, and one row at least: {lengths}")
    if not all(np.isfinite(part).all() for part in (log.rewards, log.logged, log.chosen, *parts)):
        raise NotEstimable("an entry is no finite number")
    if (log.logged <= 0).any() or (log.logged > 1).any():
        raise NotEstimable("a propensity lies outside (0, 1]: what was never possible cannot have been logged")
    if (log.chosen < 0).any() or (log.chosen > 1 + 1e-9).any():
        raise NotEstimable("a probability of the judged policy lies outside [0, 1]")


def estimate(
    log: Log, way: Way, *, clip: float = float("inf"), seed: int = 0, draws: int = 1000, level: float = 0.95
) -> Estimate:
    """One estimate with its interval, of `draws` bootstrap samples of the rows. Raises NotEstimable.

    `clip` bounds the weights (for ``switched`` it is the weight beyond which the model is believed instead): less
    variance for some bias.
    """
    check(log)
    if way in {"direct", "doubly_robust", "switched"} and (log.expected is None or log.expected_of_policy is None):
        raise NotEstimable(f"`{way}` needs what a model expects: `expected` and `expected_of_policy`")
    weights = log.weights(float("inf") if way == "switched" else clip)
    value = _WAYS[way](log, weights, clip)
    total = float(weights.sum())
    if way == "self_normalized" and not total:
        raise NotEstimable("the judged policy makes none of the choices that were logged")
    rows = np.ones(len(weights))
    below = weights if way == "self_normalized" else rows
    sums = [_by_unit(each, log.units) for each in (value, below, log.rewards, rows)]
    (low, high), (gain_low, gain_high) = _intervals(sums, seed, draws, level)
    mean, of_unit = float(value.sum() / below.sum()), _by_unit(weights, log.units)
    return Estimate(
        way,
        mean,
        low,
        high,
        mean - float(log.rewards.mean()),
        gain_low,
        gain_high,
        len(weights),
        effective_rows(of_unit),
        float(of_unit.max() / total) if total else 0.0,
    )


def effective_rows(weights: Numbers) -> float:
    """(Σw)² / Σw²: of equal weights as many as there are, of one weight alone one."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def on_policy(
    rewards: Numbers, *, units: NDArray[np.int64] | None = None, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean of a policy's own log, with its interval: what an estimate is held against."""
    sums = [_by_unit(each, units) for each in (rewards, np.ones(len(rewards)))]
    ((low, high),) = _intervals(sums, seed, draws, level)
    return float(rewards.mean()), low, high


def overlap(log: Log) -> float:
    """The mean of the weights. It is near 1 where the logging policy could have made every choice of the judged one;
    far from 1, propensities are wrong or choices lack.
    """
    check(log)
    return float(log.weights().mean())


def overlap_p(log: Log) -> float:
    """The probability that the mean of the weights is at least as far from 1 as it is, where every choice of the judged
    policy could have been logged with the propensity that is said: by the normal approximation over units.
    """
    check(log)
    excess = _by_unit(log.weights() - 1, log.units)
    spread = float((excess**2).sum())
    return erfc(abs(float(excess.sum())) / sqrt(2 * spread)) if spread else 1.0


def _inverse(log: Log, weights: Numbers, _clip: float) -> Numbers:
    return log.rewards * weights


def _direct(log: Log, _weights: Numbers, _clip: float) -> Numbers:
    assert log.expected_of_policy is not None  # noqa: S101 - asked before
    return log.expected_of_policy


def _doubly_robust(log: Log, weights: Numbers, _clip: float) -> Numbers:
    assert log.expected is not None  # noqa: S101 - asked before
    assert log.expected_of_policy is not None  # noqa: S101
    return log.expected_of_policy + weights * (log.rewards - log.expected)


def _switched(log: Log, weights: Numbers, clip: float) -> Numbers:
    return _doubly_robust(log, np.where(weights <= clip, weights, 0.0), clip)


# By way, what each row contributes: the estimate is their mean, or by the weights their sum divided by that of these.
_WAYS: dict[Way, Callable[[Log, Numbers, float], Numbers]] = {
    "inverse_propensity": _inverse,
    "self_normalized": _inverse,
    "direct": _direct,
    "doubly_robust": _doubly_robust,
    "switched": _switched,
}


def _by_unit(values: Numbers, units: NDArray[np.int64] | None) -> Numbers:
    return values if units is None else np.bincount(units, values).astype(np.float64)


def _intervals(sums: list[Numbers], seed: int, draws: int, level: float) -> list[tuple[float, float]]:
    """Quantiles over samples of the units, of the ratio of the first two sums; of four, too, of what that is more than
    the ratio of the other two.
    """
    draw = np.random.default_rng(seed)
    units = len(sums[0])
    found: list[list[Numbers]] = [[] for _ in sums[::2]]
    step = max(1, _AT_ONCE // units)
    for start in range(0, draws, step):
        chosen = draw.integers(0, units, (min(step, draws - start), units))
        ratios = [_ratio(*pair, chosen) for pair in zip(sums[::2], sums[1::2], strict=True)]
        found[0].append(ratios[0])
        for rest in found[1:]:
            rest.append(ratios[0] - ratios[1])
    return [middle(np.concatenate(each), level) for each in found]


def _ratio(above: Numbers, below: Numbers, chosen: NDArray[np.int64]) -> Numbers:
    """By sample the ratio of two sums, NaN where nothing is below."""
    total = below[chosen].sum(axis=1)
    found: Numbers = np.divide(above[chosen].sum(axis=1), total, out=np.full(len(total), np.nan), where=total != 0)
    return found
