"""How good predictions are, in figures that have a definition.

Law: arrays in, figures out; pure. `p` are probabilities, `y` is 0 or 1 (booleans are too), one of each a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

# A probability of exactly 0 or 1 that is wrong would cost infinitely much; this is what scikit-learn takes as well.
_LEAST = float(np.finfo(np.float64).eps)


class Bin(msgspec.Struct, frozen=True):
    """Rows of like predictions: least, greatest and mean prediction, how many, and the mean of what happened."""

    low: float
    high: float
    count: int
    predicted: float
    happened: float


def auc(y: NDArray[Any], p: Numbers) -> float:
    """The probability that of a row with 1 and a row with 0 the first has the higher `p`, ties counting half: the area
    under the ROC curve by Mann and Whitney's U (Hanley and McNeil, Radiology 143, 1982). NaN where one of both lacks.
    """
    truth = np.asarray(y, dtype=bool)
    ones, zeros = int(truth.sum()), int((~truth).sum())
    if not ones or not zeros:
        return float("nan")
    return float((ranks(p)[truth].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def ranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
    found = np.empty(len(values))
    found[order] = np.repeat(first + (counts + 1) / 2, counts)
    return found


def log_loss(y: NDArray[Any], p: Numbers) -> float:
    """The mean of -log of the probability that was given to what happened."""
    return float(np.mean(log_losses(y, p)))


def log_losses(y: NDArray[Any], p: Numbers) -> Numbers:
    """The same for each row."""
    bounded = np.clip(p, _LEAST, 1 - _LEAST)
    return -np.where(np.asarray(y, dtype=bool), np.log(bounded), np.log1p(-bounded))


def brier(y: NDArray[Any], p: Numbers) -> float:
    """The mean squared distance from what happened (Brier, Monthly Weather Review 78, 1950)."""
    return float(np.mean(distances(y, p)))


def distances(y: NDArray[Any], p: Numbers) -> Numbers:
    """The squared distance of each row."""
    return np.asarray((p - np.asarray(y, dtype=np.float64)) ** 2)


def calibration(y: NDArray[Any], p: Numbers, bins: int = 10) -> list[Bin]:
    """Bins of about equally many rows, by rising prediction. Also of a score: `happened` is then the mean of `y`."""
    truth = np.asarray(y, dtype=np.float64)
    return [
        Bin(float(p[part].min()), float(p[part].max()), len(part), float(p[part].mean()), float(truth[part].mean()))
        for part in alike(p, bins)
    ]


def alike(p: Numbers, bins: int) -> list[NDArray[np.intp]]:
    """The numbers of the rows in bins of about equally many, by rising prediction."""
    return np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))


def calibration_error(bins: list[Bin]) -> float:
    """The mean distance between prediction and what happened over bins, by their rows (ECE: Naeini, Cooper and
    Hauskrecht, AAAI 2015).
    """
    rows = sum(each.count for each in bins)
    return sum(each.count * abs(each.predicted - each.happened) for each in bins) / rows


def lift(bins: list[Bin]) -> list[float]:
    """By decile, best first: how many times the mean of all happened there."""
    rows = sum(each.count for each in bins)
    mean = sum(each.count * each.happened for each in bins) / rows
    return [each.happened / mean if mean else float("nan") for each in reversed(bins)]


def class_log_loss(numbers: NDArray[Any], p: Numbers) -> float:
    """The same as `log_loss` for several classes: `numbers` says which, `p` has a column for each."""
    chosen = np.clip(p[np.arange(len(p)), np.asarray(numbers, dtype=np.int64)], _LEAST, 1.0)
    return float(-np.mean(np.log(chosen)))


def accuracy(numbers: NDArray[Any], p: Numbers) -> float:
    """The share of rows whose class has the highest probability."""
    return float(np.mean(p.argmax(axis=1) == np.asarray(numbers)))


def rmse(y: NDArray[Any], score: Numbers) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((np.asarray(y, dtype=np.float64) - score) ** 2)))


def mae(y: NDArray[Any], score: Numbers) -> float:
    """The mean absolute error."""
    return float(np.mean(np.abs(np.asarray(y, dtype=np.float64) - score)))


def r2(y: NDArray[Any], score: Numbers) -> float:
    """The share of the variance that is explained; NaN where there is none."""
    truth = np.asarray(y, dtype=np.float64)
    spread = float(((truth - truth.mean()) ** 2).sum())
    return float("nan") if not spread else 1 - float(((truth - score) ** 2).sum()) / spread


def interval(
    measure: Callable[[NDArray[Any]], float], rows: int, *, seed: int, draws: int = 200, level: float = 0.95
) -> tuple[float, float]:
    """Between which values the measure lies in a `level` share of samples drawn from the rows with replacement (the
    percentile bootstrap: Efron, Annals of Statistics 7, 1979). `measure` takes numbers of rows.
    """
    draw = np.random.default_rng(seed)
    return middle(np.array([measure(draw.integers(0, rows, rows)) for _ in range(draws)]), level)


def middle(found: Numbers, level: float) -> tuple[float, float]:
    """Between which values a `level` share of those lies that are finite; NaN where none is."""
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
