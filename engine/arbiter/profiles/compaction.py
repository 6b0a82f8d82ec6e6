"""Compaction: a store written anew, entry by entry, into its next generation, while it is read and written.

Law: what is in the new generation is what was in the old one, and nothing else: no page of the old one is copied, so
nothing of what was deleted before it began is left. It ends whole or leaves the old generation as it was, wherever it
is killed. Writers know nothing of it but where to go on.

A reader holds one state while its entries are copied. Then what changed meanwhile is copied, again and again, and at
last under the write lock: so writes wait for the last few changes only.
"""

from __future__ import annotations

import logging
import shutil
import time
from itertools import islice
from typing import TYPE_CHECKING

import lmdb
import msgspec

from arbiter.errors import StoreError
from arbiter.profiles import generations
from arbiter.profiles.environment import failure, open_environment, open_handle
from arbiter.profiles.pages import Pages, tree_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from arbiter.profiles.environment import Environment

_log = logging.getLogger(__name__)
_ERASED = b"erased"  # how often something was erased,
_COMPACTED = b"compacted"  # and how many of these times lie before the state that this generation began with
_AT_ONCE = 20_000  # entries in a transaction of the copy
_FEW = 500  # changed entries that are left to the last step, under the lock
_ROUNDS = 20
_MAP = 1 << 40
_LOOK_S = 0.05
_ROOM = 1.1  # of what the data take: what must be free


class Compacted(msgspec.Struct, frozen=True):
    """What came of a compaction. Sizes in bytes, times in seconds; `waited_s` is how long writes could not go on.

    `caught_up` counts the entries that were copied again since they may have changed meanwhile; with `held_open` a
    process still has the old generation open.
    """

    generation: int
    entries: int
    caught_up: int
    bytes_before: int
    bytes_after: int
    took_s: float
    waited_s: float
    held_open: bool = False


def note_erased(txn: lmdb.Transaction[bytes], environment: Environment) -> None:
    """Remember, with the erasure that `txn` holds, that its traces are in the file until the next compaction."""
    times = _count(txn, environment.meta, _ERASED)
    txn.put(_ERASED, (times + 1).to_bytes(8, "big"), db=environment.meta)


def is_due(environment: Environment) -> bool:
    """Whether something was erased whose traces may still be in this generation's file. Raises StoreError."""
    try:
        with environment.handle.begin() as txn:
            return _count(txn, environment.meta, _ERASED) != _count(txn, environment.meta, _COMPACTED)
    except lmdb.Error as error:
        raise failure(error, environment.path, "read") from error


def _count(txn: lmdb.Transaction[bytes], meta: lmdb._Database, key: bytes) -> int:
    return int.from_bytes(txn.get(key, b"", meta), "big")


def compact(environment: Environment, map_size: int) -> Compacted:
    """Write the next generation of the store that is open here, and make it the newest. One at a time.

    `map_size` is the address range that it reserves, in bytes. The files of the old generation stay until
    `generations.remove_superseded`. Raises StoreError; then nothing has changed.
    """
    path = environment.path
    with generations.one_at_a_time(path):
        if generations.newest(path) != environment.generation:
            raise StoreError(f"the store in {path} was compacted meanwhile: open it again")
        try:
            _check_room(environment)
            place = generations.prepare_next(path)
            try:
                return _Compaction(environment, open_handle(place, map_size, sync=False)).run()
            except BaseException:
                if generations.newest(path) == environment.generation:
                    generations.drop_next(path)
                    generations.set_mark(environment.place, superseded=False)
                raise
        except lmdb.Error as error:
            raise failure(error, path, "compact") from error
        except OSError as error:
            raise StoreError(f"cannot compact the store in {path}: {error}. It is as it was") from error


def compact_if_erased(path: Path) -> Compacted | None:
    """As `compact_store`, if something was erased since the last time; None otherwise. Raises StoreError."""
    environment = open_environment(path, _MAP)
    try:
        due = is_due(environment)
    finally:
        environment.handle.close()
    if due:
        return compact_store(path)
    _remove_left(path)
    return None


def compact_store(path: Path, patience_s: float = 30.0) -> Compacted:
    """Compact the store in the folder `path`, which this process has not open, and remove the old generation's files.

    Processes that have it open have `patience_s` to go on to the new one; the room that the files take is free when the
    last has. Raises StoreError.
    """
    environment = open_environment(path, _MAP)
    try:
        done = compact(environment, _MAP)
    finally:
        environment.handle.close()
    until = time.monotonic() + patience_s
    while (held := generations.in_use(environment.place)) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    _remove_left(path)
    return msgspec.structs.replace(done, held_open=held)


def _remove_left(path: Path) -> None:
    """Remove what older generations left, those too whose compaction was killed before it could."""
    try:
        with generations.one_at_a_time(path):
            generations.remove_superseded(path)
    except OSError as error:
        raise StoreError(f"cannot remove the old generation of the store in {path}: {error}") from error


def _check_room(environment: Environment) -> None:
    with environment.handle.begin() as txn:
        needed = int(_ROOM * environment.used_bytes(txn))
    free = shutil.disk_usage(environment.path).free
    if free < needed:
        raise StoreError(
            f"the store in {environment.path} needs {needed:,} bytes to be compacted, and its disk has {free:,} left: "
            f"make room there"
        )


class _Compaction:
    def __init__(self, source: Environment, target: lmdb.Environment) -> None:
        self._source = source
        self._handle = source.handle
        self._target = target
        self._caught_up = 0

    def run(self) -> Compacted:
        """The whole of it."""
        began, source = time.perf_counter(), self._source
        try:
            from_ = self._handle.begin()
            try:
                erased = _count(from_, source.meta, _ERASED)
                self._copy(from_)
                from_ = self._follow(from_)
                # Now on disk, so that under the lock little is left to be written.
                self._target.sync(True)
                waiting = time.perf_counter()
                with self._handle.begin(write=True) as locked:
                    self._catch_up(from_, locked)
                    entries = self._finish(locked, erased)
                    self._target.close()  # a process that has it open cannot open it by its new name
                    generations.promote_next(source.path, source.generation)
                    locked.abort()
                waited = time.perf_counter() - waiting
            finally:
                from_.abort()
        finally:
            self._target.close()
        return Compacted(
            generation=source.generation + 1,
            entries=entries,
            caught_up=self._caught_up,
            bytes_before=(source.place / generations.DATA).stat().st_size,
            bytes_after=(generations.folder(source.path, source.generation + 1) / generations.DATA).stat().st_size,
            took_s=time.perf_counter() - began,
            waited_s=waited,
        )

    def _databases(self, txn: lmdb.Transaction[bytes]) -> dict[bytes, tuple[lmdb._Database, lmdb._Database]]:
        """Every database of the source, those too that only another version knows, with its counterpart."""
        with txn.cursor() as cursor:
            names = [bytes(name) for name in cursor.iternext(keys=True, values=False)]
        return {name: (self._handle.open_db(name, txn), self._target.open_db(name)) for name in names}

    def _copy(self, txn: lmdb.Transaction[bytes]) -> None:
        for source, target in self._databases(txn).values():
            with txn.cursor(source) as cursor:
                rows, more = iter(cursor), True
                while more:
                    with self._target.begin(target, write=True) as writing, writing.cursor() as into:
                        consumed, _ = into.putmulti(islice(rows, _AT_ONCE), append=True)
                    more = consumed == _AT_ONCE

    def _follow(self, from_: lmdb.Transaction[bytes]) -> lmdb.Transaction[bytes]:
        """Copy what changed since `from_`, until it is little; the state up to which all is copied."""
        for _ in range(_ROUNDS):
            until = self._handle.begin()
            try:
                changed = self._catch_up(from_, until)
            except BaseException:
                until.abort()
                raise
            from_.abort()
            from_ = until
            if changed <= _FEW:
                break
        return from_

    def _catch_up(self, from_: lmdb.Transaction[bytes], until: lmdb.Transaction[bytes]) -> int:
        """Bring the target from one state to a later one; how many entries were looked at."""
        changed = 0
        databases = self._databases(until)
        with (
            Pages(self._source.place / generations.DATA, self._source.page_bytes) as pages,
            self._target.begin(write=True) as into,
        ):
            for name, (source, target) in databases.items():
                keys = pages.changed_keys(tree_of(from_.get(name)), tree_of(until.get(name)))
                for key in sorted(keys):
                    value = until.get(key, None, source)
                    if value is None:
                        into.delete(key, db=target)
                    elif value != into.get(key, None, target):
                        into.put(key, value, db=target)
                changed += len(keys)
        self._caught_up += changed
        return changed

    def _finish(self, locked: lmdb.Transaction[bytes], erased: int) -> int:
        """Note what this generation is free of, and have it on disk; how many entries it has.

        Raises StoreError when it has others than the old one.
        """
        databases = self._databases(locked)
        with self._target.begin(write=True) as into:
            counts = _counts(into, {name: target for name, (_, target) in databases.items()})
            expected = _counts(locked, {name: source for name, (source, _) in databases.items()})
            if counts != expected:
                raise StoreError(f"the compacted store would hold {counts} entries, not {expected}. It is as it was")
            into.put(_COMPACTED, erased.to_bytes(8, "big"), db=databases[b"meta"][1])
        self._target.sync(True)
        return sum(counts.values())


def _counts(txn: lmdb.Transaction[bytes], databases: Mapping[bytes, lmdb._Database]) -> dict[str, int]:
    return {name.decode(): txn.stat(database)["entries"] for name, database in databases.items()}
