"""Ids that move from the key of an earlier secret to that of the current one, inside a transaction that others share.

Law: an id moves whole, with all that lies under it, in the transaction of the first write that names it; an alias moves
by itself, since what it is hashed from is known only when somebody says it. Nothing else of it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles import holdings, naming, records, tombstones
from arbiter.profiles.aliases import ALIAS_BYTES, rename_alias
from arbiter.profiles.compaction import note_erased

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group
    from arbiter.profiles.keys import Turning

REBUILD = b"rebuild:"  # in `meta`, with the id of a feature set: how far records are rewritten for it


class Rekey:
    """Move some ids. Answered with how many were under an earlier key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self.weight = 8 * len(keys)  # logs move too

    def apply(self, group: Group) -> int:
        """Move those that are not where they belong."""
        before = _waiting(group)
        for key in self._keys:
            group.resolve(key)
        return before - _waiting(group)


def turn(group: Group, key: Turning) -> None:
    """Let all that lies under earlier keys of an id lie under its current one."""
    environment, txn, to = group.environment, group.txn, bytes(key)
    for old in key.olds:
        if txn.get(old, None, environment.previous) is None:
            continue
        group.let_go(old)
        raw = txn.get(old, None, environment.profile)
        if raw is not None and len(raw) == ALIAS_BYTES:
            rename_alias(environment, txn, old, to)
        elif raw is not None:
            holdings.move_all(environment, txn, old, to)
            if txn.delete(to, db=environment.name):  # it was sealed under the old key
                naming.keep_name(environment, txn, to, key.sealed)
            _keep_rebuilding(group, to, records.decode_hot(raw).feature_set)
        tombstones.move(environment, txn, old, to)
        txn.delete(old, db=environment.previous)
        group.join(old, to)
        group.wrote = True
        if not _waiting(group):  # the last: keys of the earlier secret are in free pages until these are written anew
            note_erased(txn, environment)


def _waiting(group: Group) -> int:
    entries: int = group.txn.stat(group.environment.previous)["entries"]
    return entries


def _keep_rebuilding(group: Group, key: bytes, feature_set: str) -> None:
    """Leave no record out of the rewriting for other features, which goes by the keys and may have passed this one."""
    txn, meta = group.txn, group.environment.meta
    if feature_set == group.features.id:
        return
    if txn.get(REBUILD + group.features.id.encode(), None, meta) is not None:
        group.open_states(key)
        return
    with txn.cursor(meta) as cursor:  # others rewrite, for features that we do not know: they begin again
        there = cursor.set_range(REBUILD)
        while there and cursor.key().startswith(REBUILD):
            there = cursor.delete()
