"""The folder of a store: one folder for each generation of its data, of which the newest counts.

Law: names, marks and renames; the one place that knows what the folder of a store looks like. A generation becomes the
newest by one rename and is never written again once another follows it. It opens no LMDB and knows no record.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from arbiter.durable import hold, replace, sync_folder, write_through
from arbiter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = "data.mdb"
LOCK = "lock.mdb"
_MARK = "made"  # the number of the newest generation that is known to stay: it says that there were data
_NEXT = "next"  # a generation that is not whole yet
_GONE = "gone-"  # before the number of a generation that is being removed
_SUPERSEDED = "superseded"  # one byte beside the data, not 0 from just before the next generation is there
_BUSY = "compaction.lock"
_SUSPECTED = "suspected"  # beside the data over which a process may have died, until they were found well
_DAMAGED = "damaged"  # beside data that nobody opens any more: it says what was found


def newest(path: Path) -> int:
    """The number of the newest generation in the folder of a store; 0 for none. Raises OSError."""
    return max(_numbers(path), default=0)


def folder(path: Path, generation: int) -> Path:
    """Where a generation's files are."""
    return path / str(generation)


def _numbers(path: Path) -> list[int]:
    return [int(name) for name in os.listdir(path) if name.isdecimal()] if path.is_dir() else []  # noqa: PTH208


def last_known(path: Path) -> int:
    """The newest generation that was ever opened here, 0 for none; -1 when all that is known is that data were here.

    Raises OSError.
    """
    try:
        text = (path / _MARK).read_text("ascii")
    except FileNotFoundError:
        return 0
    return int(text) if text.isdecimal() else -1


def settle(path: Path, generation: int) -> None:
    """Make sure that a generation's name is on disk before anything is acknowledged into it. Raises OSError."""
    if last_known(path) == generation:
        return
    sync_folder(path)
    fresh = path / f"{_MARK}.{os.getpid()}"
    fresh.write_text(str(generation), "ascii")
    fresh.replace(path / _MARK)


def mark_of(place: Path) -> memoryview:
    """One byte that all processes share and that is read in 40 ns: not 0 once another generation follows this one.

    It may be not 0 without one, when who wanted to follow was killed. Raises OSError.
    """
    handle = os.open(place / _SUPERSEDED, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not os.fstat(handle).st_size:
            os.ftruncate(handle, 1)  # of a file that has its byte it changes nothing, whoever was faster
        return memoryview(mmap.mmap(handle, 1, prot=mmap.PROT_READ))
    finally:
        os.close(handle)


def set_mark(place: Path, *, superseded: bool) -> None:
    """Say that another generation follows, or that none does after all. Only who may write does it. Raises OSError."""
    handle = os.open(place / _SUPERSEDED, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(handle, bytes([superseded]), 0)  # through the file: to a map on a full disk it would be fatal
    finally:
        os.close(handle)


def prepare_next(path: Path) -> Path:
    """An empty folder for the generation to come; what an earlier try left is removed. Raises OSError."""
    place = path / _NEXT
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    set_mark(place, superseded=False)  # its byte takes its room on the disk now
    return place


def drop_next(path: Path) -> None:
    """Remove a generation that did not come to be."""
    shutil.rmtree(path / _NEXT, ignore_errors=True)


def promote_next(path: Path, generation: int) -> None:
    """Make what was prepared, and is on disk, the newest generation in place of `generation`, 0 for none.

    The caller holds the write lock of `generation`. From the rename on all that begins is done in the new one: first
    the mark, which makes everybody look, then the name that they find. Raises OSError.
    """
    place = path / _NEXT
    sync_folder(place)
    if folder(path, generation).exists():
        set_mark(folder(path, generation), superseded=True)
    place.rename(folder(path, generation + 1))
    settle(path, generation + 1)


def suspect(path: Path) -> None:
    """Remember, over restarts, that the newest generation is to be looked at as a whole. Raises OSError."""
    write_through(folder(path, newest(path)) / _SUSPECTED, b"")


def is_suspected(path: Path) -> bool:
    """Whether the newest generation is to be looked at. Raises OSError."""
    return (folder(path, newest(path)) / _SUSPECTED).exists()


def condemn(path: Path, what: str) -> None:
    """Have nobody open the newest generation from now on, since this is damaged in it. Raises OSError."""
    place = folder(path, newest(path))
    replace(place / _DAMAGED, what.encode())
    (place / _SUSPECTED).unlink(missing_ok=True)


def absolve(path: Path) -> None:
    """The newest generation was found well: it may be opened. Raises OSError."""
    place = folder(path, newest(path))
    for mark in (place / _DAMAGED, place / _SUSPECTED):
        if mark.exists():  # a copy on a disk that is only read has none, and cannot be asked to remove it
            mark.unlink()


def damage_in(place: Path) -> str:
    """What was found damaged in the data of a generation, empty for nothing. Raises OSError."""
    try:
        return (place / _DAMAGED).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def remove_superseded(path: Path) -> int:
    """Remove the files of older generations; how many were. Who has them open keeps what it sees. Raises OSError."""
    latest = newest(path)
    for number in _numbers(path):
        if number < latest:
            folder(path, number).rename(path / f"{_GONE}{number}")  # nobody opens half of it
    gone = [each for each in path.iterdir() if each.name.startswith(_GONE)]
    for place in gone:
        shutil.rmtree(place)
    return len(gone)


def in_use(place: Path) -> bool:
    """Whether another process has the data in this folder open. Never ask in a process that has them open itself: the
    system would take its locks for given back.
    """
    with suppress(FileNotFoundError), (place / LOCK).open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def one_at_a_time(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold what makes and removes generations of a store. Raises StoreError when another process does, or waits."""
    try:
        lock = hold(path / _BUSY, wait=wait)
    except BlockingIOError:
        raise StoreError(f"the store in {path} is being compacted or moved by another process: wait") from None
    except OSError as error:
        raise StoreError(f"cannot use the store in {path}: {error}") from error
    with lock:
        yield
