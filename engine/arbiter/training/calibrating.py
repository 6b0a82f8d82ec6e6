"""Calibration: a curve from what a model says to how often that happened, learnt from rows that it was not trained on.

Law: numbers in, a curve out that ONNX runs as a handful of plain operators; the same rows and seed give the same curve.
Converters of others' calibrated models err, so none is used: what is exported is what stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arbiter.training.spec import Calibration

    Numbers = NDArray[np.float64]

FOLDS: Final = 5  # each of which is said by a model that was fitted to the others
_BINS: Final = 20
_LEAST_ROWS: Final = 10  # of a bin
_APART: Final = 0.005  # of two knots: a steeper curve would make much of the last digits of a float
_FREE: Final = 1e6  # so little is the sigmoid held back


class Sigmoid(msgspec.Struct, frozen=True):
    """1 / (1 + exp(-(slope x + offset))) of what a model says (Platt, Advances in Large Margin Classifiers, 1999)."""

    slope: float
    offset: float

    def of(self, said: Numbers) -> Numbers:
        """What is said in its place."""
        found: Numbers = 1 / (1 + np.exp(-(self.slope * said + self.offset)))
        return found


class Steps(msgspec.Struct, frozen=True):
    """Rising, and straight between knots at `x`, where it is `y`; beyond the first and the last as there.

    The knots are bins of about equally many rows, and rise by pooling those that do not (Ayer and others, Annals of
    Mathematical Statistics 26, 1955).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def of(self, said: Numbers) -> Numbers:
        """What is said in its place."""
        found: Numbers = np.interp(said, self.x, self.y)
        return found


Curve = Sigmoid | Steps


def curve_of(way: Calibration, said: Numbers, happened: NDArray[np.int64]) -> Curve:
    """The curve for what a model `said` of rows and what `happened`, 0 or 1. Raises TrainingFailed."""
    return _sigmoid(said, happened) if way == "sigmoid" else _steps(said, happened)


def _sigmoid(said: Numbers, happened: NDArray[np.int64]) -> Sigmoid:
    """Platt's targets: of so few rows not even those that all happened are certain."""
    ones, zeros = int(happened.sum()), int((1 - happened).sum())
    target = np.where(happened == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    both = np.concatenate([said, said]).reshape(-1, 1)
    labels = np.repeat([1, 0], len(said))
    fitted = LogisticRegression(C=_FREE, max_iter=1000).fit(both, labels, np.concatenate([target, 1 - target]))
    return Sigmoid(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))


def _steps(said: Numbers, happened: NDArray[np.int64]) -> Steps:
    order = np.argsort(said, kind="stable")
    bins = [part for part in np.array_split(order, max(1, min(_BINS, len(said) // _LEAST_ROWS))) if len(part)]
    merged = [bins[0]]
    for part in bins[1:]:
        if said[part].mean() - said[merged[-1]].mean() < _APART:
            merged[-1] = np.concatenate([merged[-1], part])
        else:
            merged.append(part)
    x = np.array([said[part].mean() for part in merged])
    if len(x) < 2 or np.diff(x).min() < _APART:  # noqa: PLR2004 - a line has two ends
        raise TrainingFailed(
            "what the model says is too much alike for `calibrate: isotonic`: take `sigmoid`, or leave it out"
        )
    y = IsotonicRegression().fit_transform(
        x, [happened[part].mean() for part in merged], sample_weight=[len(part) for part in merged]
    )
    return Steps(tuple(map(float, x)), tuple(map(float, y)))
