"""How many bytes of data a store may hold: a number in the store itself, which every process obeys from its next write.

Law: a quota stands in the store, or else the one counts that it was opened with. Within the address range that is
reserved LMDB's file grows by itself, so a quota is all that ever has to grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import lmdb
import msgspec

from arbiter.errors import StoreError
from arbiter.profiles.copies import open_existing
from arbiter.profiles.environment import unwritten

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.profiles.environment import Environment

DEFAULT: Final = 1 << 36
MOST: Final = 3 << 38  # three quarters of the address range: free pages and pages that readers hold need room too
_KEY = b"quota"


class Quota(msgspec.Struct, frozen=True):
    """What data there are, and may be, in bytes; `chosen` says whether the latter was set by somebody."""

    used_bytes: int
    quota_bytes: int
    chosen: bool


def quota_of(environment: Environment, txn: lmdb.Transaction[bytes], otherwise: int) -> int:
    """The quota that the store has for itself, or the other, in bytes."""
    raw = txn.get(_KEY, None, environment.meta)
    return otherwise if raw is None else int.from_bytes(raw, "big")


def set_quota(path: Path, size: int | None) -> Quota:
    """Give the store in the folder `path` a quota of its own, 0 for that of who opens it; None changes nothing.

    Servers that have it open obey with their next write. Raises StoreError, LimitExceeded for a full disk.
    """
    if size is not None and size > MOST:
        raise StoreError(f"a store holds {MOST:,} bytes at most: choose a lower quota, or part the subjects")
    environment = open_existing(path)
    try:
        with environment.handle.begin(write=size is not None) as txn:
            if size:
                txn.put(_KEY, size.to_bytes(8, "big"), db=environment.meta)
            elif size == 0:
                txn.delete(_KEY, db=environment.meta)
            quota = quota_of(environment, txn, 0)
            return Quota(environment.used_bytes(txn), quota or DEFAULT, bool(quota))
    except lmdb.Error as error:
        raise unwritten(error, path) from error
    finally:
        environment.handle.close()
