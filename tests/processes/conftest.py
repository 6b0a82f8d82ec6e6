"""A running `arbiter serve`, with callers who keep count of what became of every call."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbiter.client import Client, Unavailable
from arbiter.v1 import admin_pb2, admin_pb2_grpc, decision_pb2, decision_pb2_grpc, profile_pb2, profile_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests.conftest import replace, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENGINE = Path(__file__).parents[2] / "engine"
PATIENCE_S = 30.0  # how long a test waits for what must come; none is expected to

RULES = """\
actions: {show: {params: {text: string}}}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - id: all
    decision: home
    priority: 5
    when: "true"
    then: {action: show, params: {text: TEXT}}
"""
# A client that watches health sends nothing to a server that says NOT_SERVING: gRPC's own way, by its service config.
WATCHES_HEALTH = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})
# And one that sends a call again that a server, by what it says, has not begun.
RETRIES = json.dumps({
    "methodConfig": [{
        "name": [{}],
        "retryPolicy": {
            "maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        },
    }]
})  # fmt: skip


class Served:
    """A running `arbiter serve`. `ready` is the line that says so, empty when it ended instead."""

    watches_health = WATCHES_HEALTH
    retries = RETRIES

    def __init__(self, folder: Path, flags: Sequence[str], program: Sequence[str], *, wait: bool) -> None:
        self.folder = folder
        command = [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", "--models", ""]
        command += ["--rules", str(folder / "rules"), "--data", str(folder / "data"), *flags]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONPATH": str(ENGINE)}, text=True
            )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip() if wait else ""
        self.address = self.ready.removeprefix("arbiter ready on ").partition(",")[0]
        self.admin_address = self.ready.partition("admin on ")[2]
        self._open = contextlib.ExitStack()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def channel(self, address: str = "", *options: tuple[str, str]) -> grpc.Channel:
        """A connection of its own, so that the kernel gives it to any of the workers."""
        channel = grpc.insecure_channel(
            address or self.address, options=[("grpc.use_local_subchannel_pool", 1), *options]
        )
        return self._open.enter_context(channel)

    def client(self, address: str = "") -> Client:
        return self._open.enter_context(Client(address or self.admin_address, timeout=PATIENCE_S))

    def watch_health(self, channel: grpc.Channel) -> Any:
        """A stream that goes on until somebody ends it; its first message has come."""
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(stream)
        return stream

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return workers_of(self.process.pid)

    def others(self, *gone: int) -> bool:
        """Whether all workers serve, and none is one of these processes."""
        try:
            info = self.client(self.address).server_info()
        except Unavailable:
            # Each try met a worker that ends, which can ask the supervisor no more.
            return False
        serving = [each.pid for each in info.workers if each.phase == "serving"]
        return len(serving) == len(info.workers) == 2 and not set(gone) & set(serving)

    def edit(self, text: str) -> None:
        replace(self.folder / "rules" / "rules.yaml", RULES.replace("TEXT", text))

    def reload(self, channel: grpc.Channel) -> admin_pb2.ReloadResponse:
        return admin_pb2_grpc.AdminServiceStub(channel).Reload(admin_pb2.ReloadRequest(), timeout=PATIENCE_S)

    def health(self, channel: grpc.Channel, service: str = "") -> str:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S
        )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self._open.close()
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Callers:
    """Threads that call without a pause, each in turn deciding and writing; they note what became of every call.

    A call that failed is sent again, as it was, until it is answered: `retried` counts those by the code they got.
    `acknowledged` has the last number that each subject was told to be on disk.
    """

    def __init__(self, channels: Sequence[grpc.Channel], each: int = 3) -> None:
        self.answered = 0
        self.decided = 0
        self.failures: Counter[str] = Counter()
        self.details: defaultdict[str, set[str]] = defaultdict(set)
        self.unanswered: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=(channel, f"s{place}-{number}"))
            for place, channel in enumerate(channels)
            for number in range(each)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, channel: grpc.Channel, subject: str) -> None:
        decide = decision_pb2_grpc.DecisionServiceStub(channel).Decide
        update = profile_pb2_grpc.ProfileServiceStub(channel).UpdateProfile
        number = 0
        while not self._done.is_set():
            number += 1
            key = f"{subject}-{number}"
            write = profile_pb2.UpdateProfileRequest(
                subject_id=subject, set={"number": Value(int_value=number)}, idempotency_key=key
            )
            if self._until_answered(lambda write=write: update(write, timeout=PATIENCE_S)):  # type: ignore[misc]
                self.acknowledged[subject] = number
            asked = decision_pb2.DecideRequest(subject_id=subject, decision="home")
            if self._until_answered(lambda asked=asked: decide(asked, timeout=PATIENCE_S)):  # type: ignore[misc]
                self.decided += 1

    def _until_answered(self, call: Callable[[], object]) -> bool:
        while True:
            try:
                call()
            except grpc.RpcError as error:
                with self._lock:
                    self.failures[error.code().name] += 1
                    self.details[error.code().name].add(str(error.details()))
                if self._done.is_set():  # nobody is there any more to answer
                    return False
                time.sleep(0.02)
            else:
                with self._lock:
                    self.answered += 1
                return True

    def wait_for(self, more: int) -> None:
        """Return when so many more calls were answered."""
        goal = self.answered + more
        wait_until(lambda: self.answered >= goal)

    def end(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something holds, and fails when it never does."""
    return wait_until


@pytest.fixture
def call_all() -> Iterator[Callable[..., Callers]]:
    """Starts callers on channels."""
    begun: list[Callers] = []

    def begin(channels: Sequence[grpc.Channel], each: int = 3) -> Callers:
        begun.append(Callers(channels, each))
        return begun[-1]

    yield begin
    for callers in begun:
        callers.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES.replace("TEXT", "first"))
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Served]]:
    """Starts `arbiter serve` with two workers and these flags."""
    started: list[Served] = []

    def start(*flags: str, program: Sequence[str] = ("-m", "arbiter.cli"), wait: bool = True) -> Served:
        started.append(Served(folder, ("--workers", "2", *flags), program, wait=wait))
        return started[-1]

    yield start
    for served in started:
        served.stop()
