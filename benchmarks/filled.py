"""Stores of many profiles: a thousand people whose records are copied under other subjects' keys.

Law: fills them and says what that took; measures nothing of what is asked of them. A record is one that the store wrote
itself. What is copied are the hot and the cold record, as many as there are subjects; the log of events and the history
of versions, which grow by what happens and not by who is there, are left out.

Copies are appended in the order of their keys, so that each page is written once and is full: no call of the store's
does that, and what its own take is measured apart.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from arbiter.profiles.environment import open_environment
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import open_local
from benchmarks import servers
from benchmarks.decision import PEOPLE, ROOT, add_people

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.store import Store
    from arbiter.runtime.engine import Engine
    from arbiter.runtime.local import LocalAdmin
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters

_A_COMMIT = 100_000  # records
_MAP = 1 << 40
_NOTE = "filled.json"


class Filled(msgspec.Struct, frozen=True):
    """What filling a store took: seconds in all, and of these the writing, all of it on disk. `hot_bytes` and
    `cold_bytes` are pages of the two databases, `file_bytes` is the file; all per store.
    """

    profiles: int
    seconds: float
    writing_seconds: float
    hot_bytes: int
    cold_bytes: int
    file_bytes: int


def filled(home: Path, profiles: int) -> Filled:
    """A server's home with so many profiles, filled unless it is already."""
    note = home / _NOTE
    if not note.exists():
        if home.exists():
            raise SystemExit(f"{home} is there and was not filled to its end: remove it")
        began = time.perf_counter()
        rules = home / "rules"
        rules.mkdir(parents=True)
        for name, content in servers.ordinary("inline", model="never").rules.items():
            (rules / name).write_bytes(content)
        engine, _ = opened(home)
        add_people(engine.store)
        wait_for_upkeep(engine.store)
        engine.store.close()
        writing, hot, cold = _copy(home / "data" / "store", profiles)
        told = Filled(profiles, time.perf_counter() - began, writing, hot, cold, data_of(home).stat().st_size)
        note.write_bytes(msgspec.json.encode(told))
    return msgspec.json.decode(note.read_bytes(), type=Filled)


def opened(home: Path, counters: Counters | None = None) -> tuple[Engine, LocalAdmin]:
    """An engine over a home, which serves the rules in it."""
    return open_local(home / "rules", ROOT / "models", home / "data", counters=counters)


def snapshot_of(home: Path) -> Snapshot:
    """What the rules in a home make."""
    built = Loader(home / "rules", ROOT / "models", None).load().built
    if built is None:
        raise SystemExit("the rules do not load")
    return built.snapshot


def data_of(home: Path) -> Path:
    """The file with all records of a home."""
    (data,) = (home / "data" / "store").glob("*/data.mdb")
    return data


def wait_for_upkeep(store: Store) -> None:
    """Return once no record is left to rewrite."""
    while store.rebuilding:
        time.sleep(0.01)


def _copy(store: Path, profiles: int) -> tuple[float, int, int]:
    """Copy the first people's records; the seconds of writing, and bytes of the hot and of the cold database."""
    environment = open_environment(store, _MAP)
    with environment.handle as handle:
        keys = sorted(_keys(environment, profiles))
        began = time.perf_counter()
        for database in (environment.profile, environment.window):
            with handle.begin(db=database) as txn:
                records = [record for _, record in txn.cursor()]
            if len(records) != PEOPLE:
                raise SystemExit("a record to copy is not there")
            with handle.begin(write=True) as txn:
                txn.drop(database, delete=False)
            entries = ((key, records[(key[0] << 8 | key[1]) % PEOPLE]) for key in keys)
            for _ in range(0, profiles, _A_COMMIT):
                with handle.begin(write=True, db=database) as txn, txn.cursor() as cursor:
                    cursor.putmulti(islice(entries, _A_COMMIT), append=True)
        took = time.perf_counter() - began
        with handle.begin() as txn:
            return took, _bytes(environment, txn, environment.profile), _bytes(environment, txn, environment.window)


def _keys(environment: Environment, profiles: int) -> Iterator[bytes]:
    hashed = blake2b(digest_size=16, key=environment.salt)
    for number in range(profiles):
        each = hashed.copy()
        each.update(b"customer-%d" % number)
        yield each.digest()


def _bytes(environment: Environment, txn: lmdb.Transaction[bytes], database: lmdb._Database) -> int:
    stat = txn.stat(database)
    return (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * environment.page_bytes
