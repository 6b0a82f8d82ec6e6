"""Decisions over gRPC at a decision point of 10 to 100,000 rules.

The rules are the narrow ones of `comparison`, the people those whom some rule was written for and anybody, by turns; no
model. The snapshots are stored by this process and opened by each server from disk, as a worker does.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load
from arbiter.profiles.store import Store, Update
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.engine import Engine
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import LocalAdmin
from arbiter.runtime.quiet import at_work
from arbiter.runtime.settings import Backing
from arbiter.runtime.versions import Versions
from arbiter.telemetry.counters import Counters
from benchmarks import servers
from benchmarks.population import narrow, narrow_snapshot, shoppers
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SIZES = (10, 100, 1_000, 10_000, 100_000)
PEOPLE = 256
STREAMS = (1, 32)
ROUNDS = 3
SECONDS, WARMUP = 0.5, 0.2


def run() -> dict[str, Any]:
    """By number of rules: decisions a second on 32 streams, µs on one; 100,000 over 10."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = {}
        for size in SIZES:
            home = Path(folder, str(size))
            snapshot = narrow_snapshot(size)
            Archive(home / "snapshots").write(snapshot, (), {})
            people = shoppers(narrow(size), PEOPLE)
            targets[size] = stack.enter_context(servers.started(serve_stored, home, snapshot.digest, people))
        bodies = servers.questions(PEOPLE)
        loads = {
            f"{size}, {n}": Load(target, servers.DECIDE, bodies, streams=n, seconds=SECONDS, warmup=WARMUP)
            for size, target in targets.items()
            for n in STREAMS
        }
        measured = alternate(loads, ROUNDS)
    one, many = ({str(size): measured[f"{size}, {n}"] for size in SIZES} for n in STREAMS)
    return {
        "decisions_per_second": {size: each.rate for size, each in many.items()},
        "p50_us": {size: each.p50 for size, each in one.items()},
        "ratios": {"throughput_100000_rules_over_10": many["100000"].rate / many["10"].rate},
    }


def serve_stored(pipe: Connection, home: Path, digest: str, people: list[dict[str, Any]]) -> None:
    """A server over a stored snapshot and these people, until told to stop."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    archive, counters = Archive(home / "snapshots"), Counters()
    desk, loader = Desk(archive, counters), Loader(home, None, archive)
    with Store.open(home / "store") as store:
        waiting = [store.update(Update(f"customer-{n}", set=person)) for n, person in enumerate(people)]
        for future in waiting:
            future.result()
        engine = Engine(store)
        engine.activate(archive.read(digest, {}))
        admin = LocalAdmin(engine, loader, desk, Versions(desk, loader, archive))
        servers.serve_until_told(pipe, Backing(engine, admin, counters), "inline")
