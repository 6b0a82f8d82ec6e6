"""Decisions over gRPC as stored profiles grow from 1,000 to a million, each asked for at random.

The server is the one of `serving`, without the model. Its thousand people are copied, record by record, under other
subjects' keys until there are enough: a million are some 1.9 gigabytes, which the machine's memory holds. The first
decision for somebody may have to read from disk; what is measured is a store that is in memory after some use.
`python -m benchmarks profiles_10m` asks more, of up to ten million.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load
from arbiter.runtime.quiet import at_work
from arbiter.runtime.settings import Backing
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from benchmarks import servers
from benchmarks.conditions import POINT
from benchmarks.filled import filled, opened, wait_for_upkeep
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ASKED = 20_000  # different questions
STREAMS = (1, 32)
ROUNDS = 3
SECONDS, WARMUP = 0.5, 0.3


def run() -> dict[str, Any]:
    """By number of profiles: decisions a second on 32 streams, µs on one, gigabytes on disk; the largest over the
    smallest.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        loads, stored = {}, {}
        for size in SIZES:
            home = Path(folder, str(size))
            stored[str(size)] = filled(home, size).file_bytes / 1e9
            target = stack.enter_context(servers.started(serve_filled, home))
            bodies = questions(size)
            for n in STREAMS:
                loads[f"{size}, {n}"] = Load(
                    target, servers.DECIDE, bodies, streams=n, seconds=SECONDS, warmup=WARMUP
                )  # fmt: skip
        results = alternate(loads, ROUNDS)
    one, many = ({str(size): results[f"{size}, {n}"] for size in SIZES} for n in STREAMS)
    least, most = str(SIZES[0]), str(SIZES[-1])
    return {
        "decisions_per_second": {size: each.rate for size, each in many.items()},
        "p50_us": {size: each.p50 for size, each in one.items()},
        "stored_gb": stored,
        "ratios": {f"throughput_{most}_profiles_over_{least}": many[most].rate / many[least].rate},
    }


def questions(size: int) -> list[bytes]:
    """Requests for decisions about people of so many, drawn at random, serialised."""
    draw = random.Random(5)
    return [
        decision_pb2.DecideRequest(subject_id=f"customer-{draw.randrange(size)}", decision=POINT).SerializeToString()
        for _ in range(ASKED)
    ]


def serve_filled(pipe: Connection, home: Path) -> None:
    """A server over a home that was filled, until told to stop."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    counters = Counters()
    engine, admin = opened(home, counters)
    wait_for_upkeep(engine.store)
    servers.serve_until_told(pipe, Backing(engine, admin, counters), "inline")
    engine.store.close()
