"""Stores of older schemas open and are right, however often the move was cut off; newer ones are refused."""

from __future__ import annotations

import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import lmdb
import msgspec
import pytest

from arbiter.errors import StoreError
from arbiter.expr import shaped
from arbiter.expr.shaped import Shaped
from arbiter.profiles import records
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.rules import Feature
from arbiter.types import Event

COUNT = Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")
NOW = 1 << 60
SALT = bytes(range(16))
OPEN = "import lmdb, sys, time; handle = lmdb.open(sys.argv[1], max_dbs=16); print('open', flush=True); time.sleep(600)"


def key_of(subject_id: str) -> bytes:
    return blake2b(subject_id.encode(), digest_size=16, key=SALT).digest()


def write_schema_1(folder: Path) -> None:
    """A store as Arbiter wrote it before schema 2: data in the folder itself, hot records of seven fields."""
    folder.mkdir(exist_ok=True)
    with lmdb.open(str(folder), max_dbs=16, map_size=1 << 30) as handle:
        names = ("profile", "window", "log", "by_subject", "seen", "idem", "meta")
        databases = {name: handle.open_db(name.encode()) for name in names}
        with handle.begin(write=True) as txn:
            txn.put(b"schema", b"\0\1", db=databases["meta"])
            txn.put(b"salt", SALT, db=databases["meta"])
            for n in range(50):
                key = key_of(f"s{n}")
                times = records.pack_times({"name": 0}, {"name": 5})
                hot = [1, {"name": f"person {n}"}, {}, "of an older set", records.NEVER, None, times]
                txn.put(key, msgspec.msgpack.encode(hot), db=databases["profile"])
                txn.put(key, msgspec.msgpack.encode([{}]), db=databases["window"])
                event = msgspec.msgpack.encode(Event(f"e{n}", f"s{n}", "buy", 7, {}))
                place = records.place(key, 7, n + 1)
                txn.put(place[24:], event, db=databases["log"])
                txn.put(place, b"", db=databases["by_subject"])
                txn.put(key + blake2b(f"e{n}".encode(), digest_size=16).digest(), b"", db=databases["seen"])
    (folder / "made").touch()


def expect_whole(folder: Path) -> None:
    with Store.open(folder, background=False) as store:
        store.use_features(FeatureSet([COUNT]))
        for n in range(50):
            profile = store.read(f"s{n}", NOW)
            assert (profile.version, profile.attributes) == (1, {"name": f"person {n}"})
            assert profile.features == {"buys": 1}
            assert profile.changes()["profile.name"] == 5
        assert store.ingest([Event("e1", "s1", "buy", 7, {})]).result().duplicates == 1
        assert store.update(Update("s1", {"name": "another"})).result() == 2
        with store._environment.handle.begin(store._environment.meta) as txn:
            assert txn.get(b"schema") == b"\0\3"
    assert not (folder / "data.mdb").exists()
    assert not (folder / "lock.mdb").exists()
    assert (folder / "1" / "data.mdb").exists()


@pytest.mark.parametrize("cut_off", ["nowhere", "after the folder", "after the data"])
def test_a_store_of_schema_1_opens_and_is_right_wherever_its_move_was_cut_off(tmp_path: Path, cut_off: str) -> None:
    write_schema_1(tmp_path)
    if cut_off != "nowhere":
        (tmp_path / "moving").mkdir()
    if cut_off == "after the data":
        (tmp_path / "data.mdb").rename(tmp_path / "moving" / "data.mdb")
    expect_whole(tmp_path)


def test_processes_that_open_a_store_of_schema_1_at_once_move_it_once(tmp_path: Path) -> None:
    write_schema_1(tmp_path)
    script = (
        "import sys; from pathlib import Path; from arbiter.profiles.store import Store\n"
        "with Store.open(Path(sys.argv[1]), background=False) as store: print(store.read('nobody', 0).version)"
    )
    started = [
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", script, str(tmp_path)],
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "engine")},
        )
        for _ in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    expect_whole(tmp_path)


def test_a_store_that_an_older_arbiter_has_open_is_left_alone(tmp_path: Path) -> None:
    write_schema_1(tmp_path)
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", OPEN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as older:
        assert older.stdout is not None
        older.stdout.readline()
        try:
            with pytest.raises(StoreError, match="is open in an older Arbiter: stop that"):
                Store.open(tmp_path)
        finally:
            older.kill()
    expect_whole(tmp_path)


def test_a_store_of_schema_2_reads_as_before_and_its_records_change_their_form_when_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hot records have dictionaries where names and values are apart now; nothing else differs."""
    monkeypatch.setattr(shaped, "_shared", set())  # as if this process had written nothing before
    with Store.open(tmp_path, background=False) as store:
        store.use_features(FeatureSet([COUNT]))
        for n in range(20):
            store.update(Update(f"s{n}", {"name": f"person {n}", "age": n}, ttl={"age": 10**9})).result()
            store.ingest([Event(f"e{n}", f"s{n}", "buy", 7, {})]).result()
        store.update(Update(account_id="acme", set={"seats": 3})).result()
        now = store._writer.clock()
        expected = [_told(store, f"s{n}", now) for n in range(20)]
    with lmdb.open(str(tmp_path / "1"), max_dbs=32, map_size=1 << 30) as handle:
        profile, meta = handle.open_db(b"profile", create=False), handle.open_db(b"meta", create=False)
        with handle.begin(write=True) as txn:
            for key, raw in [(bytes(key), bytes(raw)) for key, raw in txn.cursor(profile)]:
                txn.put(key, records.encode(records.decode_profile(raw)), db=profile)
                assert msgspec.msgpack.decode(txn.get(key, b"", db=profile))[1].keys() <= {"name", "age", "seats"}
            txn.put(b"schema", b"\0\2", db=meta)
    with Store.open(tmp_path, background=False) as store:
        store.use_features(FeatureSet([COUNT]))
        assert [_told(store, f"s{n}", now) for n in range(20)] == expected
        assert store.read_account("acme", now).attributes == {"seats": 3}
        with store.reading() as read:
            assert [read(f"s{n}", now).attributes for n in range(20)] == [told[1] for told in expected]
        assert store.read("s1", now + 10**10).attributes == {"name": "person 1"}
        assert isinstance(store.read("s2", now).attributes, dict)
        store.update(Update("s2", {"name": "another"})).result()
        assert isinstance(store.read("s2", now).attributes, Shaped)
        assert store.read("s2", now).attributes == {"age": 2, "name": "another"}
        assert store.link("s3", "s4").result().linked
        assert store.read("s3", now).features == {"buys": 2}


def _told(store: Store, subject: str, now: int) -> tuple[object, ...]:
    profile = store.read(subject, now)
    found = (profile.version, dict(profile.attributes), dict(profile.features), profile.changes(), profile.expires)
    return (*found, profile.valid_from, profile.next_change_at)


def test_a_folder_with_two_stores_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path, background=False).close()
    other = tmp_path / "other"
    write_schema_1(other)
    (other / "data.mdb").rename(tmp_path / "data.mdb")
    with pytest.raises(StoreError, match=r"holds two stores, data\.mdb and the generation 1"):
        Store.open(tmp_path)
