"""Whether boxes together cover a box, and if not, a point that they leave.

Law: exact. Only when the work passes its bound is the answer that nobody knows, and that is not a finding.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.lint.masks import bits_of
from arbiter.lint.space import met

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.lint.masks import Mask, Masks, Point
    from arbiter.lint.space import Box, Space

_STEPS: Final = 2_000
_CANDIDATES: Final = 64  # best first, among which the one to take out next is chosen


class Left(msgspec.Struct, frozen=True):
    """A part of the box in whose plainest point too few of the others hold, and that point."""

    box: Box
    point: Point


class Covered(msgspec.Struct, frozen=True):
    """Every point is taken; `by` are the boxes that were needed."""

    by: frozenset[int]


class Exhausted(msgspec.Struct, frozen=True):
    """It takes too long to say."""


class Cover:
    """Looks for a point of a box at which a rule could still win.

    `boxes` are the boxes that take a slot for certain where they hold, `classes` their conflict classes: of one class
    one slot at least is taken. Boxes in `blocking` leave nothing, whatever the slots.
    """

    def __init__(self, space: Space, boxes: Sequence[Box | None], masks: Masks, classes: Sequence[int]) -> None:
        self._space = space
        self._boxes = boxes
        self._masks = masks
        self._classes = classes
        self.steps = 0  # taken since the bound was last set

    def search(self, box: Box, among: Mask, blocking: Mask, slots: int) -> Left | Covered | Exhausted:
        """Search one box."""
        used: set[int] = set()
        pending: list[tuple[Box, frozenset[int]]] = [(box, frozenset())]
        self.steps = 0
        while pending:
            here, taken = pending.pop()
            self.steps += 1
            if self.steps > _STEPS:
                return Exhausted()
            point = point_in(here)
            usable = (
                bit
                for bit in bits_of(self._masks.holding(point, among))
                if blocking >> bit & 1 or self._classes[bit] not in taken
            )
            holding = list(islice(usable, _CANDIDATES))
            if not holding:
                return Left(here, point)
            best = self._best(here, holding, blocking)
            used.add(best)
            box_of = self._boxes[best]
            assert box_of is not None  # noqa: S101 - it holds a point
            pending += [(piece, taken) for piece in _outside(here, box_of, self._everything)]
            if not blocking >> best & 1 and len(taken) + 1 < slots:
                pending.append((met(here, box_of), taken | {self._classes[best]}))
        return Covered(frozenset(used))

    def _best(self, here: Box, holding: list[int], blocking: Mask) -> int:
        """The box to take out next: one that leaves nothing, else one that leaves little."""
        least, chosen = None, holding[0]
        for bit in holding:
            left = sum(1 for n, cells in (self._boxes[bit] or {}).items() if here.get(n, self._everything(n)) & ~cells)
            rank = (left, not blocking >> bit & 1)
            if least is None or rank < least:
                least, chosen = rank, bit
                if rank == (0, False):
                    break
        return chosen

    def _everything(self, number: int) -> int:
        return self._space.domains[number].everything


def point_in(box: Box) -> Point:
    """A point of a box that is not empty: nothing where nothing is asked, else the plainest value."""
    return {number: (cells & -cells).bit_length() - 1 for number, cells in box.items()}


def far_point_in(box: Box) -> Point:
    """Another point of a box that is not empty, as far from the plainest as can be."""
    return {number: cells.bit_length() - 1 for number, cells in box.items()}


def _outside(box: Box, other: Box, everything: Callable[[int], int]) -> list[Box]:
    """What of a box is not in the other, as boxes that do not meet."""
    pieces = []
    rest = dict(box)
    for number, cells in other.items():
        here = rest.get(number, everything(number))
        if outside := here & ~cells:
            pieces.append({**rest, number: outside})
        rest[number] = here & cells
    return pieces
