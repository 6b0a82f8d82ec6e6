"""Checking a store: its pages, and whether its records belong together.

Law: reads only, and gives LMDB no file whose pages were not found sound. What is not well is a `Finding`, never an
error; each says what it is about.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import lmdb
import msgspec

from arbiter.errors import StoreError
from arbiter.profiles import generations, records
from arbiter.profiles.copies import copy_as_it_is, damage_of, data_of
from arbiter.profiles.environment import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_KEY = 16
_MOST = 100


class Finding(msgspec.Struct, frozen=True):
    """Something that is not well. `where` is the database, empty for the file's structure; `key` is hexadecimal."""

    where: str
    key: str
    what: str


class Checked(msgspec.Struct, frozen=True):
    """What was checked. `findings` are the first hundred of `count`; `entries` is how many were read, by database."""

    path: str
    pages: int
    entries: dict[str, int]
    count: int
    findings: tuple[Finding, ...]


def check_store(path: Path) -> Checked:
    """Check all of the store in a folder. A store that is open elsewhere is copied first, into a folder beside it.

    One that was found damaged, and is well after all, may be opened again.

    Raises StoreError when it cannot be read at all.
    """
    data = data_of(path)
    try:
        if not generations.in_use(data.parent):
            done = _check(path, data)
            if not done.count:
                generations.absolve(path)
            return done
        with copy_as_it_is(path, data) as copy:
            return _check(path, copy)
    except lmdb.Error as error:
        raise failure(error, path, "check") from error
    except OSError as error:
        raise StoreError(f"cannot check the store in {path}: {error}") from error


def _check(path: Path, data: Path) -> Checked:
    findings = [Finding("", "", what) for what in damage_of(data)]
    entries: dict[str, int] = {}
    pages = 0
    if not findings:
        with lmdb.open(str(data.parent), max_dbs=64, readonly=True, lock=False, create=False) as handle:
            pages = handle.info()["last_pgno"] + 1
            with handle.begin() as txn:
                records_ = _Records(handle, txn)
                findings += records_.findings()
                entries = records_.entries
    return Checked(str(path), pages, entries, len(findings), tuple(findings[:_MOST]))


class _Records:
    """The records that one transaction sees."""

    def __init__(self, handle: lmdb.Environment, txn: lmdb.Transaction[bytes]) -> None:
        self._txn = txn
        self.entries: dict[str, int] = {}
        with txn.cursor() as cursor:
            names = [bytes(name) for name in cursor.iternext(keys=True, values=False)]
        self._databases = {name.decode(): handle.open_db(name, txn, create=False) for name in names}

    def findings(self) -> Iterator[Finding]:
        """All that is not well."""
        for name in ("profile", "window", "log", "by_subject", "seen", "meta"):
            if name not in self._databases:
                yield Finding(name, "", "the database is missing")
                return
        yield from self._read("profile", self._hot)
        yield from self._read("window", self._cold)
        yield from self._read("log", lambda _, value: _decoded(records.decode_event, value))
        yield from self._read("by_subject", self._place)
        yield from self._read("seen", lambda key, _: "" if len(key) >= _KEY else "the key names no subject")
        for name in self._databases.keys() - self.entries.keys():
            yield from self._read(name, lambda _key, _value: "")
        logged, placed = self.entries["log"], self.entries["by_subject"]
        if logged != placed:
            yield Finding("log", "", f"it holds {logged:,} events, and subjects have {placed:,}")
        fired, found = self.entries.get("firing", 0), self.entries.get("by_firing", 0)
        if fired != found:
            yield Finding("firing", "", f"it holds {fired:,} firings, and subjects have {found:,}")

    def _read(self, name: str, judge: Callable[[bytes, bytes], str]) -> Iterator[Finding]:
        number = 0
        with self._txn.cursor(self._databases[name]) as cursor:
            for key, value in cursor:
                number += 1
                if what := judge(key, value):
                    yield Finding(name, key.hex(), what)
        self.entries[name] = number

    def _hot(self, key: bytes, value: bytes) -> str:
        if len(key) != _KEY:
            return "the key names no subject"
        if len(value) == _KEY:  # an alias
            return "" if self._txn.get(value, None, self._databases["profile"]) else "the alias stands for nobody"
        try:
            profile = records.decode_profile(value)
            profile.changes()
        except (msgspec.MsgspecError, struct.error, ValueError, StoreError) as error:
            return f"the record cannot be read: {error}"
        return ""

    @staticmethod
    def _cold(key: bytes, value: bytes) -> str:
        return _decoded(records.decode_cold, value) if len(key) == _KEY else "the key names no subject"

    def _place(self, key: bytes, _value: bytes) -> str:
        try:
            _subject, at, position = records.displace(key)
        except struct.error as error:
            return f"the key is none: {error}"
        raw = self._txn.get(key[24:], None, self._databases["log"])
        if raw is None:
            return f"the log has no event {position:,}"
        try:
            event = records.decode_event(raw)
        except (msgspec.MsgspecError, ValueError):
            return ""  # found in the log already
        return "" if event.at == at else f"the event {position:,} is of another time"


def _decoded(decode: Callable[[bytes], object], value: bytes) -> str:
    try:
        decode(value)
    except (msgspec.MsgspecError, ValueError) as error:
        return f"the record cannot be read: {error}"
    return ""
