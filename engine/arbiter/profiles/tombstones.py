"""Tombstones: that a subject was erased, when, and up to which time its events stay away.

Law: a subject's key and two times, nothing else of it. Nothing erases a tombstone, and events up to its time are never
stored again, so that a stream that is sent again resurrects nobody.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from arbiter.profiles.records import NEVER

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment

_TIMES = struct.Struct(">qq")


class Tombstone(NamedTuple):
    """`at` is when the subject was last erased; events up to `until` are dropped. In µs."""

    at: int
    until: int


def find(environment: Environment, txn: lmdb.Transaction[bytes], key: bytes) -> Tombstone | None:
    """The tombstone of the subject with this key, if it was ever erased."""
    raw = txn.get(key, None, environment.tombstone)
    return None if raw is None else Tombstone(*_TIMES.unpack(raw))


def raise_to(environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, stone: Tombstone) -> None:
    """Put up a tombstone; of one that is there already, the later times hold."""
    found = find(environment, txn, key) or Tombstone(NEVER, NEVER)
    later = Tombstone(max(found.at, stone.at), max(found.until, stone.until))
    txn.put(key, _TIMES.pack(*later), db=environment.tombstone)


def move(environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, to: bytes) -> None:
    """Put the tombstone of a key, if it has one, up under another."""
    stone = find(environment, txn, key)
    if stone is not None:
        raise_to(environment, txn, to, stone)
        txn.delete(key, db=environment.tombstone)
