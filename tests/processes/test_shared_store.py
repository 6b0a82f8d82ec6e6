"""Several processes on one store, and kill -9 at the worst moment: the others go on, and nothing half is left."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from arbiter.profiles.store import Store, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes.conftest import Callers, Served

ENGINE = Path(__file__).parents[2] / "engine"
NOW = 1 << 60
# A process that opens the store as workers do, begins a transaction, says so, and stays in the middle of it.
STUCK = """
import sys, time
from pathlib import Path
from arbiter.profiles.store import Store
store = Store.open(Path(sys.argv[1]), background=False)
txn = store._environment.handle.begin(store._environment.profile, write=sys.argv[2] == "write")
if sys.argv[2] == "write":
    txn.put(b"half", b"written")
else:
    txn.get(b"nobody")
print("in", flush=True)
time.sleep(600)
"""


@contextmanager
def stuck_in(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a read or a write; killed at the end, at the latest."""
    process = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", STUCK, str(folder), what],
        env={"PYTHONPATH": str(ENGINE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


def readers(handle: lmdb.Environment) -> dict[int, str]:
    """By process id, the transaction that each reader's place holds: ``-`` for none."""
    rows = [line.split() for line in handle.readers().splitlines()[1:]]
    return {int(row[0]): row[2] for row in rows if row}


def test_a_process_killed_inside_a_write_leaves_nothing_of_it_and_holds_up_nobody(tmp_path: Path) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"age": 1})).result()
        with stuck_in(tmp_path, "write") as process:
            waiting = store.update(Update("ann", {"age": 2}))
            assert not waiting.done()
            process.kill()
            assert waiting.result(30) == 2
        assert store.read("ann", NOW).attributes == {"age": 2}
        with store._environment.handle.begin(store._environment.profile) as txn:
            assert txn.get(b"half") is None


def test_the_place_of_a_reader_that_was_killed_is_freed_by_the_next_process_that_opens_the_store(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"age": 1})).result()
        with stuck_in(tmp_path, "read") as process:
            process.kill()
            process.wait()
            held = readers(store._environment.handle)
            assert held[process.pid] != "-"
            assert store.update(Update("ann", {"age": 2})).result(30) == 2
            assert store.read("ann", NOW).attributes == {"age": 2}
            with stuck_in(tmp_path, "read") as next_one:
                held = readers(store._environment.handle)
                assert process.pid not in held
                assert next_one.pid in held


def test_a_store_looks_for_readers_that_were_killed_now_and_then(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with Store.open(tmp_path) as store:
        with stuck_in(tmp_path, "read") as process:
            process.kill()
            process.wait()
        assert process.pid in readers(store._environment.handle)
        store._upkeep._wake.set()  # as the seconds that it waits at most would
        eventually(lambda: process.pid not in readers(store._environment.handle))


def test_no_transaction_outlives_the_calls_of_workers(
    serve: Callable[..., Served], call_all: Callable[..., Callers]
) -> None:
    served = serve()
    callers = call_all([served.channel() for _ in range(4)])
    callers.wait_for(200)
    callers.end()
    workers = set(served.workers())
    with lmdb.open(str(served.folder / "data" / "store" / "1"), max_dbs=64, readonly=True, create=False) as handle:
        held = readers(handle)
        assert workers <= set(held)
        assert {held[pid] for pid in workers} == {"-"}
