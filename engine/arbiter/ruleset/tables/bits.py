"""Sets of small numbers as the bits of one integer.

Law: integers in, integers out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def joined(masks: Iterable[int]) -> int:
    """The bits of all masks."""
    found = 0
    for mask in masks:
        found |= mask
    return found


def mask_of(numbers: Iterable[int]) -> int:
    """The mask with the bits of these numbers, built in linear time."""
    found = bytearray()
    for number in numbers:
        if number >= len(found) * 8:
            found.extend(bytes(number // 8 + 1 - len(found)))
        found[number // 8] |= 1 << number % 8
    return int.from_bytes(found, "little")


def bits_of(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def runs_of(region: int) -> Iterator[tuple[int, int]]:
    """The half-open ranges of neighbouring bits."""
    start = 0
    while region:
        gap = (region & -region).bit_length() - 1
        region >>= gap
        length = (~region & (region + 1)).bit_length() - 1
        start += gap
        yield start, start + length
        start += length
        region >>= length
