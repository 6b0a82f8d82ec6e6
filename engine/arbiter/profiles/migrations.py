"""Stores that an older Arbiter wrote, brought to the schema that this one knows.

Law: the one place that knows what older schemas looked like. A step is harmless when it is cut off: what moves files
goes on where it stopped, and what changes entries shares a transaction with the number of the schema.

Schema 1 had its data in the folder of the store itself; since schema 2 each generation has a folder of its own. The
entries are the same: nothing is rewritten, so no backup is made first. Schema 3 keeps the names of a hot record apart
from its values; records of before are read as they are, and change their form when they are next written. A later step
that rewrites entries belongs into `migrate`, and makes a backup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.durable import sync_folder
from arbiter.errors import StoreError
from arbiter.profiles.generations import DATA, LOCK, folder, in_use, newest, one_at_a_time

if TYPE_CHECKING:
    from pathlib import Path

    import lmdb

SCHEMA = 3
_KEY = b"schema"
_MOVING = "moving"


def take_in(path: Path) -> None:
    """Move the data of a store of schema 1 to where its first generation is. Raises StoreError, OSError."""
    moving = path / _MOVING
    if not (path / DATA).exists() and not moving.exists():
        return
    with one_at_a_time(path, wait=True):
        if (path / DATA).exists():
            if newest(path):
                raise StoreError(
                    f"the folder {path} holds two stores, {DATA} and the generation {newest(path)}: move the one away "
                    f"that does not belong there"
                )
            if in_use(path):
                raise StoreError(f"the store in {path} is open in an older Arbiter: stop that, then start this one")
            moving.mkdir(exist_ok=True)
            (path / DATA).rename(moving / DATA)
        if moving.exists():  # else another process was faster
            sync_folder(moving)
            moving.rename(folder(path, 1))
            sync_folder(path)
            (path / LOCK).unlink(missing_ok=True)


def schema_of(txn: lmdb.Transaction[bytes], meta: lmdb._Database) -> int:
    """The schema of a store, 0 for one that is being made."""
    return int.from_bytes(txn.get(_KEY, b"", meta), "big")


def migrate(txn: lmdb.Transaction[bytes], meta: lmdb._Database, path: Path) -> None:
    """Bring the entries to our schema, or mark a new store with it. Raises StoreError for a newer one."""
    schema = schema_of(txn, meta)
    if schema > SCHEMA:
        raise StoreError(
            f"the store in {path} has schema {schema}, we know up to {SCHEMA}: run the Arbiter that wrote it"
        )
    if schema != SCHEMA:  # what is there already is not written: a worker must be able to start on a full disk
        txn.put(_KEY, SCHEMA.to_bytes(2, "big"), db=meta)
