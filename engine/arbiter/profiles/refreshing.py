"""Records brought up to date while nobody waits: those that a clock has left behind, and those of another feature set.

Law: nothing depends on it for being right; reads compute what a record lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles import records
from arbiter.profiles.aliases import ALIAS_BYTES
from arbiter.profiles.figures import Rebuilding
from arbiter.profiles.group import BUILT
from arbiter.profiles.rekeying import REBUILD
from arbiter.profiles.subjects import is_right

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group


_COUNTED = b"counted"  # the keys of the features that all records were last written for


class Refresh:
    """Bring hot records up to the clock that reads found out of date."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self.weight = len(keys)

    def apply(self, group: Group) -> None:
        """Rewrite those that are still out of date."""
        for key in self._keys:
            if not is_right(group.open(key).profile, group.features, group.now):
                group.open_states(key)


class Rebuild:
    """Rewrite the next few records that were computed for another feature set. All processes share the position.

    The set that all records were last written for stands in the store, so that whoever goes on knows what has changed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.weight = limit

    def apply(self, group: Group) -> tuple[str, Rebuilding | None]:
        """The feature set's id, and what remains to be done for it; None when that is nothing."""
        features, environment, txn = group.features, group.environment, group.txn
        meta, mark = environment.meta, features.id.encode()
        if txn.get(BUILT, None, meta) == mark:
            return features.id, None
        progress = REBUILD + mark
        group.wrote = True
        with txn.cursor(environment.profile) as cursor:
            found = cursor.set_range(txn.get(progress, b"", meta))
            for _ in range(self._limit):
                if not found:
                    break
                value = cursor.value()
                if len(value) != ALIAS_BYTES and records.decode_hot(value).feature_set != features.id:
                    group.open_states(cursor.key())
                found = cursor.next()
            if found:
                key = cursor.key()
                txn.put(progress, key, db=meta)
                # Keys are hashes, evenly spread: the place of one tells how many come after it.
                ahead = 1.0 - int.from_bytes(key, "big") / (1 << 128)
                left = max(1, round(ahead * txn.stat(environment.profile)["entries"]))
                return features.id, Rebuilding(features.names(without=_keys(txn.get(_COUNTED, b"", meta))), left)
        txn.delete(progress, db=meta)
        txn.put(BUILT, mark, db=meta)
        txn.put(_COUNTED, "\n".join(features.by_key).encode(), db=meta)
        return features.id, None


def _keys(stored: bytes) -> frozenset[str]:
    return frozenset(stored.decode().split("\n"))
