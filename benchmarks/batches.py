"""Decisions a second in batches of 1 to 1,000: what is left of a call's price when many decisions share it.

The server is the one of `serving`; a batch runs its model once for all who need it. Eight streams, so that the
server never waits; a batch yields to other calls every 32 decisions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from arbiter.bench import Load
from arbiter.client import Answer, Ask, Client
from arbiter.v1 import decision_pb2
from benchmarks import servers
from benchmarks.conditions import POINT
from benchmarks.stats import alternate

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
STREAMS = 8
ROUNDS = 3
SECONDS, WARMUP = 0.6, 0.2
LARGE, LONGER = 200, 1.2  # batches of so many have so many seconds: few of them end in one


def run() -> dict[str, Any]:
    """By size of a batch: decisions a second, and ms of a batch on a busy server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.started(servers.decisions, Path(folder, "home"), servers.ordinary("inline")) as target,
    ):
        with Client(target) as client:
            batch = client.decide_batch([Ask(subject_id=f"customer-{n}", decision=POINT) for n in range(SIZES[-1])])
            if not all(isinstance(each, Answer) and each.treatments for each in batch.results):
                raise SystemExit("a batch holds what is no answer")
        loads = {str(size): _load(target, size) for size in SIZES}
        measured = alternate(loads, ROUNDS)
    rate = {size: each.rate * int(size) for size, each in measured.items()}
    return {
        "decisions_per_second": rate,
        "batch_p50_ms": {size: each.p50 / 1000 for size, each in measured.items()},
        "ratios": {
            "batches_of_100_decisions_per_second": rate["100"],
            "batches_of_100_over_1": rate["100"] / rate["1"],
        },
    }


def _load(target: str, size: int) -> Load:
    seconds = LONGER if size >= LARGE else SECONDS
    return Load(target, servers.DECIDE_BATCH, _batches(size), streams=STREAMS, seconds=seconds, warmup=WARMUP)


def _batches(size: int) -> list[bytes]:
    """Batches that hold different people."""
    asked = [decision_pb2.DecideRequest.FromString(body) for body in servers.questions()]
    return [
        decision_pb2.DecideBatchRequest(
            requests=[asked[(first + n) % len(asked)] for n in range(size)]
        ).SerializeToString()
        for first in range(0, len(asked), max(size, len(asked) // 20))
    ]  # fmt: skip
