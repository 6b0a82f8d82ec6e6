"""A reader that stays is seen and told, whoever it is; while it stays the file grows, and no longer than that."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.profiles import watching
from arbiter.profiles.inspecting import inspect
from arbiter.profiles.store import Store, Update
from arbiter.profiles.watching import LONG_S, ReaderWatch
from tests.processes.conftest import wait_until
from tests.processes.test_shared_store import stuck_in

if TYPE_CHECKING:
    import pytest

NOW = 1 << 60


def test_the_oldest_reader_is_timed_until_it_goes_and_told_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(tmp_path, background=False) as store, caplog.at_level(logging.WARNING):
        store.update(Update("ann", {"a": 1})).result()
        handle, watch = store._environment.handle, ReaderWatch(tmp_path)
        watch.look(handle.readers(), 100.0)
        assert watch.oldest_s == 0.0
        with handle.begin():
            watch.look(handle.readers(), 101.0)
            store.update(Update("ann", {"a": 2})).result()
            with handle.begin():
                watch.look(handle.readers(), 111.0)
            assert watch.oldest_s == 10.0
            assert not caplog.records
            for at in (101.0 + LONG_S, 102.0 + LONG_S, 170.0 + LONG_S):
                watch.look(handle.readers(), at)
            assert [f"process {os.getpid()} has been reading" in each.getMessage() for each in caplog.records] == [
                True
            ] * 2
        watch.look(handle.readers(), 300.0)
        assert watch.oldest_s == 0.0


def test_freed_pages_are_used_again_as_soon_as_nobody_reads_what_was_before(tmp_path: Path) -> None:
    def rewrite() -> int:
        for n in range(60):
            store.update(Update(f"s{n % 6}", {"a": "x" * 20_000 + str(n)})).result()
        return store.figures().file_bytes

    with Store.open(tmp_path, background=False) as store:
        rewrite()
        before = rewrite()
        with store._environment.handle.begin():
            held = rewrite()
        assert held > 1.5 * before
        rewrite()
        assert rewrite() == held
        assert Path(tmp_path, "1", "data.mdb").stat().st_size == held


def test_the_upkeep_of_a_store_looks_at_its_readers(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store._environment.handle.begin():
        upkeep = store._upkeep
        while not store.figures().oldest_read_s:
            upkeep._wake.set()


def woken(store: Store) -> bool:
    """Has the upkeep of a store look around, as the seconds that it waits at most would."""
    store._upkeep._wake.set()
    return True


def test_another_process_that_stays_is_told_until_it_is_killed_and_its_place_is_free_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LONG_S", 0.01)
    with caplog.at_level(logging.WARNING), Store.open(tmp_path) as store:
        store.update(Update("ann", {"a": 1})).result()
        with stuck_in(tmp_path, "read") as process:
            told = f"process {process.pid} has been reading the store"
            wait_until(lambda: woken(store) and any(told in each.getMessage() for each in caplog.records))
            assert store.figures().oldest_read_s > 0
            store.update(Update("ann", {"a": 2})).result()
            held = [each for each in inspect(store._environment).readers if each.pid == process.pid]
            assert [each.behind for each in held] == [1]
            process.kill()
            process.wait()
        wait_until(lambda: woken(store) and not store.figures().oldest_read_s)
        assert process.pid not in {each.pid for each in inspect(store._environment).readers}
