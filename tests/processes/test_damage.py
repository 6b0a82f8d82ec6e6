"""A server over a damaged store: no crash loop, but a refusal that says what is damaged and what to do, and a way back.

A worker that dies over a page is killed here by the signal that it would get, beside a file that is damaged, or not.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.profiles import generations
from arbiter.profiles.examining import verify, walk
from arbiter.profiles.store import Store, Update
from arbiter.v1 import profile_pb2, profile_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Served

PAGE = 4096


def fill(store: Path, count: int = 40) -> None:
    with Store.open(store, background=False) as opened:
        for future in [opened.update(Update(f"s{n}", {"name": f"person {n}"})) for n in range(count)]:
            future.result()


def is_leaf_of_people(content: bytearray, at: int) -> bool:
    """Whether the page at this place has entries of them; what is left of another page is not looked at."""
    _, _, flags, _, upper = struct.unpack_from("=QHHHH", content, at)
    return flags == 2 and b"person" in content[at + upper : at + PAGE]


def damage(store: Path) -> None:
    """Have an entry of every leaf claim to be longer than its page."""
    data = generations.folder(store, generations.newest(store)) / "data.mdb"
    with data.open("r+b") as file:
        content = bytearray(file.read())
        for at in range(2 * PAGE, len(content), PAGE):
            if is_leaf_of_people(content, at):
                (entry,) = struct.unpack_from("=H", content, at + 16)
                struct.pack_into("=HH", content, at + entry, 0xFFFF, 0x0FFF)
        file.seek(0)
        file.write(content)


def arbiter(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "arbiter.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_worker_that_died_over_a_damaged_page_ends_the_server_and_no_other_starts_until_it_is_mended(
    folder: Path, serve: Callable[..., Served]
) -> None:
    store = folder / "data" / "store"
    fill(store)
    assert arbiter("store", "backup", str(folder / "copy"), "--data", str(folder / "data")).returncode == 0
    served = serve("--workers", "1")
    damage(store)
    os.kill(served.workers()[0], signal.SIGSEGV)
    assert served.process.wait(60) == 1
    told = "is damaged, and nobody opens it: mdb_cursor_get: MDB_CORRUPTED"
    assert "worker 0 may have died over it: the store in" in served.log
    assert f"error: the store in {store} {told}" in served.log
    assert "arbiter store restore" in served.log

    again = serve("--workers", "1")
    assert again.process.wait(60) == 1
    assert again.ready == ""
    assert again.log.count(told) == 2
    assert "starting worker" not in again.log.rpartition(told)[0].rpartition(told)[2]
    refused = arbiter("store", "stat", "--data", str(folder / "data"))
    assert (refused.returncode, told in refused.stderr) == (1, True)

    done = arbiter("store", "restore", str(folder / "copy"), "--data", str(folder / "data"), "--replace")
    assert done.returncode == 0, done.stderr
    mended = serve("--workers", "1")
    assert mended.ready.startswith("arbiter ready")
    with grpc.insecure_channel(mended.address) as channel:
        get = profile_pb2_grpc.ProfileServiceStub(channel).GetProfile
        answer = get(profile_pb2.GetProfileRequest(subject_id="s7"), timeout=30)
    assert answer.attributes["name"].string_value == "person 7"


def test_a_file_that_is_cut_short_while_it_is_served_ends_the_server_with_a_refusal(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    store = folder / "data" / "store"
    fill(store, 2000)
    served = serve("--workers", "1")
    os.truncate(store / "1" / "data.mdb", 3 * PAGE)

    def ended() -> bool:
        with grpc.insecure_channel(served.address) as channel:
            get = profile_pb2_grpc.ProfileServiceStub(channel).GetProfile
            for n in range(0, 2000, 200):
                try:
                    get(profile_pb2.GetProfileRequest(subject_id=f"s{n}"), timeout=5)
                except grpc.RpcError:  # the worker died under it
                    continue
        return served.process.poll() is not None

    eventually(ended)
    assert served.process.returncode == 1
    assert f"error: the store in {store} is damaged" in served.log


def test_a_worker_that_died_of_something_else_is_followed_by_another(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    store = folder / "data" / "store"
    fill(store)
    served = serve()
    gone = served.workers()[0]
    os.kill(gone, signal.SIGSEGV)
    eventually(lambda: "every page of the store in" in served.log)
    eventually(lambda: served.others(gone))
    assert served.stop() == 0
    assert not generations.is_suspected(store)


def test_a_server_that_ended_before_it_knew_goes_on_to_find_out(folder: Path, serve: Callable[..., Served]) -> None:
    store = folder / "data" / "store"
    fill(store)
    damage(store)
    generations.suspect(store)
    served = serve("--workers", "1")
    assert served.process.wait(60) == 1
    assert "a process died over it before this start" in served.log
    assert f"error: the store in {store} is damaged" in served.log


def test_what_was_found_well_after_all_may_be_opened_again(folder: Path) -> None:
    store = folder / "data" / "store"
    fill(store)
    generations.condemn(store, "a page that memory garbled")
    with pytest.raises(Exception, match="a page that memory garbled"):
        Store.open(store)
    assert arbiter("store", "check", "--data", str(folder / "data")).returncode == 0
    with Store.open(store, background=False) as opened:
        assert opened.read("s7", 1 << 60).attributes == {"name": "person 7"}


def test_a_walk_finds_what_readers_would_and_a_look_at_every_page_the_rest(folder: Path) -> None:
    store = folder / "data" / "store"
    fill(store)
    assert (walk(store), verify(store)) == ("", "")
    data = store / "1" / "data.mdb"
    content = bytearray(data.read_bytes())
    for at in range(2 * PAGE, len(content), PAGE):
        _, _, _, lower, _ = struct.unpack_from("=QHHHH", content, at)
        if lower - 16 > 4 and is_leaf_of_people(content, at):  # two keys change places
            first, second = struct.unpack_from("=HH", content, at + 16)
            struct.pack_into("=HH", content, at + 16, second, first)
    data.write_bytes(content)
    assert "are out of order" in walk(store)
    assert verify(store)
