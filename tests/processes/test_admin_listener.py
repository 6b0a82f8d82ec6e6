"""The supervisor's own listener: it answers whatever becomes of the workers."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from arbiter import __version__
from arbiter.client import Unavailable
from arbiter.serving import WorkerFigures
from arbiter.v1 import admin_pb2, admin_pb2_grpc, decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Served

ADMIN = ("--admin", "127.0.0.1:0")
SERVICE = "arbiter.v1.AdminService"

# Stands for files that take for ever to read, once a file `hang` is there.
HANGING = """\
import os, sys, time
from pathlib import Path
walk, hang = os.walk, Path(sys.argv.pop(1))
def walk_or_hang(*given, **named):
    while hang.exists():
        hang.with_name("hangs").touch()
        time.sleep(1)
    return walk(*given, **named)
os.walk = walk_or_hang
from arbiter.cli.app import main
main()
"""


def test_it_tells_the_same_story_as_every_worker(serve: Callable[..., Served]) -> None:
    served = serve(*ADMIN)
    assert re.fullmatch(r"arbiter ready on \S+, snapshot \w+, 2 workers, admin on 127\.0\.0\.1:\d+", served.ready)
    admin, worker = served.client(), served.client(served.address)
    assert admin.snapshot() == worker.snapshot()
    assert admin.snapshots() == worker.snapshots()
    here, there = admin.server_info(), worker.server_info()
    assert (here.version, here.started_at, here.workers, here.status, here.store) == (
        there.version, there.started_at, there.workers, there.status, there.store,
    )  # fmt: skip
    assert here.version == __version__
    assert here.started_at <= here.at <= there.at
    assert {each.pid for each in here.workers} == set(served.workers())
    assert {(each.phase, each.restarts, each.digest) for each in here.workers} == {
        ("serving", 0, here.workers[0].digest)
    }
    assert [each.message for each in admin.validate({"a.yaml": b"rulez: []"})] == ["unknown key `rulez` in a rule file"]

    served.edit("second")
    status = admin.reload()
    assert status.snapshot is not None
    assert set(status.workers.values()) == {status.snapshot.digest} != {here.workers[0].digest}
    rolled_back = admin.rollback(here.workers[0].digest)
    assert set(rolled_back.workers.values()) == {here.workers[0].digest}
    assert worker.snapshot() == rolled_back


def test_it_describes_itself_and_decides_nothing(serve: Callable[..., Served]) -> None:
    served = serve(*ADMIN)
    channel = served.channel(served.admin_address)
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    names = [method.name for method in DescriptorPool(database).FindServiceByName(SERVICE).methods]
    assert "GetStatus" in names
    with pytest.raises(grpc.RpcError) as caught:
        decision_pb2_grpc.DecisionServiceStub(channel).Decide(decision_pb2.DecideRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for name in ("", SERVICE, "arbiter.reload", "arbiter.worker.0", "arbiter.worker.1"):
        assert served.health(channel, name) == "SERVING"


def test_it_answers_while_every_worker_is_stuck_and_the_others_follow_without_one_that_is(
    serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*ADMIN)
    admin = served.client()
    first = admin.server_info()
    for each in first.workers:
        os.kill(each.pid, signal.SIGSTOP)
    try:
        # What they have to do nobody knows now; all else is told without them.
        stuck = admin.server_info()
        assert [(each.pid, each.phase, each.figures) for each in stuck.workers] == [
            (each.pid, each.phase, None) for each in first.workers
        ]
        assert (stuck.status, stuck.store) == (first.status, None)
        assert served.health(served.channel(served.admin_address)) == "SERVING"
        assert admin.validate({}) == []
        # Whichever of the two has its turn first, the other has its own a moment later.
        free = first.workers[0]
        served.edit("second")
        os.kill(free.pid, signal.SIGCONT)
        eventually(lambda: admin.snapshot().workers[0] not in {"", free.digest})
        assert admin.snapshot().workers[1] == free.digest
        half = admin.server_info()
        assert [each.figures is None for each in half.workers] == [False, True]
        assert half.store is not None
    finally:
        for each in first.workers:
            os.kill(each.pid, signal.SIGCONT)
    eventually(lambda: len(set(admin.snapshot().workers.values())) == 1)


def test_it_tells_what_workers_have_to_do_and_how_full_the_store_is(
    serve: Callable[..., Served], folder: Path, eventually: Callable[..., None]
) -> None:
    hang, limits = folder / "hang", folder / "arbiter.yaml"
    limits.write_text("limits: {concurrent_calls: 1}\n")
    watched = ("--metrics", "127.0.0.1:0", "--transport", "stock", "--config", str(limits))
    served = serve(*ADMIN, *watched, program=("-c", HANGING, str(hang)))
    admin, channel = served.client(), served.channel()

    def figures() -> list[WorkerFigures | None]:
        return sorted((each.figures for each in admin.server_info().workers), key=str)

    idle = WorkerFigures(calls=0, writes=0, shed={})
    eventually(lambda: figures() == [idle, idle])
    empty = admin.server_info().store
    served.client(served.address).update_profile("ann", set={"letter": "x" * 50_000})
    filled = admin.server_info().store
    assert empty is not None
    assert filled is not None
    assert 0 < empty.used < filled.used < filled.quota == empty.quota == 1 << 36

    # A call that holds its worker's one place, since it waits for files that take for ever to read.
    hang.touch()
    reload = admin_pb2_grpc.AdminServiceStub(channel).Reload.future(admin_pb2.ReloadRequest())
    eventually(lambda: figures() == [idle, WorkerFigures(calls=1, writes=0, shed={})])
    with pytest.raises(grpc.RpcError) as caught:
        decision_pb2_grpc.DecisionServiceStub(channel).Decide(decision_pb2.DecideRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    eventually(lambda: figures() == [idle, WorkerFigures(calls=1, writes=0, shed={"concurrent_calls": 1})])
    hang.unlink()
    assert reload.result(30).last_reload.ok
    eventually(lambda: figures() == [WorkerFigures(calls=0, writes=0, shed={"concurrent_calls": 1}), idle])


def test_without_metrics_and_traces_calls_under_way_are_not_told(serve: Callable[..., Served]) -> None:
    served = serve(*ADMIN)
    served.client(served.address).update_profile("ann", set={"level": 1})
    assert [each.figures for each in served.client().server_info().workers] == [
        WorkerFigures(calls=None, writes=0, shed={})
    ] * 2


def test_it_says_which_workers_are_dead_and_when_they_are_back(
    serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*ADMIN)
    admin, channel = served.client(), served.channel(served.admin_address)
    stream = served.watch_health(channel)
    before = admin.server_info().workers
    os.kill(before[0].pid, signal.SIGKILL)
    eventually(lambda: served.health(channel, "arbiter.worker.0") == "NOT_SERVING")
    assert served.health(channel, "arbiter.worker.1") == "SERVING"
    assert served.health(channel) == "SERVING"
    assert admin.server_info().workers[0].phase in {"down", "starting"}
    os.kill(before[1].pid, signal.SIGKILL)
    assert [next(stream).status, next(stream).status] == [2, 1]  # NOT_SERVING, and SERVING again
    eventually(lambda: [each.phase for each in admin.server_info().workers] == ["serving"] * 2)
    after = admin.server_info().workers
    assert [each.restarts for each in after] == [1, 1]
    assert not {each.pid for each in before} & {each.pid for each in after}
    stream.cancel()


def test_it_answers_while_the_server_drains_and_orders_are_refused(
    serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*ADMIN, "--grace", "600")
    admin, channel = served.client(), served.channel(served.admin_address)
    held = [served.watch_health(served.channel(f"127.0.0.1:{served.address.rpartition(':')[2]}")) for _ in range(8)]
    served.process.send_signal(signal.SIGTERM)
    eventually(lambda: admin.server_info().draining)
    eventually(lambda: served.health(channel) == "NOT_SERVING")
    assert {each.phase for each in admin.server_info().workers} >= {"draining"}
    assert admin.snapshot().snapshot is not None
    assert admin.snapshots().kept
    with pytest.raises(Unavailable) as caught:
        served.client().rollback(admin.snapshots().kept[-1].digest, timeout=1)
    assert caught.value.reason == "NOT_READY"
    for stream in held:
        stream.cancel()
    assert served.process.wait(30) == 0


def test_it_answers_while_files_are_read(
    serve: Callable[..., Served], folder: Path, eventually: Callable[..., None]
) -> None:
    hang = folder / "hang"
    served = serve(*ADMIN, program=("-c", HANGING, str(hang)))
    admin = served.client()
    hang.touch()
    served.edit("second")
    eventually((folder / "hangs").exists)
    assert {each.phase for each in admin.server_info().workers} == {"serving"}
    assert served.health(served.channel(served.admin_address), "arbiter.reload") == "SERVING"
    digest = admin.server_info().workers[0].digest
    hang.unlink()
    eventually(lambda: admin.server_info().workers[0].digest != digest)


def test_an_address_that_is_taken_ends_the_start(serve: Callable[..., Served]) -> None:
    first = serve(*ADMIN)
    second = serve("--admin", first.admin_address, "--data", str(first.folder / "other"))
    assert second.ready == ""
    assert second.stop() == 1
    assert f"cannot listen on {first.admin_address} for administration" in second.log
