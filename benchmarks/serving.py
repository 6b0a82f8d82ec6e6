"""A decision over gRPC beside a no-op on grpcio's own synchronous server, one call at a time.

Server and caller share the machine, servers on one core and the caller on the other. Both run grpcio's stock transport,
so the ratio says what a real decision adds to a call. Throughput under load is not measured: a Python caller cannot
saturate a server.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from arbiter.runtime.local import open_local
from arbiter.runtime.settings import Backing
from arbiter.server.app import Server
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from benchmarks.conditions import POINT
from benchmarks.decision import FEATURES, MODEL, PEOPLE, ROOT, RULES, add_people
from benchmarks.measure import alternate, percentiles
from benchmarks.population import rule_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

CALLS = 5_000
METHOD = "/arbiter.v1.DecisionService/Decide"
SERVER_CORE, CALLER_CORE = 0, 1


def run() -> dict[str, Any]:
    """µs of a call on one stream, and the ratio of a real decision to a no-op."""
    home = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ours = stack.enter_context(_Process(_decisions, folder))
        noop = stack.enter_context(_Process(_noop, folder))
        asked = itertools.cycle(
            [
                decision_pb2.DecideRequest(subject_id=f"customer-{n}", decision=POINT).SerializeToString()
                for n in range(PEOPLE)
            ]
        )
        decide, nothing = _caller(stack, ours.port), _caller(stack, noop.port)
        _pin(CALLER_CORE)
        try:
            subjects: dict[str, Callable[[], Any]] = {
                "decision": lambda: decide(next(asked)),
                "no-op": lambda: nothing(next(asked)),
            }
            took = alternate(subjects, seconds=0.5)
            tails = {name: percentiles(call, CALLS) for name, call in subjects.items()}
        finally:
            os.sched_setaffinity(0, home)
    return {
        "decision_us": {"median of rounds": took["decision"], **tails["decision"]},
        "noop_us": {"median of rounds": took["no-op"], **tails["no-op"]},
        "ratios": {"decision_over_noop": took["decision"] / took["no-op"]},
    }


class _Process:
    """A server in a process of its own, on its own core, ended when the block ends."""

    def __init__(self, serve: Callable[[str, Connection], None], folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(folder, there), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self.port: int = self._here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send("stop")
        self._process.join(10)
        self._process.terminate()


def _pin(core: int) -> None:
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def _caller(stack: ExitStack, port: int) -> Callable[[bytes], bytes]:
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
    call: Callable[[bytes], bytes] = channel.unary_unary(METHOD, bytes, bytes)
    return call


def _decisions(folder: str, pipe: Connection) -> None:
    """Serve real decisions until told to stop."""
    _pin(SERVER_CORE)
    sys.setswitchinterval(0.0002)
    home = Path(folder, "ours")
    rules = home / "rules"
    rules.mkdir(parents=True)
    (rules / "features.yaml").write_bytes(FEATURES)
    (rules / "bench.yaml").write_bytes(rule_file(RULES, model=f"models.{MODEL}.probability"))
    counters = Counters()
    engine, admin = open_local(rules, ROOT / "models", home / "data", counters=counters)
    add_people(engine.store)
    server = Server(Backing(engine, admin, counters), "127.0.0.1:0")
    pipe.send(server.port)
    pipe.recv()
    server.stop(1)
    engine.store.close()


def _noop(_folder: str, pipe: Connection) -> None:
    """Answer nothing to anything until told to stop."""
    _pin(SERVER_CORE)
    server = grpc.server(ThreadPoolExecutor(16))
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(1).wait()
