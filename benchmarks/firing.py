"""How soon what triggers do is known, and what they take from decisions beside them.

The server is `arbiter serve` with one worker and 200 triggers; 2,000 events a second come in calls of ten, one event in
five of which makes a trigger fire, at once or as the second of a pair. A firing's time is from the answer of the call
that brought the event to the firing at a subscriber in another process: the trigger process reads the log, evaluates,
commits, and the worker sends. Decisions are asked at a steady rate meanwhile, of a server with triggers and of one
without, which gets the same events, by turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from arbiter.bench import Load, drive
from arbiter.client import Client
from arbiter.v1 import decision_pb2, profile_pb2, profile_pb2_grpc
from benchmarks import servers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from arbiter.bench import Result

EVENTS_A_SECOND: Final = 2_000
BATCH: Final = 10
SENDERS: Final = 4
SECONDS: Final = 10.0
DECISIONS_A_SECOND: Final = 500
ROUNDS: Final = 7
ROUND_S, WARMUP_S = 2.0, 0.5
SUBJECTS: Final = 5_000
TRIGGERS: Final = 200
INGEST: Final = "/arbiter.v1.ProfileService/IngestEvents"
PATIENCE_S: Final = 30.0

RULES: Final = """
decisions: {home: {slots: 1, order: [priority], default: {action: show, params: {banner: plain}}}}
features: {visits: {count: visit, window: 7d}}
rules:
""" + "".join(
    f"  - {{id: r{n}, decision: home, priority: {n}, when: features.visits >= {n}, then: {{action: show}}}}\n"
    for n in range(100)
)


def triggers() -> str:
    """Half of them fire at an event of theirs alone, half at the second of two; most wait for what never comes."""
    return "triggers:\n" + "".join(
        f"  - {{id: once-{n}, after: {{event: visit, where: event.n == {n}}}, then: {{set: {{seen: {n}}}}}}}\n"
        f"  - {{id: pair-{n}, sequence: [{{event: view, as: v, where: event.n == {n}}}, {{event: add, where: "
        f"event.n == {n} && event.item == v.item}}], within: 1h, then: {{set: {{added: {n}}}}}}}\n"
        for n in range(TRIGGERS // 2)
    )


class Events:
    """Bodies of IngestEvents, each event another one. Of ten events one is looked for alone, and one ends a pair."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = count()

    def body(self) -> profile_pb2.IngestEventsRequest:
        """The next call. Its number stands before the point in the ids of its events."""
        number = next(self._calls)
        request = profile_pb2.IngestEventsRequest()
        for place, (kind, n) in enumerate(
            [("visit", 7), ("view", 7), ("add", 7), *(("visit", 1_000 + each) for each in range(BATCH - 3))]
        ):
            subject = f"s{(number * 7 + (place if place > 2 else 1)) % SUBJECTS}"
            event = request.events.add(id=f"{self._name}{number}.{place}", subject_id=subject, type=kind)
            event.properties["n"].int_value = n
            event.properties["item"].string_value = f"{self._name}{number}"
        return request


def run() -> dict[str, Any]:
    """Percentiles in ms from answer to firing; percentiles in µs of decisions with and without; their ratio."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = {}
        for name, rules in (("off", RULES), ("on", RULES + triggers())):
            (home := Path(folder, name, "rules")).mkdir(parents=True)
            (home / "rules.yaml").write_text(rules, "utf-8")
            targets[name] = stack.enter_context(servers.command(home.parent, "--workers", "1"))
        _ready(targets["on"])
        firings = _latencies(targets["on"])
        took = _decisions(targets)
    told = {f"p{percent:g}": _percentile(firings, percent) for percent in (50, 99, 99.9)}
    return {
        "answer_to_firing_ms": told,
        "firings": len(firings),
        "decision_us": took,
        "ratios": {
            "answer_to_firing_p99_ms": told["p99"],
            "decision_p99_on_over_off": took["on"]["p99"] / took["off"]["p99"],
        },
    }


def _ready(target: str) -> None:
    """Return when triggers look at events."""
    until = time.monotonic() + PATIENCE_S
    with Client(target) as client:
        while (found := client.server_info().triggers) is None or not (found.figures and found.figures.triggers):
            if time.monotonic() > until:
                raise SystemExit("the triggers did not begin to run")
            time.sleep(0.1)


def _latencies(target: str) -> list[float]:
    """Ms from the answer of a call to each firing that it led to, sorted."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    follower = context.Process(target=_follow, args=(target, there), daemon=True)
    follower.start()
    here.recv()  # it follows
    answered: dict[str, int] = {}
    events = Events("e")
    with grpc.insecure_channel(target) as channel:
        ingest = profile_pb2_grpc.ProfileServiceStub(channel).IngestEvents
        began = time.monotonic_ns()
        step = round(1e9 * BATCH / EVENTS_A_SECOND)
        due = count(began, step)
        lock = threading.Lock()

        def send() -> None:
            while True:
                with lock:
                    at, request = next(due), events.body()
                if at - began > SECONDS * 1e9:
                    return
                time.sleep(max(0.0, (at - time.monotonic_ns()) / 1e9))
                ingest(request, timeout=PATIENCE_S)
                answered[request.events[0].id.partition(".")[0]] = time.monotonic_ns()

        senders = [threading.Thread(target=send) for _ in range(SENDERS)]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
        here.send(2 * len(answered))
    seen: list[tuple[str, int]] = here.recv()
    follower.join()
    if len(seen) != 2 * len(answered):
        raise SystemExit(f"{2 * len(answered):,} firings are due, and {len(seen):,} were told")
    skipped = {f"e{number}" for number in range(EVENTS_A_SECOND // BATCH)}  # the first second
    return sorted((at - answered[call]) / 1e6 for call, at in seen if call not in skipped)


def _follow(target: str, pipe: Connection) -> None:
    """Note when each firing is told, until as many have come as the pipe says."""
    seen: list[tuple[str, int]] = []
    with Client(target) as client, client.subscribe(after=0) as followed:
        enough = -1

        def wait() -> None:
            nonlocal enough
            enough = pipe.recv()
            threading.Timer(PATIENCE_S, client.close).start()

        pipe.send("follows")
        threading.Thread(target=wait, daemon=True).start()
        for firing in followed:
            seen.append((firing.causes[-1].id.partition(".")[0], time.monotonic_ns()))
            if len(seen) == enough:
                break
    pipe.send(seen)


def _decisions(targets: dict[str, str]) -> dict[str, dict[str, float]]:
    """µs of decisions by server and percentile, medians of rounds, while events come."""
    questions = [
        decision_pb2.DecideRequest(subject_id=f"s{n}", decision="home").SerializeToString() for n in range(SUBJECTS)
    ]
    took: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": []} for name in targets}
    for number in range(ROUNDS):
        for name in sorted(targets, reverse=bool(number % 2)):
            result = _round(targets[name], questions, Events(f"r{number}-"))
            for percent in (50, 99):
                took[name][f"p{percent}"].append(result.latency.percentile(percent) / 1000)
    return {name: {key: statistics.median(each) for key, each in of.items()} for name, of in took.items()}


def _round(target: str, questions: list[bytes], events: Events) -> Result:
    rate = EVENTS_A_SECOND / BATCH
    bodies = [events.body().SerializeToString() for _ in range(round(2 * rate * (ROUND_S + WARMUP_S)))]
    decide = Load(
        target, servers.DECIDE, questions, rate=DECISIONS_A_SECOND, poisson=True, seconds=ROUND_S, warmup=WARMUP_S
    )
    ingest = Load(target, INGEST, bodies, rate=rate, poisson=True, seconds=ROUND_S, warmup=WARMUP_S)
    asked, sent = drive(decide, ingest)
    for each in (asked, sent):
        if each.failed:
            raise SystemExit(f"calls failed: {each.summary()}")
    return asked


def _percentile(values: list[float], percent: float) -> float:
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
