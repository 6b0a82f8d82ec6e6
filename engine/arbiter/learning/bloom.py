"""A Bloom filter: names in a few bits each.

Law: pure. A name that was put in is always found; another one is taken for one of them seldom, the seldomer the more
bits there are for each: some 9 in a hundred times at five bits, 6 in a million at 32. B. H. Bloom, "Space/time
trade-offs in hash coding with allowable errors" (1970).
"""

from __future__ import annotations

import math
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_WORDS: Final = Struct(">8I")  # of a name's hash, each of which is a place


def bloomed(names: Collection[str], size: int) -> bytes:
    """The filter of these names, of `size` bytes, at least one."""
    bits, span, many = bytearray(size), 8 * size, _places(len(names), size)
    for name in names:
        for word in _words(name)[:many]:
            place = word % span
            bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def holds(bits: bytes, count: int, name: str) -> bool:
    """Whether the filter of `count` names holds this one."""
    span, many = 8 * len(bits), _places(count, len(bits))
    return all(bits[word % span >> 3] >> (word % span & 7) & 1 for word in _words(name)[:many])


def _places(count: int, size: int) -> int:
    """How many places each name has, for the fewest mistakes."""
    return min(max(round(8 * size / max(count, 1) * math.log(2)), 1), 8)


def _words(name: str) -> tuple[int, ...]:
    return _WORDS.unpack(blake2b(name.encode(), digest_size=_WORDS.size).digest())
