"""What a policy would have earned, estimated from the log of another one.

Law: arrays in, estimates out; pure. A row of the log is one choice: `rewards` holds what it earned, `logged` the
probability with which the logging policy made it (its propensity, above 0), and `chosen` the one with which the policy
that is judged would have made it. `expected` holds what a model expects of that choice, and `expected_of_policy` what
it expects of the policy in that situation: the mean over its choices. Rows must be independent of each other.

Sources. Inverse propensity: Horvitz and Thompson, JASA 47, 1952. Self-normalized: Swaminathan and Joachims, NeurIPS
2015. Doubly robust: Dudík, Langford and Li, ICML 2011. Clipping: Ionides, JCGS 17, 2008. Switching: Wang, Agarwal and
Dudík, ICML 2017. Effective sample size: Kong, 1992; Owen, Monte Carlo theory, chapter 9. Percentile bootstrap: Efron,
Annals of Statistics 7, 1979.
"""

from __future__ import annotations

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
    """The rows, each array one entry a row; see above. Without a model `expected` and `expected_of_policy` are None."""

    rewards: Numbers
    logged: Numbers
    chosen: Numbers
    expected: Numbers | None = None
    expected_of_policy: Numbers | None = None

    def weights(self, clip: float = float("inf")) -> Numbers:
        """How much more often the judged policy makes each choice than the logging one, `clip` at most."""
        return np.minimum(self.chosen / self.logged, clip)


class Estimate(msgspec.Struct, frozen=True):
    """A mean reward of the judged policy, and between which values it lies with the level that was asked for.

    `effective` is how many rows drawn from that policy itself would say as much as the weighted ones, and `heaviest`
    the share of all weight that the heaviest row has: when the first is small or the second large, believe nothing.
    """

    way: Way
    value: float
    low: float
    high: float
    rows: int
    effective: float
    heaviest: float


class NotEstimable(ValueError):
    """The rows do not allow an estimate; the message says why."""


def check(log: Log) -> None:
    """Raise NotEstimable for rows that no estimate can be made of."""
    parts = [part for part in (log.expected, log.expected_of_policy) if part is not None]
    lengths = {len(part) for part in (log.rewards, log.logged, log.chosen, *parts)}
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
    low, high = _interval(value, weights if way == "self_normalized" else None, seed, draws, level)
    return Estimate(
        way,
        float(value.sum() / total) if way == "self_normalized" else float(value.mean()),
        low,
        high,
        len(weights),
        effective_rows(weights),
        float(weights.max() / total) if total else 0.0,
    )


def effective_rows(weights: Numbers) -> float:
    """(Σw)² / Σw²: of equal weights as many as there are, of one weight alone one."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def on_policy(rewards: Numbers, *, seed: int = 0, draws: int = 1000, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of a policy's own log, with its interval: what an estimate is held against."""
    low, high = _interval(rewards, None, seed, draws, level)
    return float(rewards.mean()), low, high


def overlap(log: Log) -> float:
    """The mean of the weights. It is near 1 where the logging policy could have made every choice of the judged one;
    far from 1, propensities are wrong or choices lack.
    """
    check(log)
    return float(log.weights().mean())


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


def _interval(values: Numbers, weights: Numbers | None, seed: int, draws: int, level: float) -> tuple[float, float]:
    """Quantiles of the means of samples of the rows, or of sums of values by sums of weights."""
    draw = np.random.default_rng(seed)
    rows, found = len(values), []
    step = max(1, _AT_ONCE // rows)
    for start in range(0, draws, step):
        chosen = draw.integers(0, rows, (min(step, draws - start), rows))
        if weights is None:
            found.append(values[chosen].mean(axis=1))
        else:
            total = weights[chosen].sum(axis=1)
            found.append(np.divide(values[chosen].sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0))
    return middle(np.concatenate(found), level)
