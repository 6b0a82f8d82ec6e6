"""Copies of a store: made while it is used, verified, and put back.

Law: a copy is itself a store folder, of one generation. What is called done is on disk and was verified; nothing that
is there is overwritten, and a restore keeps what it replaces.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import msgspec
from lmdb.verify import VerifyError, verify

from arbiter.durable import sync_folder
from arbiter.errors import StoreError
from arbiter.profiles import generations
from arbiter.profiles.environment import failure, open_environment
from arbiter.profiles.generations import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.profiles.environment import Environment

_REPLACED = "replaced-"


class Copied(msgspec.Struct, frozen=True):
    """What was copied: entries of all databases, bytes of the file, and how long it took in seconds."""

    path: str
    entries: int
    size_bytes: int
    took_s: float


class Restored(msgspec.Struct, frozen=True):
    """What a restore did. `kept` is where the data are that it replaced, empty for none."""

    path: str
    generation: int
    size_bytes: int
    kept: str


def open_existing(path: Path, map_size: int = 1 << 40) -> Environment:
    """Open a store that must be there. Raises StoreError."""
    data_of(path)
    return open_environment(path, map_size)


def data_of(path: Path) -> Path:
    """The file that holds the data of the store in a folder, of whatever schema. Raises StoreError when none does."""
    try:
        newest = generations.newest(path)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    data = (generations.folder(path, newest) if newest else path) / DATA
    if not data.is_file():
        raise StoreError(f"there is no store in {path}: name the data directory, `--data DIR`, or a copy")
    return data


def damage_of(data: Path) -> list[str]:
    """What is wrong with the structure of a file of LMDB, page by page; empty when all of it is sound.

    The file is never given to LMDB, which would end the process over some of it. Raises StoreError when it cannot be
    read.
    """
    try:
        found: list[str] = verify(str(data), False)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]
    except OSError as error:
        raise StoreError(f"cannot read {data}: {error}") from error
    return found


@contextmanager
def copy_as_it_is(path: Path, data: Path) -> Iterator[Path]:
    """A copy of a file that others may write to, one state of it, in a folder beside it that goes with the block.

    It is copied page by page, and nothing is looked at. Raises OSError, lmdb.Error.
    """
    with tempfile.TemporaryDirectory(prefix=".check-", dir=path) as folder:
        with lmdb.open(str(data.parent), max_dbs=64, readonly=True, create=False, max_readers=1024) as handle:
            handle.copy(folder)
        yield Path(folder, DATA)


def back_up(path: Path, to: Path) -> Copied:
    """Copy the store in `path` as it is now to the folder `to`, which must not be there. Servers may go on meanwhile.

    Raises StoreError; then `to` is not there either.
    """
    began = time.perf_counter()
    if to.exists():
        raise StoreError(f"{to} is there already, and nothing is overwritten: name another folder")
    draft = to.with_name(f".{to.name}.draft")
    environment = open_existing(path)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        place = generations.folder(draft, 1)
        place.mkdir(parents=True)
        environment.handle.copy(str(place), compact=True)
        entries, size = _verified(place / DATA)
        _sync(place / DATA)
        sync_folder(place)
        generations.settle(draft, 1)
        sync_folder(draft)
        draft.rename(to)
        sync_folder(to.parent)
    except lmdb.Error as error:
        raise failure(error, path, "copy") from error
    except OSError as error:
        raise StoreError(f"cannot copy the store in {path} to {to}: {error}") from error
    finally:
        environment.handle.close()
        shutil.rmtree(draft, ignore_errors=True)
    return Copied(str(to), entries, size, time.perf_counter() - began)


def restore(copy: Path, path: Path, *, replace: bool) -> Restored:
    """Make a copy of a store the newest generation of the store in `path`. No process may have that open.

    Without `replace` there must be none in `path`; with it, its data are kept beside. Raises StoreError; then nothing
    has changed.
    """
    source = data_of(copy)
    if damage := damage_of(source):
        raise StoreError(f"the copy in {copy} is damaged, nothing was restored: {damage[0]}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with generations.one_at_a_time(path):
            number = generations.newest(path)
            there = generations.folder(path, number) if number else path
            if generations.in_use(there):
                raise StoreError(f"a process has the store in {path} open: stop it, then restore")
            if (there / DATA).exists() and not replace:
                raise StoreError(f"there is a store in {path}: restore with --replace, which keeps it beside")
            place = generations.prepare_next(path)
            shutil.copyfile(source, place / DATA)
            _sync(place / DATA)
            kept = _keep(path, there) if (there / DATA).exists() else ""
            known = max(number, generations.last_known(path))  # a generation that was lost has had its number
            generations.promote_next(path, known)
            generations.remove_superseded(path)
    except OSError as error:
        raise StoreError(f"cannot restore {copy} to {path}: {error}") from error
    return Restored(str(path), known + 1, source.stat().st_size, kept)


def _keep(path: Path, place: Path) -> str:
    """Give the data in `place` a second name, where they stay when the generation is removed."""
    kept = path / f"{_REPLACED}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    kept.mkdir()
    os.link(place / DATA, kept / DATA)
    sync_folder(kept)
    sync_folder(path)
    if place == path:  # of schema 1: it would be moved to where the first generation is
        (path / DATA).unlink()
    return str(kept)


def _verified(data: Path) -> tuple[int, int]:
    """How many entries a file has, and bytes. Raises StoreError when it is damaged."""
    if damage := damage_of(data):
        raise StoreError(f"the copy is damaged, and was removed; so may be the store: check it. ({damage[0]})")
    with lmdb.open(str(data.parent), max_dbs=64, readonly=True, lock=False, create=False) as handle:
        entries = 0
        with handle.begin() as txn:
            for name in list(txn.cursor().iternext(keys=True, values=False)):
                entries += txn.stat(handle.open_db(name, txn, create=False))["entries"]
    return entries, data.stat().st_size


def _sync(data: Path) -> None:
    with data.open("rb+") as file:
        os.fsync(file.fileno())
