"""Looking on at a server of several workers: whichever process is asked tells of the decisions of all."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from arbiter.client import CallFailed, Client
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Served

PATIENCE_S = 60.0


@pytest.mark.parametrize("where", ["worker", "supervisor"])
def test_decisions_of_all_workers_are_told_and_of_one_that_takes_another_s_place(
    serve: Callable[..., Served], where: str
) -> None:
    served = serve("--admin", "127.0.0.1:0")
    told: set[str] = set()  # the part of each id that names its process

    def look(client: Client) -> None:
        with contextlib.suppress(CallFailed), client.watch_decisions(most_per_second=1000) as stream:
            for each in stream:
                told.add(each.id.split("-", 1)[1].rsplit("-", 1)[0])
                if len(told) == 3:
                    return

    with Client(served.address if where == "worker" else served.admin_address) as client:
        looking = threading.Thread(target=look, args=(client,))
        looking.start()
        decide_until(served, lambda: len(told) >= 2)
        if where == "supervisor":  # who looks on there hears of workers that come later
            os.kill(served.workers()[0], signal.SIGTERM)
            decide_until(served, lambda: len(told) >= 3)
    looking.join()


def decide_until(served: Served, done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    asked = decision_pb2.DecideRequest(subject_id="ann", decision="home")
    while not done():
        assert time.monotonic() < until
        # A worker that ends may say so with a status by which gRPC's clients send a call again only when told to.
        stub = decision_pb2_grpc.DecisionServiceStub(served.channel("", ("grpc.service_config", served.retries)))
        for _ in range(5):
            stub.Decide(asked, timeout=PATIENCE_S, wait_for_ready=True)
