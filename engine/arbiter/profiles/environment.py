"""The LMDB environment: opening the newest generation, its sub-databases, and what its errors mean.

Law: the one place that opens LMDB and words its errors; it knows no record.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

import lmdb
import msgspec
from lmdb.verify import VerifyError, verify

from arbiter.errors import LimitExceeded, StoreError
from arbiter.profiles import generations
from arbiter.profiles.generations import DATA
from arbiter.profiles.migrations import migrate, take_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SALT = b"salt"
_NAMES = (
    "profile", "window", "log", "by_subject", "seen", "idem", "consent", "offset", "meta", "history", "tombstone",
    "alias", "previous", "name", "arrival", "whose", "waiting", "due", "firing", "by_firing",
    "reference", "unlinked", "arms",
)  # fmt: skip
_READERS = 1024
_DATABASES = 64
# LMDB's first two pages, data format 1: magic, format, page size, last page, transaction, in the machine's byte order.
_META = struct.Struct("=16xII16xI92xQQ")
_MAGIC = 0xBEEFC0DE
_LARGEST_PAGE = 65_536
# What LMDB says of a write that found no room: of one that was cut short it says EIO. The last two are quotas.
_NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG))
# And of one to a disk that takes none: mounted to be read, or since an error; a file that nobody may change.
_NO_WRITES = (errno.EROFS, errno.EPERM, errno.EACCES)
_READ_ONLY = tuple(map(os.strerror, _NO_WRITES))
# What a read meets in a damaged file: pages that are none, records that are none, texts that are none.
UNREADABLE: Final = (lmdb.Error, msgspec.MsgspecError, UnicodeDecodeError)
_WAY_BACK = (
    "Restore a backup by `arbiter store restore COPY --replace`, or move it away and send the events and updates again"
)


class Environment(msgspec.Struct, frozen=True):
    """An open generation of the store in the folder `path`, with its sub-databases.

    `begin` is that of the handle, for the read of every decision. `file` is the device and inode of its data.
    `superseded[0]` is not 0 once another generation has followed, or is about to. `salt` goes into the
    keys under which subjects lie; it never leaves the store.
    """

    path: Path
    generation: int
    handle: lmdb.Environment
    begin: Callable[[lmdb._Database], lmdb.Transaction[bytes]]
    superseded: memoryview
    file: tuple[int, int]
    page_bytes: int
    salt: bytes
    profile: lmdb._Database
    window: lmdb._Database
    log: lmdb._Database
    by_subject: lmdb._Database
    seen: lmdb._Database
    idem: lmdb._Database
    offset: lmdb._Database
    consent: lmdb._Database
    meta: lmdb._Database
    history: lmdb._Database
    tombstone: lmdb._Database
    alias: lmdb._Database
    previous: lmdb._Database
    name: lmdb._Database
    arrival: lmdb._Database
    whose: lmdb._Database
    waiting: lmdb._Database
    due: lmdb._Database
    firing: lmdb._Database
    by_firing: lmdb._Database
    reference: lmdb._Database
    unlinked: lmdb._Database
    arms: lmdb._Database

    @property
    def place(self) -> Path:
        """The folder of this generation."""
        return generations.folder(self.path, self.generation)

    def check_in_place(self) -> None:
        """Raise StoreError when the data were moved away or replaced: what is written now would be lost with them."""
        if _file_at(self.place) != self.file:
            raise StoreError(
                f"the data of the store in {self.path} were moved away or replaced while it was open, and nothing "
                f"more is written. Stop, put {self.generation}/{DATA} back: what was acknowledged is in the file that "
                f"was open"
            )

    def databases(self) -> tuple[lmdb._Database, ...]:
        """Every sub-database."""
        return tuple(getattr(self, name) for name in _NAMES)

    def used_bytes(self, txn: lmdb.Transaction) -> int:
        """Bytes of the pages that hold data, freed pages not counted."""
        pages = 0
        for database in self.databases():
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self.page_bytes


def open_environment(path: Path, map_size: int, *, scans: bool = True) -> Environment:
    """Open the store in the folder `path`, or make it. Many processes may, each once. Raises StoreError.

    `scans` is for who reads all of it in order; without, a page that is not in memory comes from the disk alone.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        take_in(path)
        while True:
            generation = _choose(path)
            try:
                opened = _open(path, generation, map_size, scans=scans)
            except (OSError, lmdb.Error, StoreError):
                if generations.newest(path) != generation:  # it was removed while it was opened
                    continue
                raise
            if generations.newest(path) == generation:
                generations.settle(path, generation)
                return opened
            opened.handle.close()
    except OSError as error:
        mend = ". Whoever opens a store writes to its folder: make that writable" if error.errno in _NO_WRITES else ""
        raise StoreError(f"cannot open the store in {path}: {error}{mend}") from error
    except lmdb.Error as error:
        raise failure(error, path, "open") from error


def _choose(path: Path) -> int:
    """The generation to open; the first one is made where there was none. Raises StoreError, OSError."""
    # In this order: others make and remove generations meanwhile, and what is known is not known before it is there.
    known = generations.last_known(path)
    generation = generations.newest(path)
    if generation < known or (known and not generation):
        generation = generations.newest(path)  # a folder that changes while it is listed may hide what it gets
    if generation < known or (known and not generation):
        lost = generations.folder(path, max(known, 1)).name
        raise StoreError(f"the store in {path} has lost its data: {lost}/{DATA} is missing. {_WAY_BACK}")
    if not generation:
        generation = 1
        generations.folder(path, generation).mkdir(exist_ok=True)
    return generation


def _open(path: Path, generation: int, map_size: int, *, scans: bool) -> Environment:
    """Open one generation. Raises StoreError, OSError, lmdb.Error."""
    place = generations.folder(path, generation)
    if found := generations.damage_in(place):
        raise damaged(path, found)
    _check_length(path, place, made=bool(generations.last_known(path)))
    superseded = generations.mark_of(place)
    handle = open_handle(place, map_size, scans=scans)
    try:
        handle.reader_check()
        databases = {name: handle.open_db(name.encode()) for name in _NAMES}
        with handle.begin(databases["meta"], write=True) as txn:
            migrate(txn, databases["meta"], path)
            txn.put(_SALT, os.urandom(16), overwrite=False)
            salt = txn.get(_SALT, b"")
        return Environment(
            path=path,
            generation=generation,
            handle=handle,
            begin=handle.begin,
            superseded=superseded,
            file=_file_at(place),
            page_bytes=handle.stat()["psize"],
            salt=salt,
            **databases,
        )
    except BaseException:
        handle.close()
        raise


def open_handle(place: Path, map_size: int, *, sync: bool = True, scans: bool = True) -> lmdb.Environment:
    """LMDB's handle on the data in a folder that is there. Without `sync` the caller sees to it. Raises lmdb.Error."""
    return lmdb.open(
        str(place), map_size=map_size, max_dbs=_DATABASES, max_readers=_READERS, max_spare_txns=1, create=False,
        sync=sync, readahead=scans,
    )  # fmt: skip


def _file_at(place: Path) -> tuple[int, int]:
    """Device and inode of the data in the folder of a generation; zeros for none."""
    try:
        found = (place / DATA).stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def damaged(path: Path, found: str) -> StoreError:
    """What to say of a store in which `found` is damaged."""
    return StoreError(f"the store in {path} is damaged, and nobody opens it: {found}. {_WAY_BACK}")


def refuse_damaged(path: Path) -> None:
    """Raise StoreError for a store that was found damaged."""
    try:
        found = generations.damage_in(generations.folder(path, generations.newest(path)))
    except OSError as error:
        raise StoreError(f"cannot read the folder of the store in {path}: {error}") from error
    if found:
        raise damaged(path, found)


def failure(error: lmdb.Error, path: Path, action: str) -> StoreError:
    """What an LMDB error means to whoever runs the store."""
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            f"the store in {path} is full: its map size is used up. Open it with a larger map_size. ({error})"
        )
    if isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return StoreError(f"the store in {path} is damaged or no store of ours. {_WAY_BACK}. ({error})")
    if isinstance(error, lmdb.MapResizedError):
        return StoreError(
            f"the store in {path} has grown beyond the address range that this process reserves, which none of ours "
            f"makes it do: restart. ({error})"
        )
    if isinstance(error, lmdb.PanicError):
        return StoreError(
            f"the store in {path} failed while it was written: restart, what was acknowledged is there. ({error})"
        )
    return StoreError(f"cannot {action} the store in {path}: {error}. What was acknowledged before is there")


def unreadable(error: Exception, path: Path) -> StoreError:
    """What one of the `UNREADABLE` means to whoever read."""
    if isinstance(error, lmdb.Error):
        return failure(error, path, "read")
    return StoreError(f"a record of the store in {path} cannot be read: {error}")


def unwritten(error: lmdb.Error, path: Path) -> StoreError | LimitExceeded:
    """What an LMDB error of a write means to whoever asked for it; LimitExceeded ``disk_full`` for lack of room, and
    ``disk_read_only`` for a disk that takes no writes: both may end, and the write be sent again.
    """
    if str(error).endswith(_NO_ROOM):
        return LimitExceeded(
            "the disk of the data directory is full, or failing: nothing of this was written. Make room there and send "
            f"it again; reads go on. ({error})",
            reason="disk_full",
        )
    if str(error).endswith(_READ_ONLY):
        return LimitExceeded(
            "the disk of the data directory takes no writes: nothing of this was written. Find out why (mounted to be "
            f"read, or after an error of the disk), make it writable and send it again; reads go on. ({error})",
            reason="disk_read_only",
        )
    return failure(error, path, "write to")


def _check_length(path: Path, place: Path, *, made: bool) -> None:
    """Raise StoreError for a file that is gone, which LMDB would make anew, or was cut short.

    LMDB would touch pages past the end of a short one, which kills the process.
    """
    data = place / DATA
    if not data.exists() or not data.stat().st_size:
        if made:
            raise StoreError(
                f"the store in {path} has lost its data: {place.name}/{DATA} is missing or empty. {_WAY_BACK}"
            )
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
        damage: list[str] = verify(str(place))  # type: ignore[no-untyped-call]
    except VerifyError as error:
        damage = [str(error)]
    if damage:
        raise StoreError(f"the store in {path} is damaged: its file was cut short. {_WAY_BACK}. ({damage[0]})")
