"""Aliases: ids that stand for a subject that is known by another.

Law: an alias is a value of 16 bytes in the database `profile`, the key of the subject that it stands for, and that is
never an alias itself: whoever moves a subject moves its aliases too. The database `alias` has them by subject: its key,
then the alias's, with the µs time at which it was linked. Works inside a transaction that others begin and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.profiles.keys import Turning
from arbiter.profiles.records import moment

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment

    Transaction = lmdb.Transaction[bytes]

ALIAS_BYTES: Final = 16
"""No record of a profile is as short: it holds the id of its feature set, which is as long."""


def standing_for(environment: Environment, txn: Transaction, key: bytes) -> bytes:
    """The key under which all of the subject lies: this one, unless it is an alias, or an earlier one is still used."""
    raw = txn.get(key, None, environment.profile)
    if raw is None and isinstance(key, Turning):
        for old in key.olds:
            raw = txn.get(old, None, environment.profile)
            if raw is not None or txn.get(old, None, environment.tombstone) is not None:
                key = old
                break
    return raw if raw is not None and len(raw) == ALIAS_BYTES else key


def aliases_of(environment: Environment, txn: Transaction, key: bytes) -> list[bytes]:
    """The keys of a subject's aliases."""
    found = []
    with txn.cursor(environment.alias) as cursor:
        there = cursor.set_range(key)
        while there and cursor.key().startswith(key):
            found.append(cursor.key()[ALIAS_BYTES:])
            there = cursor.next()
    return found


def add_alias(environment: Environment, txn: Transaction, key: bytes, alias: bytes, at: int) -> None:
    """Let `alias`, whose own record this replaces, stand for the subject from `at` (µs) on."""
    txn.put(alias, key, db=environment.profile)
    txn.put(key + alias, moment(at), db=environment.alias)


def rename_alias(environment: Environment, txn: Transaction, alias: bytes, to: bytes) -> None:
    """Let another key stand for the subject in the place of `alias`, linked when that was."""
    key = txn.get(alias, b"", environment.profile)
    linked = txn.get(key + alias, b"", environment.alias)
    txn.put(to, key, db=environment.profile)
    txn.put(key + to, linked, db=environment.alias)
    txn.delete(alias, db=environment.profile)
    txn.delete(key + alias, db=environment.alias)
