"""Whether a served model answers as the original does.

Law: rows and answers in, how far they are apart out. A number may be off by the tolerance, of large ones by as much of
their size; a word must be the same, unless the original itself was within the tolerance of saying another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from arbiter.models import ModelFailure
from arbiter.training.paritycheck import ParityFile, distance
from arbiter.training.quality import numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from arbiter.models import Model
    from arbiter.training.fitting import Fitted

KEPT = 20  # rows in `parity.json`


class Expected(msgspec.Struct, frozen=True):
    """What the original says of a row, one answer for each output; `sure` says that no word was a close call."""

    answers: list[tuple[Any, ...]]
    sure: list[bool]


class Parity(msgspec.Struct, frozen=True):
    """How far a served model was from the original: the greatest difference of numbers, and how many words differ.

    `file` keeps some of the rows.
    """

    file: ParityFile
    difference: float
    misplaced: int

    @property
    def tolerance(self) -> float:
        """What was allowed."""
        return self.file.tolerance

    @property
    def kept(self) -> bool:
        """Whether it stays within the tolerance."""
        return self.difference <= self.tolerance and not self.misplaced


def expected_of(fitted: Fitted, predicted: NDArray[np.float64], tolerance: float) -> Expected:
    """The answers as a manifest has them, out of what the original predicts."""
    if fitted.kind in {"propensity", "score"}:
        return Expected([(float(value),) for value in predicted], [True] * len(predicted))
    numbers = numbers_of(fitted, predicted)
    ordered = np.sort(predicted, axis=1)
    nearest = fitted.estimator.name == "kmeans"
    best, second = (ordered[:, 0], ordered[:, 1]) if nearest else (ordered[:, -1], ordered[:, -2])
    answers = [(fitted.classes[number], float(value)) for number, value in zip(numbers, best, strict=True)]
    return Expected(answers, [bool(gap > 2 * tolerance) for gap in np.abs(best - second)])


def parity_of(
    model: Model, rows: Sequence[Sequence[Any]], expected: Expected, tolerance: float, first: Sequence[int]
) -> Parity:
    """Compare on all rows. Those that are kept are among the `first`, by number: some of each word, if there are."""
    answers = answers_to(model, rows)
    difference, misplaced = 0.0, 0
    for answer, said, sure in zip(answers, expected.answers, expected.sure, strict=True):
        apart, other = distance(answer, said)
        difference = max(difference, apart)
        misplaced += bool(other and sure)
    chosen = _chosen(expected, first)
    file = ParityFile(
        tolerance,
        [each.name for each in model.inputs],
        list(model.outputs),
        [list(rows[row]) for row in chosen],
        [list(expected.answers[row]) for row in chosen],
    )
    return Parity(file, difference, misplaced)


def answers_to(model: Model, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """What the served model says of rows with one value an input. Raises ModelFailure."""
    columns = []
    for row in rows:
        encoded = model.encode(row)
        if encoded is None:
            raise ModelFailure(f"model `{model.name}` does not take the row {list(row)!r}")
        columns.append(encoded)
    return model.run(columns)


def _chosen(expected: Expected, first: Sequence[int]) -> list[int]:
    sure = [row for row in first if expected.sure[row]]
    words: dict[Any, list[int]] = {}
    for row in sure:
        word = expected.answers[row][0]
        words.setdefault(word if isinstance(word, str) else None, []).append(row)
    each = max(1, KEPT // max(1, len(words)))
    return [row for word in sorted(words, key=str) for row in words[word][:each]]
