"""Triggers over five million events that come as they do in life: what the process holds does not grow.

The events and triggers of `triggers`, but each commit is looked at as it arrives. A commit comes every ten seconds, so
that the whole run is fourteen hours: what the store holds of 20,000 subjects grows with it, since some windows last for
days. The process holds a subject while it is looked at and no longer. Measured is what it has for itself: the pages of
the store, which the system lends and takes back, are not its.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from arbiter.profiles.store import Store
from arbiter.runtime.engine import Engine
from arbiter.runtime.quiet import in_bulk
from arbiter.runtime.triggering.aside import AtWork
from arbiter.runtime.triggering.loading import rules_of
from arbiter.runtime.triggering.loop import Loop
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from benchmarks.triggers import COMMIT, HOUR, TRIGGERS, Clock, commits, rules

EVENTS = 5_000_000
MARKS = 10


def run(number: int = EVENTS) -> dict[str, Any]:
    """Megabytes of the process after each tenth of the events; how much more after all than after half."""
    clock, counters, megabytes = Clock(), Counters(), []
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Store.open(Path(scratch, "store"), clock=clock, background=False) as store,
    ):
        engine = Engine(store, clock)
        engine.activate(Snapshot(rules(TRIGGERS), {}))
        loop = Loop(store, AtWork(Path(scratch, "triggers.at"), counters), counters, clock)
        loop.begin(rules_of(engine, late=HOUR, chain=8))
        in_bulk()
        for done, (arrival, events) in enumerate(commits(number), 1):
            clock.now = arrival
            store.ingest(events).result()
            while loop.step():
                pass
            if done * COMMIT % (number // MARKS) == 0:
                megabytes.append(_own())
    return {
        "events": number,
        "seconds": time.perf_counter() - began,
        "firings": sum(counters.trigger_firings.values()),
        "megabytes": {f"after {(mark + 1) * number // MARKS}": each for mark, each in enumerate(megabytes)},
        "ratios": {"memory_after_all_over_after_half": megabytes[-1] / megabytes[MARKS // 2 - 1]},
    }


def _own() -> float:
    """Megabytes of memory that are this process' alone, and not a file's."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(lines["RssAnon"].split()[0]) / 1_000
