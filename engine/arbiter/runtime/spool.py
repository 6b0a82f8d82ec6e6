"""Rows of the decision log on their way to Parquet: segments, each written by one process and read by others.

Law: who writes a segment holds a lock on it, so that a segment without an owner is whole, whether that ended well or by
`kill -9`. It is a sequence of frames of packed heads or rows, each behind its kind, length and checksum (CRC-32): one
that was cut off is the end. What was synced outlives a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.durable import sync_folder
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

FOLDER: Final = "spool"
MIB: Final = 1 << 20
_HEADS, _ROWS = b"H", b"R"
_LEAD: Final = struct.Struct(">cII")
_ARRAY: Final = struct.Struct(">BI")  # MessagePack's `array 32`
DECIDED: Final = ".rows"
"""How segments of decisions end."""
TOLD: Final = ".told"
"""And those of exposures and outcomes."""


class LogFull(ArbiterError):
    """The disk of the log has no more room than is to be left free."""


def spool_of(directory: Path) -> Path:
    """Where the segments of a log are."""
    return directory / FOLDER


def segments(directory: Path, *suffixes: str) -> list[Path]:
    """The segments of a log that end in one of these, or all, the oldest first."""
    wanted = suffixes or (DECIDED, TOLD)
    return sorted(path for suffix in wanted for path in spool_of(directory).glob(f"[!.]*{suffix}"))


def check_room(directory: Path, spare: int) -> None:
    """Raise LogFull unless the disk has more than `spare` bytes for us."""
    free = os.statvfs(directory)
    left = free.f_bavail * free.f_frsize
    if left <= spare:
        raise LogFull(
            f"{directory} has {left:,} bytes left, and decision_log.spare_mib keeps {spare:,} free: make room, or give "
            "the log another disk"
        )


class Spool:
    """Writes segments below the log's `directory`: a new one when the last is older than `seconds` or has `most` bytes.

    `spare` bytes are left free on the disk. `suffix` says of what its rows are. For one thread.
    """

    def __init__(self, directory: Path, *, seconds: float, most: int, spare: int, suffix: str = DECIDED) -> None:
        self._directory = directory
        self._folder = spool_of(directory)
        self._seconds = seconds
        self._most = most
        self._spare = spare
        self._suffix = suffix
        self._file = -1
        self._size = 0
        self._heads: set[bytes] = set()
        self._until = 0.0
        self._unsynced = False

    def write(self, rows: Sequence[bytes], heads: Collection[bytes], count: int | None = None) -> None:
        """Write rows, all of them or none, behind those heads that the segment has not. Raises LogFull, OSError.

        `count` says how many they are, where they are not one by one.
        """
        if self._file >= 0 and (self._size >= self._most or time.monotonic() >= self._until):
            self.seal()
        if self._file < 0:
            self._begin()
        new = [head for head in tuple(heads) if head not in self._heads]
        parts = _frame(_ROWS, rows, len(rows) if count is None else count)
        if new:
            parts = (*_frame(_HEADS, new, len(new)), *parts)
        try:
            size = _write_all(self._file, parts)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._heads.update(new)
        self._size += size
        self._unsynced = True

    def sync(self) -> None:
        """Have what was written outlive a power cut. Raises OSError."""
        if self._unsynced:
            os.fdatasync(self._file)
            self._unsynced = False

    def check(self) -> None:
        """Raise LogFull or OSError where nothing can be written now."""
        for folder in (self._directory, self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_room(self._folder, self._spare)

    def age(self) -> None:
        """Seal a segment whose time is over, though nothing more is to be written."""
        if self._file >= 0 and time.monotonic() >= self._until:
            self.seal()

    def seal(self) -> None:
        """End the segment, if there is one: others may take it from now on. Raises OSError."""
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                if self._unsynced:
                    os.fdatasync(file)
            finally:
                self._unsynced = False
                os.close(file)

    def _begin(self) -> None:
        self.check()
        name = f"{time.time_ns() // 1000:017d}-{os.getpid()}-{secrets.token_hex(4)}{self._suffix}"
        draft, path = self._folder / f".{name}", self._folder / name
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Under its own name only when it is locked: nobody may take it for one that was left.
            fcntl.flock(file, fcntl.LOCK_EX)
            draft.rename(path)
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        self._file, self._size, self._until = file, 0, time.monotonic() + self._seconds
        self._heads.clear()


@contextlib.contextmanager
def taken(path: Path) -> Iterator[bool]:
    """While the block runs, whether the segment is ours: nobody writes it any more."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


def _write_all(file: int, parts: Sequence[bytes]) -> int:
    """Write parts behind each other; how many bytes. A disk that fills takes some first, and says so at the next."""
    size, written = sum(map(len, parts)), os.writev(file, parts)
    if written < size:
        content = b"".join(parts)
        while written < size:
            written += os.write(file, content[written:])
    return size


class Frame(msgspec.Struct, frozen=True):
    """A frame of a segment: what it holds, packed, and where the next one begins."""

    heads: bytes
    rows: bytes
    end: int


def frames(path: Path, start: int = 0) -> Iterator[Frame]:
    """The whole frames of a segment from byte `start` on. Raises OSError."""
    with path.open("rb") as file:
        file.seek(start)
        while len(lead := file.read(_LEAD.size)) == _LEAD.size:
            kind, length, checksum = _LEAD.unpack(lead)
            content = file.read(length)
            start += _LEAD.size + length
            if len(content) < length or zlib.crc32(content) != checksum:
                return
            yield Frame(content if kind == _HEADS else b"", content if kind == _ROWS else b"", start)


def _frame(kind: bytes, packed: Sequence[bytes], count: int) -> tuple[bytes, ...]:
    """So many packed things as one packed list, and before it what it is."""
    start, content = _ARRAY.pack(0xDD, count), b"".join(packed)
    lead = _LEAD.pack(kind, len(start) + len(content), zlib.crc32(content, zlib.crc32(start)))
    return lead + start, content
