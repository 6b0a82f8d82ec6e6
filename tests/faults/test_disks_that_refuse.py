"""Disks that take no writes, or no more: file systems of their own, mounted where nobody else sees them.

What was refused left nothing, what was acknowledged is there, reads go on, and writes when the disk takes them again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.profiles.store import Store, Update
from arbiter.v1 import decision_pb2, decision_pb2_grpc, profile_pb2, profile_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests.faults.preload import preloaded
from tests.processes.conftest import PATIENCE_S, Served, eventually, folder, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["eventually", "folder", "serve"]  # fixtures

ENGINE = Path(__file__).parents[2] / "engine"
_BESIDE = (shutil.which("unshare") or "unshare", "--mount", "--propagation", "private")
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10

SETUP = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
from arbiter.errors import LimitExceeded, StoreError
from arbiter.profiles.store import Store, Update
NOW = 1 << 60
place = Path(sys.argv[1])
place.mkdir(exist_ok=True)
def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
def refused(future, reason):
    error = future.exception(30)
    assert isinstance(error, LimitExceeded) and error.reason == reason, repr(error)
    return str(error)
"""
FULL = """
run("mount", "-t", "tmpfs", "-o", "size=2m", "small", place)
ballast = place / "ballast"
with Store.open(place / "store", background=False) as store:
    store.update(Update("ann", {"a": 1})).result()
    errors = [store.update(Update(f"s{n}", {"a": "x" * 30_000})).exception() for n in range(100)]
    stored = errors.index(next(filter(None, errors)))
    assert stored > 5 and {getattr(each, "reason", "") for each in errors if each} == {"disk_full"}, errors
    assert store.read("ann", NOW).attributes == {"a": 1}
    run("mount", "-o", "remount,size=8m", place)
    assert store.update(Update("late", {"a": "x" * 30_000})).result() == 1
free = os.statvfs(place)
ballast.write_bytes(bytes(free.f_bavail * free.f_bsize))
with Store.open(place / "store", background=False) as store:
    refused(store.update(Update("more", {"a": "x" * 60_000})), "disk_full")
    assert [store.read(f"s{n}", NOW).version for n in range(stored)] == [1] * stored
    ballast.unlink()
    assert store.update(Update("more", {"a": "x" * 60_000})).result() == 1
"""
AFTER_AN_ERROR = """
image = place.with_name("image")
with image.open("wb") as file:
    file.truncate(48 << 20)
run("mkfs.ext4", "-q", image)
run("mount", "-o", "loop,errors=remount-ro", image, place)
trigger = Path("/sys/fs/ext4") / Path(run("findmnt", "-no", "SOURCE", place)).name / "trigger_fs_error"
def use():
    with Store.open(place / "store", background=False) as store:
        for n in range(20):
            store.update(Update(f"s{n}", {"a": n})).result()
        os.sync()
        trigger.write_text("1")
        for n in range(3):
            told = refused(store.update(Update(f"s{n}", {"a": "lost"})), "disk_read_only")
            assert "takes no writes: nothing of this was written" in told, told
            assert [store.read(f"s{n}", NOW).attributes for n in range(20)] == [{"a": n} for n in range(20)]
    try:
        Store.open(place / "store", background=False)
        raise AssertionError("it was opened")
    except StoreError as error:
        assert "Read-only file system" in str(error) and "make that writable" in str(error), error
child = multiprocessing.get_context("fork").Process(target=use)
child.start()
child.join()
assert not child.exitcode
run("umount", place)
subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True)
run("mount", "-o", "loop", image, place)
with Store.open(place / "store", background=False) as store:
    assert [store.read(f"s{n}", NOW).attributes for n in range(20)] == [{"a": n} for n in range(20)]
    assert store.update(Update("s1", {"a": "kept"})).result() == 2
"""
TO_BE_READ = """
run("mount", "--bind", place, place)
run("mount", "-o", "remount,bind,ro", place)
done = subprocess.run(sys.argv[2:], capture_output=True, text=True, timeout=60)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


def beside(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script where its mounts are its own, and go with it."""
    return subprocess.run(  # noqa: S603 - our own scripts
        [*_BESIDE, sys.executable, "-c", SETUP + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where this user may not mount."""
    try:
        done = beside('run("mount", "-t", "tmpfs", "probe", place)', tmp_path_factory.mktemp("probe"))
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here to mount with")
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.splitlines()[-1:]}")


@pytest.mark.usefixtures("mounts")
def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    done = beside(FULL, tmp_path / "disk")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("mounts")
def test_a_disk_that_an_error_made_read_only_is_read_from_and_loses_nothing(tmp_path: Path) -> None:
    done = beside(AFTER_AN_ERROR, tmp_path / "disk")
    if any(missing in done.stderr for missing in ("mkfs.ext4", "trigger_fs_error", "findmnt", "'loop,")):
        pytest.skip(f"no file system in a file can be mounted and harmed here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("mounts")
def test_a_server_whose_disk_is_read_only_does_not_start_and_says_so(folder: Path) -> None:
    data = folder / "data"
    with Store.open(data / "store", background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
    command = [sys.executable, "-m", "arbiter.cli", "serve", "--listen", "127.0.0.1:0", "--models", ""]
    done = beside(TO_BE_READ, data, *command, "--rules", folder / "rules", "--data", data)
    assert done.returncode == 1, done.stderr
    assert f"error: cannot open the store in {data / 'store'}: [Errno 30] Read-only file system" in done.stderr
    assert "make that writable" in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def unwritable(file: Path) -> Iterator[None]:
    """While the block runs nobody may write to a file, who has it open neither, and root neither."""
    handle = os.open(file, os.O_RDWR)
    try:
        try:
            (flags,) = struct.unpack("l", fcntl.ioctl(handle, _GET_FLAGS, struct.pack("l", 0)))
            fcntl.ioctl(handle, _SET_FLAGS, struct.pack("l", flags | _IMMUTABLE))
        except OSError as error:
            pytest.skip(f"files cannot be made immutable here: {error}")
        try:
            yield
        finally:
            fcntl.ioctl(handle, _SET_FLAGS, struct.pack("l", flags))
    finally:
        os.close(handle)


@pytest.mark.skipif(sys.platform != "linux", reason="immutable files are Linux's")
def test_a_server_whose_disk_takes_no_writes_decides_and_reads_and_writes_again_when_it_does(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    channel = served.channel()
    profiles = profile_pb2_grpc.ProfileServiceStub(channel)

    def write(number: int) -> int:
        update = profile_pb2.UpdateProfileRequest(subject_id="ann", set={"n": Value(int_value=number)})
        return int(profiles.UpdateProfile(update, timeout=PATIENCE_S).version)

    assert write(1) == 1
    workers = served.workers()
    with unwritable(served.folder / "data" / "store" / "1" / "data.mdb"):
        for number in range(4):
            with pytest.raises(grpc.RpcError) as refused:
                write(number)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "takes no writes: nothing of this was written" in str(refused.value.details())
        got = profiles.GetProfile(profile_pb2.GetProfileRequest(subject_id="ann"), timeout=PATIENCE_S)
        assert got.attributes["n"].int_value == 1
        asked = decision_pb2.DecideRequest(subject_id="ann", decision="home")
        decided = decision_pb2_grpc.DecisionServiceStub(channel).Decide(asked, timeout=PATIENCE_S)
        assert [each.rule_id for each in decided.treatments] == ["all"]
    assert write(2) == 2
    assert served.workers() == workers
    assert "refuses writes: the disk of the data directory takes no writes" in served.log


def test_a_worker_whose_store_gave_up_over_an_error_of_the_disk_is_followed_by_one_that_reads_and_writes(
    serve: Callable[..., Served],
    eventually: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error in the last step of a commit, after which LMDB lets nobody read before its file is opened anew."""
    beside = tmp_path_factory.mktemp("failing")
    monkeypatch.setenv("LD_PRELOAD", str(preloaded("failing", beside)))
    monkeypatch.setenv("FAIL_WHILE", str(beside / "fails"))
    served = serve()
    update = profile_pb2.UpdateProfileRequest(subject_id="ann", increment={"n": Value(int_value=1)})
    with grpc.insecure_channel(served.address) as channel:
        assert profile_pb2_grpc.ProfileServiceStub(channel).UpdateProfile(update, timeout=PATIENCE_S).version == 1
        workers = served.workers()
        (beside / "fails").touch()
        with pytest.raises(grpc.RpcError) as refused:
            profile_pb2_grpc.ProfileServiceStub(channel).UpdateProfile(update, timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (beside / "fails").unlink()
    eventually(lambda: set(served.workers()) != set(workers) and served.others())
    for number in range(8):
        channel = served.channel()
        version = profile_pb2_grpc.ProfileServiceStub(channel).UpdateProfile(update, timeout=PATIENCE_S).version
        assert version == 2 + number
    assert "restart, what was acknowledged is there" in served.log
    assert "was told to end: it finishes its calls, another follows" in served.log
