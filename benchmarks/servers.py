"""Servers to put load on: processes of their own, pinned to a core, that end with the block that uses them.

Law: starts and ends them. Load and figures are the business of the benchmarks. A server is started with grpcio as it
comes: what ours sets for itself, the others do not get.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import grpc

from arbiter.runtime.local import open_local
from arbiter.runtime.quiet import at_work
from arbiter.runtime.settings import Backing
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from benchmarks.conditions import POINT
from benchmarks.decision import FEATURES, MODEL, PEOPLE, ROOT, RULES, add_people
from benchmarks.population import SOME, rule_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from arbiter.config.options import Transport
    from arbiter.runtime.engine import Engine
    from arbiter.runtime.local import LocalAdmin

SERVER_CORE, CALLER_CORE = 0, 1
SETTING, POLLING = "GRPC_EXPERIMENTS", "-event_engine_listener"  # as arbiter/server/__init__.py sets it
DECIDE = "/arbiter.v1.DecisionService/Decide"
DECIDE_BATCH = "/arbiter.v1.DecisionService/DecideBatch"
UPDATE = "/arbiter.v1.ProfileService/UpdateProfile"


class Place(NamedTuple):
    """What a server of ours is started with: rule files, whether there are models, and the transport."""

    rules: dict[str, bytes]
    models: bool
    transport: Transport


def ordinary(transport: Transport, *, model: Literal["never", "needed", "always"] = "needed") -> Place:
    """1,000 rules, the best of which asks for a model: of everybody, or only of the one person in eight for whom the
    rest of it holds; features of six windows.
    """
    rules = rule_file(
        RULES,
        model="" if model == "never" else f"models.{MODEL}.probability",
        only=SOME if model == "needed" else "",
    )
    return Place({"features.yaml": FEATURES, "bench.yaml": rules}, models=True, transport=transport)


def questions(count: int = PEOPLE) -> list[bytes]:
    """A DecideRequest for each person, serialised."""
    return [
        decision_pb2.DecideRequest(subject_id=f"customer-{n}", decision=POINT).SerializeToString() for n in range(count)
    ]


class Served(NamedTuple):
    """A server in a process of its own: where it listens, the process, and what else it says."""

    target: str
    process: int
    pipe: Connection

    def cpu_ns(self) -> int:
        """The processor time that it has used, all threads together."""
        # As clock_getcpuclockid(3) makes the clock of another process.
        return time.clock_gettime_ns((~self.process << 3) | 2)


@contextlib.contextmanager
def started(serve: Callable[..., None], *arguments: Any) -> Iterator[str]:
    """The address alone of what `served` starts."""
    with served(serve, *arguments) as server:
        yield server.target


@contextlib.contextmanager
def served(serve: Callable[..., None], *arguments: Any, polling: bool = True) -> Iterator[Served]:
    """A process that runs `serve(pipe, *arguments)`, which sends its port and ends when it is sent anything.

    Without `polling` grpc is left as it comes: ours has it read sockets in the thread that polls.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments), daemon=True)
    # Importing our server has put the setting into this process's environment, which the new one inherits.
    setting = os.environ.pop(SETTING, None)
    try:
        if polling:
            os.environ[SETTING] = setting or POLLING
        process.start()
    finally:
        os.environ.pop(SETTING, None)
        if setting is not None:
            os.environ[SETTING] = setting
    there.close()
    try:
        yield Served(f"127.0.0.1:{here.recv()}", process.pid or 0, here)
    finally:
        with contextlib.suppress(OSError):
            here.send("stop")
        process.join(10)
        process.terminate()
        process.join()


@contextlib.contextmanager
def pinned(core: int = CALLER_CORE) -> Iterator[None]:
    """This process on one core while the block runs."""
    home = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, home)


def pin(core: int) -> None:
    """Keep this process on a core, where the machine has it."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def noop_sync(pipe: Connection) -> None:
    """The synchronous server of grpcio, which answers nothing to anything."""
    pin(SERVER_CORE)
    server = grpc.server(ThreadPoolExecutor(16))
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    service, method = DECIDE.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(1).wait()


def noop_aio(pipe: Connection) -> None:
    """The same on `grpc.aio`."""
    pin(SERVER_CORE)

    async def nothing(_request: bytes, _context: Any) -> bytes:
        return b""

    async def run() -> None:
        server = grpc.aio.server()
        service, method = DECIDE.strip("/").split("/")
        handler = grpc.unary_unary_rpc_method_handler(nothing)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        await server.stop(1)

    asyncio.run(run())


def decisions(pipe: Connection, home: Path, place: Place) -> None:
    """A server of ours over a store of 1,000 people, as a worker runs it."""
    pin(SERVER_CORE)
    at_work()
    counters = Counters()
    with peopled(home, place, counters) as (engine, admin):
        serve_until_told(pipe, Backing(engine, admin, counters), place.transport)


@contextlib.contextmanager
def peopled(home: Path, place: Place, counters: Counters) -> Iterator[tuple[Engine, LocalAdmin]]:
    """An engine of this process by the place's rules, over a store of 1,000 people that is closed at the end."""
    rules = home / "rules"
    rules.mkdir(parents=True)
    for name, content in place.rules.items():
        (rules / name).write_bytes(content)
    engine, admin = open_local(rules, ROOT / "models" if place.models else None, home / "data", counters=counters)
    add_people(engine.store)
    yield engine, admin
    engine.store.close()


def serve_until_told(pipe: Connection, backing: Backing, transport: Transport) -> None:
    """Open our server, tell its port, and close it when told."""
    with opened(backing, transport) as server:
        pipe.send(server.port)
        pipe.recv()


@contextlib.contextmanager
def opened(backing: Backing, transport: Transport) -> Iterator[Server]:
    """Our server, in this process, until the block ends."""
    gc.collect()
    gc.freeze()  # as a worker does after each swap
    server = Server(backing, "127.0.0.1:0", FaceSettings(transport=transport))
    yield server
    server.stop(1)


@contextlib.contextmanager
def command(home: Path, *options: str) -> Iterator[str]:
    """`arbiter serve` over the rules in `home`, with the models of this repository: its address."""
    places = ["--rules", str(home / "rules"), "--models", str(ROOT / "models"), "--data", str(home / "data")]
    line = [sys.executable, "-m", "arbiter.cli", "serve", *places, "--listen", "127.0.0.1:0", "--log-level", "error"]
    process = subprocess.Popen([*line, *options], stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    try:
        if process.stdout is None or not (ready := re.match(r"arbiter ready on (\S+),", process.stdout.readline())):
            raise SystemExit("the server did not start")
        yield ready[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
