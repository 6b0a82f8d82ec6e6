"""Decisions over gRPC as stored profiles grow from 1,000 to a million, each asked for at random.

The server is the one of `serving`, without the model. Its thousand people are copied, record by record, under other
subjects' keys until there are enough: a million are some 1.4 gigabytes, which the machine's memory holds. The first
decision for somebody may have to read from disk; what is measured is a store that is in memory after some use.
`python -m benchmarks profiles_10m` asks the same of ten million.
"""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load
from arbiter.profiles.environment import open_environment
from arbiter.runtime.local import open_local
from arbiter.runtime.quiet import at_work
from arbiter.runtime.settings import Backing
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from benchmarks import servers
from benchmarks.conditions import POINT
from benchmarks.decision import PEOPLE, ROOT, add_people
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from arbiter.profiles.store import Store

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ASKED = 20_000  # different questions
STREAMS = (1, 32)
ROUNDS = 3
SECONDS, WARMUP = 0.5, 0.3
_A_COMMIT = 100_000  # records
_MAP = 1 << 40


def run() -> dict[str, Any]:
    """Of these sizes."""
    return measured(SIZES)


def measured(sizes: tuple[int, ...]) -> dict[str, Any]:
    """By number of profiles: decisions a second on 32 streams, µs on one, gigabytes on disk; the largest over the
    smallest.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        loads, homes = {}, {}
        for size in sizes:
            homes[size] = Path(folder, str(size))
            target = stack.enter_context(servers.started(serve_many, homes[size], size))
            bodies = _questions(size)
            for n in STREAMS:
                loads[f"{size}, {n}"] = Load(
                    target, servers.DECIDE, bodies, streams=n, seconds=SECONDS, warmup=WARMUP
                )  # fmt: skip
        results = alternate(loads, ROUNDS)
        stored = {str(size): _gigabytes(home / "data" / "store") for size, home in homes.items()}
    one, many = ({str(size): results[f"{size}, {n}"] for size in sizes} for n in STREAMS)
    least, most = str(sizes[0]), str(sizes[-1])
    return {
        "decisions_per_second": {size: each.rate for size, each in many.items()},
        "p50_us": {size: each.p50 for size, each in one.items()},
        "stored_gb": stored,
        "ratios": {f"throughput_{most}_profiles_over_{least}": many[most].rate / many[least].rate},
    }


def _questions(size: int) -> list[bytes]:
    draw = random.Random(5)
    return [
        decision_pb2.DecideRequest(subject_id=f"customer-{draw.randrange(size)}", decision=POINT).SerializeToString()
        for _ in range(ASKED)
    ]


def _gigabytes(folder: Path) -> float:
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir()) / 1e9


def serve_many(pipe: Connection, home: Path, size: int) -> None:
    """A server over so many profiles, until told to stop."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    (home / "rules").mkdir(parents=True)
    for name, content in servers.ordinary("inline", model="never").rules.items():
        (home / "rules" / name).write_bytes(content)
    engine, _ = open_local(home / "rules", ROOT / "models", home / "data")
    add_people(engine.store)
    _wait_for_upkeep(engine.store)
    engine.store.close()
    _copy(home / "data" / "store", size)
    counters = Counters()
    engine, admin = open_local(home / "rules", ROOT / "models", home / "data", counters=counters)
    _wait_for_upkeep(engine.store)
    servers.serve_until_told(pipe, Backing(engine, admin, counters), "inline")
    engine.store.close()


def _wait_for_upkeep(store: Store) -> None:
    while store.rebuilding:
        time.sleep(0.01)


def _copy(store: Path, size: int) -> None:
    """Copy the first people's records under the keys of further subjects."""
    environment = open_environment(store, _MAP)
    with environment.handle as handle:
        keys = [blake2b(f"customer-{n}".encode(), digest_size=16, key=environment.salt).digest() for n in range(size)]
        with handle.begin(db=environment.profile) as txn:
            records = [txn.get(key, b"") for key in keys[:PEOPLE]]
        if not all(records):
            raise SystemExit("a record to copy is not there")
        # By order of the keys, so that each page is written once.
        rest = sorted((key, n % PEOPLE) for n, key in enumerate(keys) if n >= PEOPLE)
        for start in range(0, len(rest), _A_COMMIT):
            with handle.begin(write=True, db=environment.profile) as txn:
                for key, which in rest[start : start + _A_COMMIT]:
                    txn.put(key, records[which])
