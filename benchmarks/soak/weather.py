"""What happens to a server under soak: each disturbance, and the order in which they come.

Law: does one thing at a time, says when, and checks what that thing alone must lead to. What calls are answered is the
callers' matter.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from arbiter.runtime.loader import Loader
from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2
from benchmarks.soak.badclients import BAD_CLIENTS
from benchmarks.soak.board import Version
from benchmarks.soak.calls import Calls, Unanswered, limit
from benchmarks.soak.served import PATIENCE_S, Files

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.soak.board import Board
    from benchmarks.soak.served import Disk, Served

# A round: each so often, in an order that is drawn anew.
ROUND = (
    "edit", "edit", "model", "bad edit", "rollback", "kill", "term", "full disk", "clock", "clock", "bad clients",
)  # fmt: skip
HOUR = 3_600_000_000  # µs
_FURTHEST = 3  # hours that the clock may be off
_PROBES = 100  # events
_BACK = 10  # versions among which a rollback chooses


class Clock:
    """The injected clock: the machine's, and as many hours off as it was stepped."""

    def __init__(self) -> None:
        self.hours = 0

    def now(self) -> int:
        """In µs since the epoch."""
        return time.time_ns() // 1000 + self.hours * HOUR


class Weather:
    """Disturbs a server. `spared` says which worker must live for now, 0 for none; `events` is what
    happened when, in seconds since `began`.
    """

    def __init__(
        self,
        folder: Path,
        served: Served,
        disk: Disk,
        files: Files,
        board: Board,
        clock: Clock,
        rng: random.Random,
        began: float,
    ) -> None:
        self.events: list[tuple[float, str, str]] = []
        self.faults: list[str] = []
        self.spared = 0
        self.hold_s = 2.0  # how long a disk stays full
        self._began = began
        self._registry = folder / "versions"
        self._scratch = Files(folder / "scratch")
        self._served = served
        self._disk = disk
        self._files = files
        self._board = board
        self._clock = clock
        self._rng = rng
        self._calls: Calls | None = None
        self._newest = Version(0, 0)  # the numbers that were used last
        self._written = Version(0, 0)  # what the files say
        self._digests: dict[Version, str] = {}
        self._at = ""

    @property
    def calls(self) -> Calls:
        """Connections of its own, made when the server has an address."""
        if self._calls is None:
            self._calls = Calls(self._served.target)
        return self._calls

    def prepare(self) -> Version:
        """Write the first version of the files, and return it."""
        self._files.make(self._written)
        self._scratch.make(self._written)
        self._announce(self._written)
        return self._written

    def disturb(self, kind: str) -> None:
        """Let one thing happen."""
        began = time.monotonic()
        self._at = f"{kind} at {began - self._began:.1f} s"
        actions: dict[str, Callable[[], str]] = {
            "edit": self._edit, "model": self._swap_model, "bad edit": self._bad_edit, "rollback": self._rollback,
            "kill": self._kill, "term": self._term, "full disk": self._full_disk, "clock": self._step_clock,
            "bad clients": self._bad_clients,
        }  # fmt: skip
        try:
            said = actions[kind]()
        except (Unanswered, AssertionError) as fault:
            said = "failed"
            self.fault(str(fault))
        self.events.append((round(began - self._began, 1), kind, said))

    def fault(self, said: str) -> None:
        """Keep what was wrong."""
        self.faults.append(f"{self._at}: {said}")

    def await_all(self, digest: str = "") -> None:
        """Return when every worker serves, the snapshot `digest` where it is given."""
        last = time.monotonic() + PATIENCE_S
        while True:
            state = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest())
            wanted = digest or state.snapshot.digest
            if state.snapshot.digest == wanted and all(each.digest == wanted for each in state.workers):
                return
            assert time.monotonic() < last, f"not all workers served {wanted or 'anything'} within {PATIENCE_S:.0f} s"
            time.sleep(0.05)

    # Versions

    def _announce(self, version: Version) -> str:
        """Tell callers which digest this version has, before anybody can be answered by it; the digest."""
        if version not in self._digests:
            self._scratch.write(version)
            attempt = Loader(self._scratch.rules, self._scratch.models, None).load()
            assert attempt.built is not None, [each.render() for each in attempt.diagnostics]
            digest = self._digests[version] = attempt.built.snapshot.digest
            with self._registry.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"digest": digest, "version": version}) + "\n")
        return self._digests[version]

    def _publish(self, version: Version) -> str:
        digest = self._announce(version)
        self._board.begin()
        self._newest = Version(max(version.rules, self._newest.rules), max(version.model, self._newest.model))
        self._written = version
        self._files.write(version)
        asked = self._rng.random() < 0.5
        if asked:
            self.calls.read("Reload", admin_pb2.ReloadRequest(), PATIENCE_S)
        self.await_all(digest)
        self._board.settle(version)
        return f"{tuple(version)}, {'by Reload' if asked else 'seen by the watcher'}"

    def _edit(self) -> str:
        return self._publish(Version(self._newest.rules + 1, self._written.model))

    def _swap_model(self) -> str:
        return self._publish(Version(self._written.rules, self._newest.model + 1))

    def _bad_edit(self) -> str:
        """A mistake must be reported, and change nothing; its mending changes nothing either."""
        before = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest())
        self._files.break_rules()
        last = time.monotonic() + PATIENCE_S
        state = before
        while state.last_reload.ok:
            assert time.monotonic() < last, "a mistake in the rules was not reported"
            time.sleep(0.05)
            state = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest())
        assert state.snapshot.digest == before.snapshot.digest, "a mistake in the rules changed the snapshot"
        assert "pionts" in state.last_reload.diagnostics[0].message, f"reported was {state.last_reload.diagnostics}"
        self._files.write(self._written)
        while not state.last_reload.ok:
            assert time.monotonic() < last, "mended rules were not loaded"
            time.sleep(0.05)
            state = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest())
        assert state.snapshot.digest == before.snapshot.digest, "mending the rules changed the snapshot"
        return "reported, changed nothing"

    def _rollback(self) -> str:
        running = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest()).snapshot.digest
        others = [version for version, digest in self._digests.items() if digest != running][-_BACK:]
        if not others:
            return "nothing to go back to"
        version = self._rng.choice(others)
        digest = self._digests[version]
        self._board.begin()
        self.calls.read("Rollback", admin_pb2.RollbackRequest(digest=digest, reason="soak"), PATIENCE_S)
        self.await_all(digest)
        self._board.settle(version)
        return f"to {tuple(version)}"

    # Processes, disk, clock, callers

    def _victim(self) -> int:
        workers = [pid for pid in self._served.workers() if pid != self.spared]
        assert workers, "there is no worker"
        return self._rng.choice(workers)

    def _kill(self) -> str:
        pid = self._victim()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return f"kill -9 of {pid}"

    def _term(self) -> str:
        pid = self._victim()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return f"SIGTERM to {pid}"

    def _full_disk(self) -> str:
        """Writes are refused and say why, decisions go on; with room, writes do again."""
        self.await_all()
        workers = self._served.workers()
        self._board.fill(full=True)
        try:
            self._disk.fill(workers)
            refused = self._probe_until(refused=True)
            assert "disk of the data directory is full" in refused, f"refused with {refused}"
            if killed := self._rng.random() < 0.5:
                self._kill()
            until = time.monotonic() + self.hold_s
            while time.monotonic() < until:
                self.calls.read("Decide", decision_pb2.DecideRequest(subject_id="probe", decision="home"))
                time.sleep(0.05)
            self.await_all()
        finally:
            self._disk.free(workers)
        self._probe_until(refused=False)
        self._board.fill(full=False)
        return f"for {self.hold_s:g} s{', a worker killed meanwhile' * killed}"

    def _probe_until(self, *, refused: bool) -> str:
        """Write until it is refused for a full disk, or taken; what was said."""
        last = time.monotonic() + PATIENCE_S
        while time.monotonic() < last:
            # Many new pages: a small write may still find room among those that were freed.
            request = profile_pb2.IngestEventsRequest()
            for _ in range(_PROBES):
                name = f"probe-{self._rng.getrandbits(60):x}"
                request.events.add(id=name, subject_id=name, type="visit").properties["channel"].string_value = (
                    "p" * 900
                )
            try:
                self.calls.once("IngestEvents", request)
            except grpc.RpcError as error:
                if refused and limit(error) == "disk_full":
                    return error.details() or ""
            else:
                if not refused:
                    return ""
            time.sleep(0.02)
        raise Unanswered("a full disk refused no write" if refused else "no write was taken though there is room")

    def _step_clock(self) -> str:
        step = self._rng.choice([-1, 1])
        if abs(self._clock.hours + step) > _FURTHEST:
            step = -step
        self._clock.hours += step
        return f"{step:+d} h"

    def _bad_clients(self) -> str:
        chosen = self._rng.sample(BAD_CLIENTS, len(BAD_CLIENTS))
        for client in chosen:
            with suppress(OSError):  # a worker that is being started listens on nothing
                client(self._served.target)
            health = self.calls.read("Check", health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING, f"not serving after {client.__name__}"
        return "all kinds"


def drawn(rng: random.Random) -> list[str]:
    """A round of disturbances in some order."""
    return rng.sample(ROUND, len(ROUND))


def summary(events: list[tuple[float, str, str]]) -> dict[str, Any]:
    """How often each kind happened."""
    return {kind: sum(1 for _, each, _ in events if each == kind) for kind in dict.fromkeys(ROUND)}
