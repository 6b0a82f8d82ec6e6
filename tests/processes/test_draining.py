"""Processes that end under load, politely or not: every call is answered, or ends so that its retry is."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from arbiter.profiles.store import Store
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Callers, Served

NOW = 1 << 60
# A call that is on the wire when a process stops listening ends so: grpcio cuts it off unseen (docs/decisions/0040).
NEVER_BEGUN = {"UNAVAILABLE", "CANCELLED"}


def on_disk(served: Served, callers: Callers) -> dict[str, object]:
    """What the store holds for the subjects to whom something was acknowledged."""
    with Store.open(served.folder / "data" / "store", background=False) as store:
        return {subject: store.read(subject, NOW).attributes["number"] for subject in callers.acknowledged}


def test_a_server_that_is_told_to_end_loses_no_answer_and_no_write(
    serve: Callable[..., Served], call_all: Callable[..., Callers]
) -> None:
    served = serve()
    callers = call_all([served.channel() for _ in range(4)])
    callers.wait_for(200)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    callers.end()
    assert set(callers.failures) <= NEVER_BEGUN, callers.details
    held = on_disk(served, callers)
    assert len(held) == 12
    for subject, number in callers.acknowledged.items():
        assert held[subject] in {number, number + 1}  # the last may have come to the disk and its answer not to us
    assert "stopping: 10 s for the calls under way" in served.log
    assert served.log.rstrip().endswith("ended")
    assert "Traceback" not in served.log


@pytest.mark.parametrize("transport", ["inline", "stock"])
def test_a_worker_that_is_told_to_end_finishes_its_calls_and_is_replaced(
    serve: Callable[..., Served],
    call_all: Callable[..., Callers],
    eventually: Callable[..., None],
    transport: str,
) -> None:
    served = serve("--transport", transport)
    callers = call_all([served.channel() for _ in range(6)])
    callers.wait_for(200)
    before = served.workers()
    os.kill(before[0], signal.SIGTERM)
    eventually(lambda: served.others(before[0]))
    callers.wait_for(200)
    os.kill(before[1], signal.SIGTERM)
    eventually(lambda: served.others(*before))
    callers.wait_for(200)
    callers.end()
    assert set(callers.failures) <= NEVER_BEGUN, callers.details
    assert served.stop() == 0
    assert on_disk(served, callers) == callers.acknowledged
    for pid in before:
        assert f"(process {pid}) was told to end: it finishes its calls, another follows" in served.log
        assert f"(process {pid}) has ended with exit code 0" in served.log
    assert "Traceback" not in served.log


@pytest.mark.parametrize("transport", ["inline", "stock"])
def test_who_watches_health_has_no_call_cut_off(
    serve: Callable[..., Served],
    call_all: Callable[..., Callers],
    eventually: Callable[..., None],
    transport: str,
) -> None:
    served = serve("--transport", transport)
    callers = call_all([served.channel("", ("grpc.service_config", served.watches_health)) for _ in range(4)])
    callers.wait_for(100)
    for pid in served.workers():
        os.kill(pid, signal.SIGTERM)
        eventually(lambda pid=pid: served.others(pid))
        callers.wait_for(100)
    callers.end()
    # Sent nowhere, since the server that the connection leads to had said that it ends.
    assert all("backend unhealthy" in text or "Failed to connect" in text for text in callers.details["UNAVAILABLE"])
    assert set(callers.failures) <= {"UNAVAILABLE"}, callers.details


def test_grpcs_own_retries_hide_that_workers_end(
    serve: Callable[..., Served], call_all: Callable[..., Callers], eventually: Callable[..., None]
) -> None:
    served = serve()
    callers = call_all([served.channel("", ("grpc.service_config", served.retries)) for _ in range(4)])
    callers.wait_for(100)
    for pid in served.workers():
        os.kill(pid, signal.SIGTERM)
        eventually(lambda pid=pid: served.others(pid))
        callers.wait_for(100)
    callers.end()
    assert not callers.failures, callers.details


def test_calls_of_a_killed_worker_end_unavailable_and_their_retries_are_answered(
    serve: Callable[..., Served], call_all: Callable[..., Callers], eventually: Callable[..., None]
) -> None:
    served = serve()
    callers = call_all([served.channel() for _ in range(8)], 2)
    callers.wait_for(200)
    for pid in served.workers():  # one after the other, so that no caller escapes
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: served.others(pid))
        callers.wait_for(200)
    callers.end()
    assert set(callers.failures) == {"UNAVAILABLE"}, callers.details
    assert served.stop() == 0
    assert on_disk(served, callers) == callers.acknowledged
    assert served.log.count("ended with exit code -9, untold") == 2


def test_a_call_under_way_is_answered_by_a_worker_that_ends(serve: Callable[..., Served]) -> None:
    served = serve("--workers", "1")
    channel = served.channel()
    ask = decision_pb2.DecideRequest(subject_id="a", decision="home")
    batch = decision_pb2.DecideBatchRequest(requests=[ask] * 1000)
    stub = decision_pb2_grpc.DecisionServiceStub(channel)
    stub.Decide(ask, timeout=30)
    under_way = [stub.DecideBatch.future(batch, timeout=30) for _ in range(4)]
    (worker,) = served.workers()
    os.kill(worker, signal.SIGTERM)
    assert [len(each.result().results) for each in under_way] == [1000] * 4


def test_a_second_signal_changes_nothing_and_a_second_interrupt_ends_it_at_once(
    serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve("--grace", "600")
    # A stream that never ends by itself keeps its worker from ending.
    watched = served.watch_health(served.channel())
    served.process.send_signal(signal.SIGTERM)
    served.process.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping" in served.log)
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0
    assert "interrupted again: calls under way are cut off" in served.log
    assert served.log.count("stopping") == 1
    with pytest.raises(grpc.RpcError):
        list(watched)


def test_a_signal_during_the_start_ends_it(serve: Callable[..., Served], eventually: Callable[..., None]) -> None:
    served = serve(wait=False)
    eventually(served.workers)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert "Traceback" not in served.log


def test_a_signal_during_a_reload_answers_it_and_ends(serve: Callable[..., Served]) -> None:
    served = serve()
    served.edit("second")
    channel = served.channel()
    outcome: list[Any] = []

    def reload() -> None:
        try:
            outcome.append(served.reload(channel).last_reload.ok)
        except grpc.RpcError as error:
            outcome.append(error.code())

    thread = threading.Thread(target=reload)
    thread.start()
    served.process.send_signal(signal.SIGTERM)
    thread.join()
    assert outcome[0] in {True, grpc.StatusCode.UNAVAILABLE}
    assert served.process.wait(30) == 0
    assert "Traceback" not in served.log


def test_a_killed_supervisor_leaves_no_process_and_no_port_behind(
    serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve()
    workers = served.workers()
    served.process.kill()
    served.process.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))  # noqa: PTH110
    again = serve("--listen", served.address)
    assert again.address == served.address
