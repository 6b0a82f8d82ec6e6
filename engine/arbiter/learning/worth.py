"""What a model's scores were worth, by what happened to those who were scored.

Law: arrays in, figures and sentences out; pure. Rows of one subject are not independent, so every interval counts
subjects and not rows. What so few outcomes cannot show is said beside what they show.

Sources. Area under the curve: Mann and Whitney's U; its variance over clustered rows: Obuchowski, Biometrics 53, 1997,
which is that of DeLong (Biometrics 44, 1988) where each row is a cluster; its interval on the scale of the logit (Pepe,
The Statistical Evaluation of Medical Tests, 2003). Shares over clustered rows: Rao and Scott, Biometrics 48, 1992, with
the exact binomial tail, which is no narrower than that of unlike probabilities (Hoeffding, Annals of Mathematical
Statistics 27, 1956).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from arbiter.learning import measures
from arbiter.learning.chance import binomial_beyond, normal_quantile
from arbiter.learning.effects import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Counted = NDArray[np.intp]

FEW: Final = 10
"""Outcomes, and decisions without one, below which nothing is judged."""
CHANCE: Final = 1 / 30_000
"""A difference that chance gives more often than in so many looks is none."""
_SURE: Final = 4.0  # the same in normal deviations
_LEVEL: Final = 0.95
_BINS: Final = 10
_FINE: Final = 0.02  # to which the area under the curve would be worth knowing


class Marks(msgspec.Struct, frozen=True):
    """What raises an alarm, where it is beyond chance: an area under the curve that is by more than `fallen` below that
    at training, and what happens where it differs from what was said by more than the share `off` of what is rarer,
    that it happens or that it does not.
    """

    fallen: float = 0.05
    off: float = 0.25


class Estimate(msgspec.Struct, frozen=True):
    """A figure, and the 95 % interval of it; NaN where nothing is known."""

    value: float
    low: float
    high: float


class Level(measures.Bin, frozen=True):
    """Decisions of like scores, and the 95 % interval of the share that had the outcome. `chance` is how likely a share
    so far from the mean score is where scores are right.
    """

    least: float
    most: float
    chance: float


class Trained(msgspec.Struct, frozen=True):
    """The area under the curve on the rows that were held out at training, and its standard error."""

    auc: float
    error: float


class Worth(msgspec.Struct, frozen=True):
    """What scores were worth: of so many `decisions` of `subjects` so many `happened`. `at_training` is the area under
    the curve on rows held out, None where it is not known. Scores that are no probability have no `log_loss`, `brier`
    and `calibration_error`; `gain` is by how much the log loss is below that of who says the same of all, the mean.

    `alarms` says in words what is not as it should be, `notes` what so many outcomes can and cannot show.
    """

    decisions: int
    subjects: int
    happened: int
    auc: Estimate
    at_training: float | None
    log_loss: Estimate | None
    gain: Estimate | None
    brier: Estimate | None
    predicted: float
    levels: list[Level]
    calibration_error: float | None
    alarms: list[str]
    notes: list[str]


def worth(
    y: NDArray[Any],
    scores: Numbers,
    whose: Counted,
    *,
    probable: bool,
    trained: Trained | None = None,
    marks: Marks | None = None,
) -> Worth:
    """Judge scores by whether it happened, `y`, with a number for whose each row is. `probable` scores are
    probabilities. There must be a row.
    """
    marks = marks or Marks()
    truth = np.asarray(y, dtype=bool)
    happened = int(truth.sum())
    enough = min(happened, len(truth) - happened) >= FEW
    area, error = auc(truth, scores, whose)
    bins = max(1, min(_BINS, happened // FEW))
    correlation = together(truth, scores, whose) if probable else 0.0
    levels = [level(truth[rows], scores[rows], whose[rows], correlation) for rows in measures.alike(scores, bins)]
    alarms = []
    if enough and trained is not None:
        lost = trained.auc - area.value
        if lost > max(marks.fallen, _SURE * math.hypot(error, trained.error)):
            alarms.append(f"it ranks worse than at training: an AUC of {area.value:.3f}, which was {trained.auc:.3f}")
    if enough and probable:
        alarms += _miscalibrated(level(truth, scores, whose, correlation), levels, marks.off)
    gain = mean(_means_losses(truth) - measures.log_losses(truth, scores), whose) if probable else None
    return Worth(
        decisions=len(truth),
        subjects=len(np.unique(whose)),
        happened=happened,
        auc=area,
        at_training=None if trained is None else trained.auc,
        log_loss=mean(measures.log_losses(truth, scores), whose) if probable else None,
        gain=gain,
        brier=mean(measures.distances(truth, scores), whose) if probable else None,
        predicted=float(scores.mean()),
        levels=levels,
        calibration_error=measures.calibration_error([*levels]) if probable else None,
        alarms=alarms,
        notes=_notes(happened, len(truth), area, gain) if enough else [_too_few(happened, len(truth))],
    )


def auc(truth: NDArray[np.bool_], scores: Numbers, whose: Counted) -> tuple[Estimate, float]:
    """The area under the curve with its interval, and its standard error. Nothing is known of either where no two
    subjects have the outcome, or none have not; nor where nobody is ranked wrongly, of how sure that is.
    """
    ones, zeros = int(truth.sum()), int((~truth).sum())
    if not ones or not zeros:
        return Estimate(math.nan, math.nan, math.nan), math.nan
    all_ranks = measures.ranks(scores)
    above = (all_ranks[truth] - measures.ranks(scores[truth])) / zeros  # of each with it, the share that it is above
    below = 1 - (all_ranks[~truth] - measures.ranks(scores[~truth])) / ones
    area = float(above.mean())
    subjects, numbers = np.unique(whose, return_inverse=True)
    with_it = np.bincount(numbers[truth], above - area, len(subjects))
    without = np.bincount(numbers[~truth], below - area, len(subjects))
    groups = len(subjects), len(np.unique(numbers[truth])), len(np.unique(numbers[~truth]))
    if min(groups) < 2:  # noqa: PLR2004 - no variance
        return Estimate(area, math.nan, math.nan), math.nan
    both, some, others = (count / (count - 1) for count in groups)
    variance = (
        some * float((with_it**2).sum()) / ones**2
        + others * float((without**2).sum()) / zeros**2
        + 2 * both * float((with_it * without).sum()) / (ones * zeros)
    )
    error = math.sqrt(max(0.0, variance))
    if not error or not 0 < area < 1:
        return Estimate(area, math.nan, math.nan), math.nan
    middle, half = math.log(area / (1 - area)), normal_quantile((1 + _LEVEL) / 2) * error / (area * (1 - area))
    return Estimate(area, *(1 / (1 + math.exp(-each)) for each in (middle - half, middle + half))), error


def mean(values: Numbers, whose: Counted) -> Estimate:
    """The mean over rows, with an interval by subjects."""
    value = float(values.mean())
    off = _by_subject(values - value, whose)
    if len(off) < 2:  # noqa: PLR2004 - no variance
        return Estimate(value, math.nan, math.nan)
    error = math.sqrt(len(off) / (len(off) - 1) * float((off**2).sum())) / len(values)
    half = normal_quantile((1 + _LEVEL) / 2) * error
    return Estimate(value, value - half, value + half)


def together(truth: NDArray[np.bool_], scores: Numbers, whose: Counted) -> float:
    """How much rows of one subject go together, from 0 to 1: the correlation within it of what scores do not explain,
    by how much less sure the sum over all is than it would be without (Kish, Survey Sampling, 1965).
    """
    off = truth - scores
    off -= off.mean()
    alone, more = float((off**2).sum()), _alike(whose) - 1
    if not alone or not more:
        return 0.0
    return min(1.0, max(0.0, (float((_by_subject(off, whose) ** 2).sum()) / alone - 1) / more))


def level(truth: NDArray[np.bool_], scores: Numbers, whose: Counted, correlation: float) -> Level:
    """What was said and what happened over some rows, of which those of one subject go `together` so much."""
    predicted, happened, count = float(scores.mean()), float(truth.mean()), len(truth)
    of = count / (1 + correlation * (_alike(whose) - 1))  # they stand for so many independent ones
    _, least, most = wilson(happened * of, of, _LEVEL)
    likely = binomial_beyond(happened * of, of, min(1.0, max(0.0, predicted)))
    return Level(float(scores.min()), float(scores.max()), count, predicted, happened, least, most, likely)


def _alike(whose: Counted) -> float:
    """How many rows a row shares its subject with, in the mean, itself counted."""
    counts = np.unique(whose, return_counts=True)[1]
    return float((counts**2).sum() / counts.sum())


def _by_subject(values: Numbers, whose: Counted) -> Numbers:
    _, numbers = np.unique(whose, return_inverse=True)
    return np.asarray(np.bincount(numbers, values), dtype=np.float64)


def _means_losses(truth: NDArray[np.bool_]) -> Numbers:
    """What it costs to say the mean of all."""
    return measures.log_losses(truth, np.full(len(truth), truth.mean()))


def _miscalibrated(whole: Level, levels: list[Level], off: float) -> list[str]:
    looks = CHANCE / (len(levels) + 1)

    def wrong(each: Level) -> bool:
        rarer = min(each.predicted, 1 - each.predicted)
        return each.chance < looks and abs(each.happened - each.predicted) > off * rarer

    def said(each: Level) -> str:
        return f"{each.happened:.2%} happened where it said {each.predicted:.2%}"

    if wrong(whole):
        return [f"it is not calibrated: {said(whole)}, over all"]
    return [
        f"it is not calibrated from {each.low:.4g} to {each.high:.4g}: {said(each)}" for each in levels if wrong(each)
    ]


def _too_few(happened: int, rows: int) -> str:
    other = "" if rows - happened >= FEW else f", and of {rows - happened:,} without one"
    return (
        f"{happened:,} outcomes{other} say nothing of how good a model is: figures of fewer than {FEW} are told, and "
        "nothing is judged"
    )


def _notes(happened: int, rows: int, area: Estimate, gain: Estimate | None) -> list[str]:
    notes = []
    half = (area.high - area.low) / 2
    if math.isnan(half):
        notes.append("all rank as it happened, or all do who count: how sure that is cannot be said")
    else:
        rarer = min(happened, rows - happened)
        more = math.ceil(rarer * (half / _FINE) ** 2)
        known = f"{happened:,} outcomes know the AUC to ±{half:.3f}: a loss of less than that cannot be seen"
        notes.append(known + (f"; for ±{_FINE} it takes about {_rounded(more)}" if more > rarer else ""))
        if area.low <= 0.5 <= area.high:  # noqa: PLR2004 - chance
            notes.append("they do not show that it ranks better than chance")
    if gain is not None and gain.low <= 0 <= gain.high:
        notes.append("they do not show that it says more than who says the same of all, the mean")
    return notes


def _rounded(count: int) -> str:
    """To two figures: it is an estimate."""
    size = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / size) * size:,}"
