"""A store goes on in a new generation: nothing acknowledged is lost, reads see it, and a kill leaves one store."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import StoreError
from arbiter.profiles import generations
from arbiter.profiles.compaction import Compacted, _Compaction, compact, is_due, note_erased
from arbiter.profiles.environment import open_environment
from arbiter.profiles.holdings import erase_all
from arbiter.profiles.pages import Pages, tree_of
from arbiter.profiles.store import Store, Update

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE = Path(__file__).parents[2] / "engine"
NOW = 1 << 60
MAP = 1 << 30
# Adds one, again and again; says what it was answered, after it has read it itself.
WRITER = """
import sys
from pathlib import Path
from arbiter.profiles.store import Store, Update
with Store.open(Path(sys.argv[1]), background=False) as store:
    me = sys.argv[2]
    print("open", flush=True)
    for line in sys.stdin:
        subject = line.strip()
        if subject == "shared?":
            print(store.read("shared", 1 << 60).attributes.get("n", 0), flush=True)
            continue
        version = store.update(Update(subject, increment={"n": 1, me: 1})).result()
        read = store.read(subject, 1 << 60)
        assert read.version >= version, (read.version, version)
        print(version, flush=True)
"""
COMPACTOR = """
import sys
from pathlib import Path
from arbiter.profiles import generations
from arbiter.profiles.compaction import compact
from arbiter.profiles.environment import open_environment
path = Path(sys.argv[1])
while True:
    print("compacting", flush=True)
    environment = open_environment(path, 1 << 30)
    compact(environment, 1 << 30)
    environment.handle.close()
    generations.remove_superseded(path)
"""


def spawn(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, *map(str, arguments)],
        env={"PYTHONPATH": str(ENGINE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Peer:
    """Another process on the same store."""

    def __init__(self, folder: Path, name: str) -> None:
        self.process = spawn(WRITER, folder, name)
        assert self._hear() == "open"

    def ask(self, line: str) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self._hear())

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def peers(folder: Path, *names: str) -> Iterator[list[Peer]]:
    """Processes on the store, of which each must end well."""
    started = [Peer(folder, name) for name in names]
    try:
        yield started
        assert [each.end() for each in started] == [0] * len(started)
    finally:
        for each in started:
            each.process.kill()


def fill(folder: Path, people: int) -> None:
    with Store.open(folder, background=False) as store:
        for future in [store.update(Update(f"s{n}", {"name": f"person {n}"})) for n in range(people)]:
            future.result()


def compact_once(folder: Path) -> Compacted:
    environment = open_environment(folder, MAP)
    try:
        return compact(environment, MAP)
    finally:
        environment.handle.close()


KEYS = st.binary(min_size=1, max_size=40)
CHANGES = st.lists(
    st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 9000))), max_size=60
)  # None deletes, a number is the bytes of a value: some take pages of their own


@settings(max_examples=60)
@given(many=st.integers(0, 800), first=CHANGES, second=CHANGES)
def test_what_the_pages_say_has_changed_holds_all_that_did(
    tmp_path_factory: pytest.TempPathFactory, many: int, first: list[tuple[bytes, int | None]],
    second: list[tuple[bytes, int | None]],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("pages")
    with lmdb.open(str(folder), max_dbs=2, map_size=MAP, sync=False) as handle:
        database = handle.open_db(b"it")

        def change(changes: list[tuple[bytes, int | None]]) -> dict[bytes, bytes]:
            for start in range(0, len(changes), 7):
                with handle.begin(database, write=True) as txn:
                    for key, size in changes[start : start + 7]:
                        if size is None:
                            txn.delete(key)
                        else:
                            txn.put(key, random.randbytes(size))  # noqa: S311 - content, not traces
            with handle.begin(database) as txn:
                return {bytes(key): bytes(value) for key, value in txn.cursor()}

        before = change([*((b"%09d" % n, 20) for n in range(many)), *first])
        with handle.begin() as old:
            after = change(second)
            with handle.begin() as new, Pages(folder / "data.mdb", handle.stat()["psize"]) as pages:
                found = pages.changed_keys(tree_of(old.get(b"it")), tree_of(new.get(b"it")))
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed <= found
        assert found <= before.keys() | after.keys()
        if many > 700 and not second:
            assert not found


def test_few_changes_are_found_without_reading_the_rest(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2, map_size=MAP) as handle:
        database = handle.open_db(b"it")
        with handle.begin(database, write=True) as txn:
            for n in range(50_000):
                txn.put(b"%09d" % n, b"x" * 50)
        with handle.begin() as old:
            with handle.begin(database, write=True) as txn:
                txn.put(b"%09d" % 25_000, b"y")
            with handle.begin() as new, Pages(tmp_path / "data.mdb", handle.stat()["psize"]) as pages:
                found = pages.changed_keys(tree_of(old.get(b"it")), tree_of(new.get(b"it")))
    assert b"%09d" % 25_000 in found
    assert len(found) < 300


def test_a_process_goes_on_in_the_new_generation_with_all_that_was_there(tmp_path: Path) -> None:
    fill(tmp_path, 500)
    with Store.open(tmp_path, background=False) as store:
        name = store.pseudonym("s1")
        done = compact(store._environment, MAP)
        assert (done.generation, done.bytes_after < done.bytes_before) == (2, True)
        assert store._environment.generation == 2
        assert generations.remove_superseded(tmp_path) == 1
        assert store.update(Update("s1", {"more": True})).result() == 2
        assert store.pseudonym("s1") == name
        assert {store.read(f"s{n}", NOW).attributes["name"] for n in range(500)} == {f"person {n}" for n in range(500)}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["2", "compaction.lock", "made"]
    with Store.open(tmp_path, background=False) as store:
        assert store.read("s1", NOW).attributes == {"name": "person 1", "more": True}


def test_a_process_lets_go_of_the_old_generation_by_itself(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    with peers(tmp_path, "idle") as (idle,):
        compact_once(tmp_path)
        old = tmp_path / "1"
        assert generations.in_use(old)
        assert idle.ask("shared?") == 0
        assert not generations.in_use(old)
        assert generations.in_use(tmp_path / "2")


def test_upkeep_lets_go_of_it_though_nobody_asks(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        compact(store._current.environment, MAP)
        store._upkeep._wake.set()  # as the seconds that it waits at most would
        until = time.monotonic() + 60
        while store._current.environment.generation == 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert store._current.environment.generation == 2


def test_writers_and_readers_in_other_processes_go_on_through_many_generations(tmp_path: Path) -> None:
    fill(tmp_path, 2000)
    acknowledged, ended, done = 0, threading.Event(), []

    def again() -> None:
        while not ended.is_set():
            done.append(compact_once(tmp_path))
            generations.remove_superseded(tmp_path)

    with peers(tmp_path, "a", "b", "c") as (one, other, reader):
        thread = threading.Thread(target=again)
        thread.start()
        try:
            until = time.monotonic() + 3
            while time.monotonic() < until or len(done) < 5:
                for writer in (one, other):
                    acknowledged += 1
                    assert writer.ask("shared") == acknowledged
                    # A read that begins after an acknowledged write sees it, whoever reads.
                    assert reader.ask("shared?") == acknowledged
        finally:
            ended.set()
            thread.join()
    assert [each.generation for each in done] == list(range(2, len(done) + 2))
    with Store.open(tmp_path, background=False) as store:
        attributes = store.read("shared", NOW).attributes
        assert (attributes["n"], attributes["a"] + attributes["b"]) == (acknowledged, acknowledged)
        assert store.read("s1999", NOW).attributes == {"name": "person 1999"}


def test_a_compaction_killed_anywhere_leaves_one_store_that_goes_on(tmp_path: Path) -> None:
    generator = random.Random(20261128)  # noqa: S311 - moments, not traces
    fill(tmp_path, 300)
    written = 0
    with peers(tmp_path, "a", "b") as both:
        for _ in range(12):
            compactor = spawn(COMPACTOR, tmp_path)
            with compactor:
                assert compactor.stdout is not None
                compactor.stdout.readline()
                until = time.monotonic() + generator.uniform(0.0, 0.08)
                while time.monotonic() < until:
                    written += 1
                    assert both[written % 2].ask("shared") == written
                compactor.kill()
            written += 1
            assert both[written % 2].ask("shared") == written
            assert both[1 - written % 2].ask("shared?") == written
        assert compact_once(tmp_path).entries
        generations.remove_superseded(tmp_path)
        assert both[0].ask("shared?") == written
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 1
    with Store.open(tmp_path, background=False) as store:
        assert store.read("shared", NOW).attributes["n"] == written
        assert store.read("s299", NOW).version == 1


def test_a_mark_without_a_generation_that_follows_is_taken_back_by_the_next_write(tmp_path: Path) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
        generations.set_mark(tmp_path / "1", superseded=True)  # where a compaction was killed
        assert store.read("ann", NOW).attributes == {"a": 1}
        assert store.update(Update("ann", {"a": 2})).result() == 2
        assert not store._environment.superseded[0]
        assert store.read("ann", NOW).attributes == {"a": 2}


def test_only_one_compaction_runs_at_a_time(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with generations.one_at_a_time(tmp_path), pytest.raises(StoreError, match="being compacted or moved by another"):
        compact_once(tmp_path)


def test_a_generation_that_is_lost_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    compact_once(tmp_path)
    (tmp_path / "2").rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"has lost its data: 2/data\.mdb is missing"):
        Store.open(tmp_path)


def test_what_was_deleted_is_nowhere_in_the_files_after_a_compaction(tmp_path: Path) -> None:
    trace = "person 77"
    fill(tmp_path, 400)
    with Store.open(tmp_path, background=False) as store:
        key = store._key("s77")
    environment = open_environment(tmp_path, MAP)
    with environment.handle.begin(write=True) as txn:
        assert erase_all(environment, txn, key)
        note_erased(txn, environment)
    assert is_due(environment)
    assert trace.encode() in (tmp_path / "1" / "data.mdb").read_bytes()
    compact(environment, MAP)
    environment.handle.close()
    generations.remove_superseded(tmp_path)
    for file in (each for each in tmp_path.rglob("*") if each.is_file()):
        assert trace.encode() not in file.read_bytes()
    environment = open_environment(tmp_path, MAP)
    assert not is_due(environment)
    environment.handle.close()


def test_an_erasure_while_a_store_is_compacted_waits_for_the_next_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 10)
    environment = open_environment(tmp_path, MAP)

    copy = _Compaction._copy

    def erase(self: _Compaction, txn: lmdb.Transaction[bytes]) -> None:
        copy(self, txn)
        with environment.handle.begin(write=True) as writing:
            note_erased(writing, environment)

    monkeypatch.setattr(_Compaction, "_copy", erase)
    compact(environment, MAP)
    monkeypatch.undo()
    environment.handle.close()
    environment = open_environment(tmp_path, MAP)
    assert is_due(environment)
    compact(environment, MAP)
    environment.handle.close()
    environment = open_environment(tmp_path, MAP)
    assert not is_due(environment)
    environment.handle.close()


def test_databases_that_only_another_version_knows_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with lmdb.open(str(tmp_path / "1"), max_dbs=64) as handle:
        database = handle.open_db(b"of_tomorrow")
        with handle.begin(database, write=True) as txn:
            txn.put(b"key", b"value")
    compact_once(tmp_path)
    with lmdb.open(str(tmp_path / "2"), max_dbs=64) as handle:
        database = handle.open_db(b"of_tomorrow", create=False)
        with handle.begin(database) as txn:
            assert txn.get(b"key") == b"value"


FULL = """
import resource, sys
from pathlib import Path
from arbiter.errors import StoreError
from arbiter.profiles.compaction import compact
from arbiter.profiles.store import Store, Update
with Store.open(Path(sys.argv[1]), background=False) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        compact(store._environment, 1 << 30)
    except StoreError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert store.update(Update("s1", {"a": 1})).result() == 2
    assert compact(store._environment, 1 << 30).generation == 2
    assert store.read("s1", 0).version == 2
"""


def test_a_full_disk_ends_a_compaction_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, 1000)
    process = spawn(FULL, tmp_path)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "cannot compact the store in" in said
