"""The one published hash for everything that splits subjects.

Law: stable for ever; test vectors stand in docs/hashing.md. BLAKE2b (RFC 7693) with an 8-byte digest over
``salt NUL unit`` in UTF-8; its upper 53 bits, read big-endian, over 2^53.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class Drawn(str):
    """A unit whose id is not known any more, but where it fell under some salts, as a log of decisions tells it.

    Under any other salt the text stands for the id: stable, and spread alike, but not where the id falls.
    """

    __slots__ = ("shares",)

    def __new__(cls, text: str, shares: Mapping[str, float]) -> Self:
        """The unit with this text, and its shares by salt."""
        made = super().__new__(cls, text)
        made.shares = shares
        return made

    shares: Mapping[str, float]


def share(salt: str, unit: str) -> float:
    """Where `unit` falls in [0, 1) under `salt`."""
    if unit.__class__ is Drawn and salt in unit.shares:
        return unit.shares[salt]
    digest = blake2b(f"{salt}\0{unit}".encode(), digest_size=8).digest()
    # 53 bits, so that the quotient is exact and never rounds up to 1.
    return (int.from_bytes(digest, "big") >> 11) / 9007199254740992.0


def multiplier(salt: str, factor: str, level: str) -> int:
    """The odd number by which a level's draw comes from a unit's word."""
    digest = blake2b(f"{salt}\0{factor}\0{level}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1
