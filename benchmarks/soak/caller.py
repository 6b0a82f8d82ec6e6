"""A process of callers: threads that own subjects, write to them, ask about them, and check every answer at once.

Law: what was acknowledged goes into the ledger, and what the ledger says must be answered. A write whose fate is
unknown is sent again until it is known, so that there is always one right answer.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2

from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2
from arbiter.wire.values import write_timestamp
from benchmarks.soak import writes
from benchmarks.soak.board import Board, Phase, Version
from benchmarks.soak.calls import Calls, Unanswered
from benchmarks.soak.checks import Checks
from benchmarks.soak.ledger import Subject
from benchmarks.soak.world import MINUTE

if TYPE_CHECKING:
    from benchmarks.soak.board import Mark

# What a caller does next, and how often.
MIX = {
    "decide": 34, "page": 12, "explain": 4, "dry_run": 5, "batch": 5, "update": 16, "ingest": 12, "profile": 8,
    "health": 2, "admin": 2,
}  # fmt: skip
KEPT = 20  # faults that one process tells in full
POINTS = ("home", "list", "offers")


class Registry:
    """Which digest is which version, as the conductor wrote before it published one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Version] = {}

    def version(self, digest: str) -> Version | None:
        """The version of a digest; None when nobody made it."""
        if digest not in self._known:
            lines = map(json.loads, self._path.read_text("utf-8").splitlines())
            self._known = {line["digest"]: Version(*line["version"]) for line in lines}
        return self._known.get(digest)


class Caller(threading.Thread):
    """One caller and its subjects."""

    def __init__(self, name: str, folder: Path, target: str, seed: str, subjects: int, rate: float) -> None:
        super().__init__(name=name, daemon=True)
        self.board = Board(folder / "board")
        self.calls = Calls(target)
        self.rng = random.Random(seed)
        self.subjects = [Subject(f"{name}-{number}") for number in range(subjects)]
        self.checks = Checks(self.board, Registry(folder / "versions"))
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self._rate = rate
        self.audited = False

    def run(self) -> None:
        """Call until the board says otherwise; then audit, if it says so."""
        names, weights = list(MIX), list(MIX.values())
        due = time.monotonic()
        while self.board.phase is Phase.TRAFFIC:
            due = max(due + self.rng.expovariate(self._rate), time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            self._do(self.rng.choices(names, weights)[0], self.rng.choice(self.subjects))
        if self.board.phase is Phase.AUDIT:
            for subject in self.subjects:
                self._do("profile", subject)
                self._do("decide", subject)
            self.audited = True
        self.calls.close()

    def _do(self, what: str, subject: Subject) -> None:
        before = self.board.mark()
        try:
            getattr(self, f"_{what}")(subject)
            self.done[what] += 1
        except (Unanswered, AssertionError) as fault:
            self.fault(what, subject, str(fault), before)
        except Exception as fault:  # noqa: BLE001 - a fault of the soak's own must show, and must not end the thread
            self.fault(what, subject, f"{type(fault).__name__}: {fault}", before)

    def fault(self, what: str, subject: Subject, said: str, before: Mark) -> None:
        """Keep what was wrong, with what is needed to see why."""
        self.done["faults"] += 1
        if len(self.faults) < KEPT:
            moments = self.board.moments(before, self.board.mark())
            self.faults.append(
                f"{what} of {subject.id} at {moments[-1]} to {moments[0]}: {said}; ledger: version "
                f"{subject.version}, {subject.attributes}, {sum(map(len, subject.events.values()))} events"
            )

    # Asking

    def _request(self, subject: Subject) -> tuple[decision_pb2.DecideRequest, dict[str, Any]]:
        rng = self.rng
        context: dict[str, Any] = {}
        if rng.random() < 0.7:
            context["device"] = rng.choice(["ios", "android", "web"])
        if rng.random() < 0.6:
            context["basket"] = rng.randrange(80) / 2
        request = decision_pb2.DecideRequest(subject_id=subject.id, request_id=f"r{rng.randrange(1 << 30)}")
        if rng.random() < 0.5:
            request.context_json = json.dumps(context).encode()
        else:
            for name, value in context.items():
                if isinstance(value, str):
                    request.context[name].string_value = value
                else:
                    request.context[name].double_value = value
        if rng.random() < 0.2:
            request.slots = rng.randrange(1, 4)
        return request, context

    def _decide(self, subject: Subject) -> None:
        request, context = self._request(subject)
        request.decision = self.rng.choice(POINTS)
        self._ask(subject, request, context)

    def _page(self, subject: Subject) -> None:
        request, context = self._request(subject)
        request.decisions.extend(self.rng.sample(POINTS, self.rng.randrange(2, 4)))
        self._ask(subject, request, context)

    def _explain(self, subject: Subject) -> None:
        request, context = self._request(subject)
        request.decision = self.rng.choice(POINTS)
        request.explain.level = decision_pb2.EXPLAIN_LEVEL_ALL
        self._ask(subject, request, context)

    def _dry_run(self, subject: Subject) -> None:
        request, context = self._request(subject)
        request.decision = self.rng.choice(POINTS)
        request.dry_run = True
        at = self.board.now() + self.rng.randrange(-180, 180) * MINUTE
        request.at.CopyFrom(write_timestamp(at))
        self._ask(subject, request, context, at)

    def _ask(
        self, subject: Subject, request: decision_pb2.DecideRequest, context: dict[str, Any], at: int | None = None
    ) -> None:
        before = self.board.mark()
        answer = self.calls.read("Decide", request)
        self.checks.decision(before, self.board.mark(), subject, request, context, answer, at)

    def _batch(self, _: Subject) -> None:
        asked = []
        for subject in self.rng.choices(self.subjects, k=self.rng.randrange(2, 25)):
            request, context = self._request(subject)
            request.decision = self.rng.choice(POINTS)
            asked.append((subject, request, context))
        before = self.board.mark()
        answer = self.calls.read("DecideBatch", decision_pb2.DecideBatchRequest(requests=[r for _, r, _ in asked]))
        self.checks.batch(before, self.board.mark(), asked, answer)

    def _profile(self, subject: Subject) -> None:
        before = self.board.mark()
        answer = self.calls.read("GetProfile", profile_pb2.GetProfileRequest(subject_id=subject.id))
        self.checks.profile(before, self.board.mark(), subject, answer)

    def _health(self, _: Subject) -> None:
        self.calls.read("Check", health_pb2.HealthCheckRequest())

    def _admin(self, _: Subject) -> None:
        before = self.board.mark()
        answer = self.calls.read("GetSnapshot", admin_pb2.GetSnapshotRequest())
        self.checks.version(before, answer.snapshot.digest)
        self.calls.read("ListSnapshots", admin_pb2.ListSnapshotsRequest())

    # Writing

    def _update(self, subject: Subject) -> None:
        writes.update(self, subject)

    def _ingest(self, subject: Subject) -> None:
        others = self.rng.sample(self.subjects, min(len(self.subjects), self.rng.randrange(3)))
        writes.ingest(self, [subject, *(other for other in others if other is not subject)])


def main() -> None:
    """Run callers until the board says otherwise; a line of JSON a second, and a last one, on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("target")
    parser.add_argument("--seed", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--subjects", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="calls a second, of all threads")
    asked = parser.parse_args()
    callers = [
        Caller(
            f"{asked.name}-{number}", asked.folder, asked.target, f"{asked.seed}-{asked.name}-{number}",
            asked.subjects, asked.rate / asked.threads,
        )
        for number in range(asked.threads)
    ]  # fmt: skip
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        time.sleep(1.0)
        tell(callers)
    tell(callers)


def tell(callers: list[Caller]) -> None:
    """Write what has been done so far."""
    done: Counter[str] = Counter()
    for caller in callers:
        done.update(caller.done.copy())
        done.update(caller.checks.counts.copy())
    calls: Counter[str] = Counter()
    for caller in callers:
        calls.update(caller.calls.counts.copy())
    said = {
        "done": done, "calls": calls, "slowest_s": max(caller.calls.slowest for caller in callers),
        "faults": [fault for caller in callers for fault in caller.faults],
        "audited": sum(len(caller.subjects) for caller in callers if caller.audited),
    }  # fmt: skip
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
