"""How subjects went between the labels of an output over time: segments, classes.

Law: answers at moments in, counts out. A subject that has no event yet at a moment is new where it comes, and one of
which the model can say nothing is unknown: nobody is left out in silence.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.models import Answer, Model

UNKNOWN: Final = "(unknown)"
NEW: Final = "(not there yet)"


class Flow(msgspec.Struct, frozen=True):
    """An output over time. `sizes` are by moment (µs) and word, `moves` between each moment and the next one, by the
    word from which and the word to which; the last two words are those of nobody's label.
    """

    output: str
    moments: list[int]
    words: list[str]
    sizes: list[list[int]]
    moves: list[list[list[int]]]


class Flows:
    """Counts the outputs of a model that have labels, at `moments` (µs), which rise."""

    def __init__(self, model: Model, moments: Sequence[int]) -> None:
        self.moments = list(moments)
        names = list(model.outputs)
        self._labelled = {name: (names.index(name), [*labels, UNKNOWN, NEW]) for name, labels in model.labels.items()}
        self._ways: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def add(self, answers: Sequence[Answer | None], since: int) -> None:
        """Count a subject that is there `since` its first event (µs): an answer for each moment, None for none."""
        for name, (place, _) in self._labelled.items():
            way = [self._word(answer, place, at, since) for answer, at in zip(answers, self.moments, strict=True)]
            self._ways[name, tuple(way)] += 1

    @staticmethod
    def _word(answer: Answer | None, place: int, at: int, since: int) -> str:
        if at < since:
            return NEW
        said = None if answer is None else answer[place]
        return UNKNOWN if said is None else str(said)

    def found(self) -> list[Flow]:
        """What was counted, by output."""
        return [self._flow(name, words) for name, (_, words) in self._labelled.items()]

    def _flow(self, name: str, words: list[str]) -> Flow:
        place = {word: number for number, word in enumerate(words)}
        sizes = [[0] * len(words) for _ in self.moments]
        moves = [[[0] * len(words) for _ in words] for _ in self.moments[1:]]
        for (output, way), count in self._ways.items():
            if output != name:
                continue
            numbers = [place[word] for word in way]
            for moment, number in enumerate(numbers):
                sizes[moment][number] += count
            for moment, (left, right) in enumerate(itertools.pairwise(numbers)):
                moves[moment][left][right] += count
        return Flow(name, self.moments, words, sizes, moves)
