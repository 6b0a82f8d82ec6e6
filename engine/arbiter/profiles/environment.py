"""The LMDB environment: opening, its sub-databases, its schema version, its quota, and what its errors mean.

Law: the one place that opens LMDB and words its errors; it knows no record.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import lmdb
import msgspec
from lmdb.verify import VerifyError, verify

from arbiter.errors import LimitExceeded, StoreError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
_DATA = "data.mdb"
_MARK = "made"  # an empty file beside the data: it says that there were some
_SALT = b"salt"
_SCHEMA = b"schema"
_NAMES = ("profile", "window", "log", "by_subject", "seen", "idem", "meta")
_READERS = 1024
# LMDB's first two pages, data format 1: magic, format, page size, last page, transaction, in the machine's byte order.
_META = struct.Struct("=16xII16xI92xQQ")
_MAGIC = 0xBEEFC0DE
_LARGEST_PAGE = 65_536
# What LMDB says of a write that found no room: of one that was cut short it says EIO. The last two are quotas.
_NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG))
_WAY_BACK = "Restore it from a backup, or move it away and send the events and updates again"


class Environment(msgspec.Struct, frozen=True):
    """An open environment with its sub-databases. `file` is the device and inode of its data.

    `salt` keys the hash of subject ids; it never leaves the store.
    """

    path: Path
    handle: lmdb.Environment
    file: tuple[int, int]
    page_bytes: int
    salt: bytes
    profile: lmdb._Database
    window: lmdb._Database
    log: lmdb._Database
    by_subject: lmdb._Database
    seen: lmdb._Database
    idem: lmdb._Database
    meta: lmdb._Database

    def check_in_place(self) -> None:
        """Raise StoreError when the data were moved away or replaced: what is written now would be lost with them."""
        if _file_at(self.path) != self.file:
            raise StoreError(
                f"the data of the store in {self.path} were moved away or replaced while it was open, and nothing "
                f"more is written. Stop, put {_DATA} back: what was acknowledged is in the file that was open"
            )

    def used_bytes(self, txn: lmdb.Transaction) -> int:
        """Bytes of the pages that hold data, freed pages not counted."""
        pages = 0
        for name in _NAMES:
            stat = txn.stat(getattr(self, name))
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self.page_bytes


def open_environment(path: Path, map_size: int) -> Environment:
    """Open the store in the folder `path`, or make it. Many processes may, each once. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_length(path)
        handle = lmdb.open(str(path), map_size=map_size, max_dbs=32, max_readers=_READERS, max_spare_txns=1)
    except OSError as error:
        raise StoreError(f"cannot open the store in {path}: {error}") from error
    except lmdb.Error as error:
        raise failure(error, path, "open") from error
    try:
        handle.reader_check()
        databases = {name: handle.open_db(name.encode()) for name in _NAMES}
        with handle.begin(databases["meta"], write=True) as txn:
            salt = _prepare(txn, path)
        (path / _MARK).touch()
        page_bytes, file = handle.stat()["psize"], _file_at(path)
        return Environment(path=path, handle=handle, file=file, page_bytes=page_bytes, salt=salt, **databases)
    except lmdb.Error as error:
        handle.close()
        raise failure(error, path, "open") from error
    except OSError as error:
        handle.close()
        raise StoreError(f"cannot open the store in {path}: {error}") from error
    except BaseException:
        handle.close()
        raise


def _file_at(path: Path) -> tuple[int, int]:
    """Device and inode of the data in the folder `path`; zeros for none."""
    try:
        found = (path / _DATA).stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _prepare(txn: lmdb.Transaction[bytes], path: Path) -> bytes:
    """Check the schema version, or mark a new store with ours; the salt."""
    schema = int.from_bytes(txn.get(_SCHEMA, b""), "big")
    if schema > SCHEMA:
        raise StoreError(
            f"the store in {path} has schema {schema}, we know up to {SCHEMA}: run the Arbiter that wrote it"
        )
    if schema != SCHEMA:  # what is there already is not written: a worker must be able to start on a full disk
        txn.put(_SCHEMA, SCHEMA.to_bytes(2, "big"))
    txn.put(_SALT, os.urandom(16), overwrite=False)
    return txn.get(_SALT, b"")


def failure(error: lmdb.Error, path: Path, action: str) -> StoreError:
    """What an LMDB error means to whoever runs the store."""
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            f"the store in {path} is full: its map size is used up. Open it with a larger map_size. ({error})"
        )
    if isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return StoreError(f"the store in {path} is damaged or no store of ours. {_WAY_BACK}. ({error})")
    if isinstance(error, lmdb.PanicError):
        return StoreError(
            f"the store in {path} failed while it was written: restart, what was acknowledged is there. ({error})"
        )
    return StoreError(f"cannot {action} the store in {path}: {error}. What was acknowledged before is there")


def unwritten(error: lmdb.Error, path: Path) -> StoreError | LimitExceeded:
    """What an LMDB error of a write means to whoever asked for it; LimitExceeded ``disk_full`` for lack of room."""
    if str(error).endswith(_NO_ROOM):
        return LimitExceeded(
            "the disk of the data directory is full, or failing: nothing of this was written. Make room there and send "
            f"it again; reads go on. ({error})",
            reason="disk_full",
        )
    return failure(error, path, "write to")


def _check_length(path: Path) -> None:
    """Raise StoreError for a file that is gone, which LMDB would make anew, or was cut short.

    LMDB would touch pages past the end of a short one, which kills the process.
    """
    data = path / _DATA
    if not data.exists() or not data.stat().st_size:
        if (path / _MARK).exists():
            raise StoreError(f"the store in {path} has lost its data: {_DATA} is missing or empty. {_WAY_BACK}")
        return
    with data.open("rb") as file:
        head = file.read(2 * _LARGEST_PAGE)
    pages = page_bytes = 0
    newest = -1
    for start in (0, _META.unpack_from(head)[2] if len(head) >= _META.size else 0):
        if len(head) >= start + _META.size:
            magic, layout, size, last_page, transaction = _META.unpack_from(head, start)
            if magic == _MAGIC and layout == 1 and transaction > newest:
                newest, pages, page_bytes = transaction, last_page + 1, size
    if data.stat().st_size >= pages * page_bytes:  # what is no LMDB file at all, LMDB refuses itself
        return
    try:
        # A few pages at the end may be free and never written: only what can be reached must be there.
        damage: list[str] = verify(str(path))  # type: ignore[no-untyped-call]
    except VerifyError as error:
        damage = [str(error)]
    if damage:
        raise StoreError(f"the store in {path} is damaged: its file was cut short. {_WAY_BACK}. ({damage[0]})")
