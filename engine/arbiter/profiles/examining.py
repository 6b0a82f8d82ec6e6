"""Finding out whether a store over which a process died is damaged.

Law: for a process of its own, which a damaged page may end: nothing here is called where calls are served. It reads
only; what follows from what it finds is the caller's matter.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import lmdb

from arbiter.errors import StoreError
from arbiter.profiles.copies import copy_as_it_is, damage_of, data_of

if TYPE_CHECKING:
    from pathlib import Path

_ROOM = 1.2  # of the file: what must be free for a copy of it


def walk(path: Path) -> str:
    """Read every entry through LMDB, as those who serve do; what is damaged, empty for nothing.

    A page may be so damaged that it ends the process. Raises StoreError when the store cannot be read.
    """
    data = data_of(path)
    try:
        with (
            lmdb.open(str(data.parent), max_dbs=64, readonly=True, create=False, max_readers=1024) as handle,
            handle.begin(buffers=True) as txn,
        ):
            with txn.cursor() as cursor:
                names = [bytes(name) for name in cursor.iternext(keys=True, values=False)]
            found = (_walk(txn, handle.open_db(name, txn, create=False), name) for name in names)
            return next(filter(None, found), "")
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.IncompatibleError) as error:
        return str(error)
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"cannot read the store in {path}: {error}") from error


def _walk(txn: lmdb.Transaction[memoryview], database: lmdb._Database, name: bytes) -> str:
    number, before = 0, b""
    with txn.cursor(database) as cursor:
        for key, _ in cursor:
            found = bytes(key)
            if found <= before:  # no key is empty
                return f"entries of `{name.decode()}` are out of order"
            number, before = number + 1, found
    expected = txn.stat(database)["entries"]
    return "" if number == expected else f"`{name.decode()}` has {number:,} entries, and should have {expected:,}"


def verify(path: Path) -> str:
    """Look at every page of a copy, those too that are free, which `walk` cannot; what is damaged, empty for nothing.

    Raises StoreError when there is no room for the copy, or the store cannot be read.
    """
    data = data_of(path)
    try:
        free, needed = shutil.disk_usage(path).free, int(_ROOM * data.stat().st_size)
        if free < needed:
            raise StoreError(f"a copy of it needs {needed:,} bytes, and its disk has {free:,} left")
        with copy_as_it_is(path, data) as copy:
            return next(iter(damage_of(copy)), "")
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"cannot copy the store in {path}: {error}") from error
