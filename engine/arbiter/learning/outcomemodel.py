"""What a choice is expected to earn: the mean of what it earned elsewhere in the log.

Law: arrays in, arrays out; pure. It is the model of doubly robust estimates, which are right with any model, and surer
with a good one: this one knows choices, and nothing of who they were made for. Of a row it knows only what other units
did (cross-fitting: Chernozhukov et al., Econometrics Journal 21, 2018), so that no row is expected to earn what it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Whole = NDArray[np.int64]

FOLDS: Final = 5
PRIOR: Final = 10.0
"""So many rows of the mean over all choices are added to each choice: what was made seldom is expected to be usual."""


def crossfitted(arms: Whole, rewards: Numbers, units: Whole, choices: int) -> Numbers:
    """By fold and choice the expected reward of a row, from the rows of the other folds. `arms` has the choice of each
    row, a number below `choices`; the fold of a unit is its number modulo `FOLDS`. A choice that no other fold made is
    expected to earn the mean of all.
    """
    place = (units % FOLDS) * choices + arms
    shape = (FOLDS, choices)
    earned = np.bincount(place, rewards, FOLDS * choices).reshape(shape)
    times = np.bincount(place, minlength=FOLDS * choices).reshape(shape)
    earned, times = earned.sum(axis=0) - earned, times.sum(axis=0) - times
    rows = times.sum(axis=1, keepdims=True)
    usual = np.divide(earned.sum(axis=1, keepdims=True), rows, out=np.zeros((FOLDS, 1)), where=rows > 0)
    found: Numbers = (earned + PRIOR * usual) / (times + PRIOR)
    return found
