"""Triggers that catch up on a log: 200 of them over a million events, beside bare reading of the same log.

Events of 20 types, by 20,000 subjects, a commit of 1,000 every ten seconds. A trigger is one of five kinds (a sequence
joined on a property, an event that another did not follow, five in a week, two in any order, one of two); most of its
steps ask for one of fifty values, and seven events of a hundred make one fire. `machine` is what finds the firings, on
events in memory and with states in a dictionary; `log` all of it, from the log on the disk to firings, states and how
far it came, in transactions. It takes one core, the thread that writes included: figures are per second of processor
time.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from arbiter.profiles import records
from arbiter.profiles.store import Store
from arbiter.ruleset.image import symbols_of
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.triggering import open_triggers
from arbiter.runtime.engine import Engine
from arbiter.runtime.quiet import in_bulk
from arbiter.runtime.triggering.aside import AtWork
from arbiter.runtime.triggering.loading import rules_of
from arbiter.runtime.triggering.loop import Loop
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.triggers.cage import Cage
from arbiter.triggers.machine import Machine
from arbiter.triggers.state import SubjectState
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.ruleset.rules import Ruleset

EVENTS = 1_000_000
IN_MEMORY = 100_000
COMMIT = 1_000
SUBJECTS = 20_000
TRIGGERS = 200
SECOND = 1_000_000
APART = 10 * SECOND  # commits
HOUR = 3_600 * SECOND
BEGIN = 1_790_000_000 * SECOND
TYPES = [f"e{number:02}" for number in range(20)]
KINDS = (
    "sequence: [{{event: {one}, as: x, where: {where}}}, {{event: {two}, where: {join}}}], within: 1h",
    "after: {{event: {one}, as: x, where: {where}}}, unless: {{event: {two}, where: {join}, within: 5m}}",
    "count: {{event: {one}, where: event.n >= 90, times: 5, within: 7d}}",
    "all: [{{event: {one}, where: {where}}}, {{event: {two}, where: {where}}}], within: 1d",
    "any: [{{event: {one}, where: event.n == {number}}}, {{event: {two}, where: event.n == {number}}}]",
)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        """The time in µs."""
        return self.now


def run() -> dict[str, Any]:
    """Events a second of processor time by 200 and 2,000 triggers in memory, and from the log, beside what bare reading
    of the log does; firings; memory.
    """
    in_bulk()  # as the process does that runs triggers
    memory = {f"{number} triggers": machine(rules(number), IN_MEMORY) for number in (TRIGGERS, 10 * TRIGGERS)}
    with tempfile.TemporaryDirectory() as scratch:
        log, bare = caught_up(rules(TRIGGERS), EVENTS, Path(scratch))
    return {
        "machine": memory,
        "log": log,
        "bare_reading": bare,
        "ratios": {
            "log_over_bare_reading": bare["events_per_second"] / log["events_per_second"],
            "triggers_2000_over_200": memory[f"{TRIGGERS} triggers"]["events_per_second"]
            / memory[f"{10 * TRIGGERS} triggers"]["events_per_second"],
        },
    }


def rules(number: int) -> Ruleset:
    """So many triggers, of all kinds by turns."""
    lines = ["triggers:"]
    for each in range(number):
        pattern = KINDS[each % len(KINDS)].format(
            one=TYPES[each % len(TYPES)],
            two=TYPES[(each + 7) % len(TYPES)],
            where=f'event.course == "c{each % 50}"',
            join="event.product == x.product",
            number=each % 100,
        )
        lines.append(f"  - {{id: t{each:04}, {pattern}, then: {{set: {{last: t{each:04}}}}}}}")
    ruleset, found = load_ruleset({"rules.yaml": "\n".join(lines).encode()}, {})
    if ruleset is None:
        raise ValueError("\n".join(each.render() for each in found))
    return ruleset


def commits(number: int) -> Iterator[tuple[int, list[Event]]]:
    """So many events, by when they arrive."""
    random = Random(1)
    for first in range(0, number, COMMIT):
        arrival = BEGIN + first // COMMIT * APART
        yield (
            arrival,
            [
                Event(
                    str(place),
                    f"s{random.randrange(SUBJECTS)}",
                    random.choice(TYPES),
                    arrival - random.randrange(APART),
                    {
                        "course": f"c{random.randrange(50)}",
                        "product": f"p{random.randrange(200)}",
                        "n": random.randrange(100),
                    },
                )
                for place in range(first, first + COMMIT)
            ],
        )


def machine(ruleset: Ruleset, number: int) -> dict[str, Any]:
    """The machine alone."""
    opened = open_triggers(ruleset, symbols_of(ruleset, {}))
    arrived = [*commits(number)]
    states: dict[str, SubjectState] = {}
    fired = 0
    with closing(Machine(opened, late=HOUR, since={}, cage=Cage)) as made:
        began = time.process_time()
        position = 0
        for arrival, events in arrived:
            for event in events:
                position += 1
                look = made.look(event, position)
                if look is None:
                    continue
                key = event.subject_id
                state = states.get(key)
                if state is None:
                    state = states[key] = SubjectState()
                if (due := state.next_due()) is not None and due <= arrival:
                    fired += len(made.due(state, b"", arrival))
                fired += len(made.arrive(state, b"", look, arrival, _no_history))
                made.prune(state, arrival)
        took = time.process_time() - began
    return {"events_per_second": number / took, "occurrences": fired}


def _no_history(*_: object) -> Iterable[tuple[int, Event]]:
    return ()


def caught_up(ruleset: Ruleset, number: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The loop on a log on disk, until it is at the end; and reading and decoding of the same log."""
    clock, counters = Clock(), Counters()
    with Store.open(folder / "store", clock=clock, background=False) as store:
        engine = Engine(store, clock)
        engine.activate(Snapshot(ruleset, {}))
        loop = Loop(store, AtWork(folder / "triggers.at", counters), counters, clock)
        loop.begin(rules_of(engine, late=HOUR, chain=8))
        for arrival, events in commits(number):
            clock.now = arrival
            store.ingest(events).result()
        before = _resident()
        began, wall = time.process_time(), time.perf_counter()
        while loop.step():
            pass
        took, passed = time.process_time() - began, time.perf_counter() - wall
        log = {
            "events_per_second": number / took,
            "events_per_second_of_the_clock": number / passed,
            "evaluating_share": counters.trigger_time / 1e9 / took,
            "firings": sum(counters.trigger_firings.values()),
            "resident_megabytes_more": (_resident() - before) / 1e6,
        }
        began = time.process_time()
        with store.fired.looking() as (environment, txn), txn.cursor(environment.log) as cursor:
            read = sum(1 for _, raw in cursor if records.decode_event(raw).type)
        return log, {"events_per_second": read / (time.process_time() - began)}


def _resident() -> int:
    """Bytes of this process in memory, or the most of them that there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
