"""Which boxes hold a point, by bit masks: one look a name, however many boxes there are.

Law: boxes by number in, integers with one bit a box out.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.lint.domains import Cells
    from arbiter.lint.space import Box

Mask = int
Point = dict[int, int]
"""Name's number → cell; a name that is not there has its domain's usual one."""

_ROOM: Final = 32 << 20  # bytes of stored masks for one name; what lies between two is made again when asked for


class Steps:
    """A mask for every cell of one name, given the cells at which each bit changes."""

    def __init__(self, first: Mask, changes: dict[int, list[int]], bits: int) -> None:
        self._cells = sorted(changes)
        self._changes = [changes[cell] for cell in self._cells]
        self._stride = max(1, len(self._cells) * (bits // 8 + 32) // _ROOM)
        self._kept = [first]
        mask = first
        for place, changed in enumerate(self._changes, 1):
            mask ^= mask_of(changed)
            if place % self._stride == 0:
                self._kept.append(mask)

    def at(self, cell: int) -> Mask:
        """The mask at a cell."""
        place = bisect_right(self._cells, cell)
        mask = self._kept[place // self._stride]
        for changed in self._changes[place - place % self._stride : place]:
            mask ^= mask_of(changed)
        return mask


class Masks:
    """The boxes that hold a point, and those that may meet a box."""

    def __init__(self, boxes: Sequence[Box | None], usual: Sequence[int]) -> None:
        """`boxes` by number, None for no box, and the usual cell of each name."""
        self._everything = mask_of(n for n, box in enumerate(boxes) if box is not None)
        changes: dict[int, dict[int, list[int]]] = {}
        silent: dict[int, Mask] = {}
        mentions: dict[int, list[int]] = {}
        for bit, box in enumerate(boxes):
            for number, cells in (box or {}).items():
                mentions.setdefault(number, []).append(bit)
                for cell in _edges(cells):
                    changes.setdefault(number, {}).setdefault(cell, []).append(bit)
        for number, bits in mentions.items():
            silent[number] = self._everything & ~mask_of(bits)
        self._steps = {number: Steps(silent[number], changes[number], len(boxes)) for number in mentions}
        self._usual = {number: steps.at(usual[number]) for number, steps in self._steps.items()}

    def holding(self, point: Point, among: Mask) -> Mask:
        """The boxes of `among` that hold a point."""
        mask = self._everything & among
        for number, unasked in self._usual.items():
            if not mask:
                break
            cell = point.get(number)
            mask &= unasked if cell is None else self._steps[number].at(cell)
        return mask


def mask_of(bits: Iterable[int]) -> Mask:
    """One integer with the given bits set."""
    mask = 0
    listed = list(bits)
    if len(listed) <= 8:  # noqa: PLR2004 - where shifting is no longer the quicker way
        for bit in listed:
            mask |= 1 << bit
        return mask
    raw = bytearray(max(listed) // 8 + 1)
    for bit in listed:
        raw[bit >> 3] |= 1 << (bit & 7)
    return int.from_bytes(raw, "little")


def bits_of(mask: Mask) -> Iterable[int]:
    """The bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _edges(cells: Cells) -> Iterable[int]:
    """The cells at which a set begins, and those right behind its runs."""
    return bits_of(cells ^ (cells << 1))
