"""`arbiter store`: copies are whole while writes go on, nothing is overwritten, and damage is said, never fatal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.cli.app import main
from arbiter.errors import LimitExceeded
from arbiter.profiles import generations
from arbiter.profiles.checking import check_store
from arbiter.profiles.environment import open_environment
from arbiter.profiles.store import Store, Update
from arbiter.types import Event
from tests import forked

if TYPE_CHECKING:
    from collections.abc import Callable

    import lmdb

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "engine"), "ARBITER_TARGET": ""}
NOW = 1 << 60
MAP = 1 << 30


def arbiter(*arguments: object, code: int = 0, beside: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command; `beside` the stores that this process has open in a process of its own."""
    if not beside:
        return here(*arguments, code=code)
    done = forked.arbiter("store", *arguments, environment=ENVIRONMENT)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def here(*arguments: object, code: int) -> subprocess.CompletedProcess[str]:
    command = ["arbiter", "store", *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.redirect_stderr(io.StringIO()) as refused,
    ):
        patched.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, refused.getvalue()
    return subprocess.CompletedProcess(command, code, said.getvalue(), refused.getvalue())


def told(*arguments: object, code: int = 0, beside: bool = False) -> Any:
    return json.loads(arbiter(*arguments, "--json", code=code, beside=beside).stdout)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose store holds 200 people with an event each."""
    with Store.open(tmp_path / "data" / "store", background=False) as store:
        futures: list[Any] = [store.update(Update(f"s{n}", {"name": f"person {n}"})) for n in range(200)]
        futures += [store.ingest([Event(f"e{n}", f"s{n}", "buy", n, {})]) for n in range(200)]
        for future in futures:
            future.result()
    return tmp_path / "data"


def test_a_copy_made_while_writes_go_on_is_one_state_of_the_store(data: Path, tmp_path: Path) -> None:
    with Store.open(data / "store", background=False) as store:
        ended, written = threading.Event(), [0]

        def write() -> None:
            while not ended.is_set():
                both = [store.update(Update(who, increment={"n": 1})) for who in ("left", "right")]
                written[0] = both[1].result()

        thread = threading.Thread(target=write)
        thread.start()
        before = written[0]
        done = told("backup", tmp_path / "copy", "--data", data, beside=True)
        ended.set()
        thread.join()
    assert done["entries"] > 1000
    assert told("check", tmp_path / "copy")["findings"] == []
    with Store.open(tmp_path / "copy", background=False) as copy:
        left, right = (copy.read(who, NOW).version for who in ("left", "right"))
        assert before <= right <= left <= right + 1
        assert copy.read("s199", NOW).attributes == {"name": "person 199"}
        assert len(copy.events("s7")) == 1


def test_a_backup_overwrites_nothing_and_makes_no_store(data: Path, tmp_path: Path) -> None:
    arbiter("backup", tmp_path / "copy", "--data", data)
    content = (tmp_path / "copy" / "1" / "data.mdb").read_bytes()
    assert "is there already, and nothing is overwritten" in arbiter(
        "backup", tmp_path / "copy", "--data", data, code=1
    ).stderr  # fmt: skip
    assert (tmp_path / "copy" / "1" / "data.mdb").read_bytes() == content
    for command in ("backup", "compact", "check", "stat"):
        arguments = [tmp_path / "other"] if command == "backup" else []
        said = arbiter(command, *arguments, "--data", tmp_path / "nothing", code=1).stderr
        assert "there is no store in" in said
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "other").exists()


def test_a_restore_refuses_a_store_that_is_there_or_open_and_keeps_what_it_replaces(data: Path, tmp_path: Path) -> None:
    arbiter("backup", tmp_path / "copy", "--data", data)
    with Store.open(data / "store", background=False) as store:
        store.update(Update("s1", {"name": "another"})).result()
        said = arbiter("restore", tmp_path / "copy", "--data", data, "--replace", code=1, beside=True).stderr
        assert "a process has the store in" in said
    assert "restore with --replace" in arbiter("restore", tmp_path / "copy", "--data", data, code=1).stderr
    done = told("restore", tmp_path / "copy", "--data", data, "--replace")
    assert done["generation"] == 2
    with Store.open(data / "store", background=False) as store:
        assert store.read("s1", NOW).attributes == {"name": "person 1"}
    again = told("restore", done["kept"], "--data", tmp_path / "elsewhere")
    assert (again["generation"], again["kept"]) == (1, "")
    with Store.open(tmp_path / "elsewhere" / "store", background=False) as store:
        assert store.read("s1", NOW).attributes == {"name": "another"}
    assert told("stat", "--data", data)["others"] == [Path(done["kept"]).name]


def test_a_store_whose_data_were_lost_is_restored(data: Path, tmp_path: Path) -> None:
    arbiter("backup", tmp_path / "copy", "--data", data)
    arbiter("compact", "--data", data)
    shutil.rmtree(data / "store" / "2")
    arbiter("restore", tmp_path / "copy", "--data", data)
    with Store.open(data / "store", background=False) as store:
        assert store.read("s1", NOW).version == 1


def test_a_store_in_use_is_compacted_and_says_so(data: Path) -> None:
    with Store.open(data / "store", background=False) as store:
        ended = threading.Event()

        def read() -> None:
            while not ended.wait(0.01):
                assert store.read("s1", NOW).version == 1

        thread = threading.Thread(target=read)
        thread.start()
        done = told("compact", "--data", data, beside=True)
        ended.set()
        thread.join()
        assert (done["generation"], done["held_open"]) == (2, False)
        found = told("stat", "--data", data, beside=True)
    assert (found["generation"], found["schema"], found["erased"]) == (2, 3, False)
    assert found["databases"]["log"]["entries"] == 200
    assert found["pages"] * found["page_bytes"] == found["file_bytes"]
    assert "generation 3:" in arbiter("compact", "--data", data).stdout
    assert "log\t200\t" in arbiter("stat", "--data", data).stdout


def test_a_reader_that_stays_is_seen(data: Path) -> None:
    with Store.open(data / "store", background=False) as store, store._environment.handle.begin():
        for n in range(3):
            store.update(Update("ann", {"a": n})).result()
        readers = told("stat", "--data", data, beside=True)["readers"]
        assert max(each["behind"] for each in readers if each["pid"] == os.getpid()) == 3


def test_a_store_that_is_well_is_checked_whole_in_use_or_not(data: Path) -> None:
    idle = told("check", "--data", data)
    with Store.open(data / "store", background=False):
        used = told("check", "--data", data, beside=True)
    assert idle["entries"] == used["entries"]
    assert idle["entries"]["by_subject"] == 200
    assert (idle["count"], used["count"]) == (0, 0)
    assert sorted(each.name for each in (data / "store").iterdir()) == ["1", "made"]


def lose_an_event(txn: lmdb.Transaction[bytes], databases: Callable[[str], lmdb._Database]) -> None:
    txn.delete((7).to_bytes(8, "big"), db=databases("log"))


def lose_a_place(txn: lmdb.Transaction[bytes], databases: Callable[[str], lmdb._Database]) -> None:
    with txn.cursor(databases("by_subject")) as cursor:
        cursor.first()
        cursor.delete()


def garble_a_record(txn: lmdb.Transaction[bytes], databases: Callable[[str], lmdb._Database]) -> None:
    with txn.cursor(databases("profile")) as cursor:
        cursor.first()
        cursor.put(cursor.key(), b"\xc1 no record")


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lose_an_event, "the log has no event 7"),
        (lose_a_place, "it holds 200 events, and subjects have 199"),
        (garble_a_record, "the record cannot be read"),
    ],
)
def test_records_that_do_not_belong_together_are_found(data: Path, harm: Any, what: str) -> None:
    environment = open_environment(data / "store", MAP)
    with environment.handle.begin(write=True) as txn:
        harm(txn, lambda name: getattr(environment, name))
    environment.handle.close()
    found = told("check", "--data", data, code=1)
    assert any(what in each["what"] for each in found["findings"])
    assert what in arbiter("check", "--data", data, code=1).stdout


def test_torn_pages_are_found_and_end_no_process(data: Path, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes flipped anywhere that is in use: said as damage, or the data are what they were."""
    generator = random.Random(20261128)  # noqa: S311 - places, not secrets
    whole = (data / "store" / "1" / "data.mdb").read_bytes()
    page = 4096
    found = 0
    for turn in range(60):
        store = tmp_path / f"torn{turn}"
        generations.folder(store, 1).mkdir(parents=True)
        torn = bytearray(whole)
        if turn % 3 == 0:
            del torn[generator.randrange(len(torn)) :]
        elif turn % 3 == 1:  # half of a page is from before
            at = generator.randrange(2, len(torn) // page) * page
            torn[at : at + page // 2] = bytes(page // 2)
        else:
            for _ in range(20):
                torn[generator.randrange(2 * page, len(torn))] ^= 1 << generator.randrange(8)
        (store / "1" / "data.mdb").write_bytes(torn)
        done = check_store(store)
        found += bool(done.count)
        if not done.count:
            assert sum(done.entries.values()) > 1000
        shutil.rmtree(store)
    assert found >= 40


def test_a_damaged_copy_is_not_restored(data: Path, tmp_path: Path) -> None:
    arbiter("backup", tmp_path / "copy", "--data", data)
    file = tmp_path / "copy" / "1" / "data.mdb"
    file.write_bytes(file.read_bytes()[:20_000])
    assert (
        "is damaged, nothing was restored" in arbiter("restore", tmp_path / "copy", "--data", tmp_path, code=1).stderr
    )
    assert not (tmp_path / "store").exists()


def test_a_quota_is_changed_under_a_store_that_is_open(data: Path) -> None:
    with Store.open(data / "store", quota=1 << 36, background=False) as store:
        assert told("quota", "1MiB", "--data", data, beside=True)["chosen"]
        errors = [store.update(Update(f"big{n}", {"a": "x" * 30_000})).exception() for n in range(40)]
        assert errors[0] is None
        assert isinstance(errors[-1], LimitExceeded)
        assert errors[-1].reason == "store_quota"
        assert store.figures().quota_bytes == 1 << 20
        assert told("quota", "2MiB", "--data", data, beside=True)["quota_bytes"] == 1 << 21
        assert store.update(Update("big", {"a": "x" * 30_000})).result() == 1
    assert "of 2,097,152 bytes, its own quota" in arbiter("quota", "--data", data).stdout
    assert told("quota", "default", "--data", data) | {"used_bytes": 0} == {
        "used_bytes": 0, "quota_bytes": 1 << 36, "chosen": False
    }  # fmt: skip


def test_a_quota_that_is_none_is_refused(data: Path) -> None:
    assert "as in 128GiB" in arbiter("quota", "12 parsecs", "--data", data, code=2).stderr
    assert "a store holds 824,633,720,832 bytes at most" in arbiter("quota", "4TiB", "--data", data, code=1).stderr
