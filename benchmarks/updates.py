"""Updates over gRPC, each on disk when it is answered, alone and beside decisions.

The server is the one of `serving`. Updates set one attribute of thirty to another value than it had,
with 64 calls in flight, which share commits. Beside each other, decisions have 16 callers and updates 64: what one of
them gets is taken from the other, since both are answered by the same core.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load, drive
from arbiter.client import Client
from arbiter.v1 import profile_pb2, value_pb2
from benchmarks import servers
from benchmarks.decision import PEOPLE

if TYPE_CHECKING:
    from arbiter.bench import Result

DECIDING, UPDATING = 16, 64  # callers
ROUNDS = 5
SECONDS, WARMUP = 0.6, 0.2


def run() -> dict[str, Any]:
    """Calls a second and percentiles in µs, of each kind alone and together."""
    rounds: dict[str, list[Result]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.started(servers.decisions, Path(folder, "home"), servers.ordinary("inline")) as target,
    ):
        decisions = Load(
            target, servers.DECIDE, servers.questions(), streams=DECIDING, seconds=SECONDS, warmup=WARMUP
        )  # fmt: skip
        updates = Load(target, servers.UPDATE, _updates(), streams=UPDATING, seconds=SECONDS, warmup=WARMUP)
        with servers.pinned():
            for _ in range(ROUNDS):
                (alone,) = drive(decisions)
                rounds.setdefault("decisions alone", []).append(alone)
                (alone,) = drive(updates)
                rounds.setdefault("updates alone", []).append(alone)
                for name, result in zip(("decisions", "updates"), drive(decisions, updates), strict=True):
                    rounds.setdefault(f"{name} beside the other", []).append(result)
        _check(target)
    for name, results in rounds.items():
        if failed := [result.summary() for result in results if result.failed]:
            raise SystemExit(f"{name}: calls failed: {failed}")
    rate = {name: statistics.median(each.goodput for each in results) for name, results in rounds.items()}
    return {
        "calls_per_second": rate,
        "p50_us": {name: _middle(results, 50) for name, results in rounds.items()},
        "p99_us": {name: _middle(results, 99) for name, results in rounds.items()},
        "ratios": {
            "updates_per_second": rate["updates alone"],
            "together_over_alone": rate["decisions beside the other"] / rate["decisions alone"]
            + rate["updates beside the other"] / rate["updates alone"],
        },
    }


def _updates() -> list[bytes]:
    """Two for each person, with different values, apart from each other."""
    return [
        profile_pb2.UpdateProfileRequest(
            subject_id=f"customer-{n}", set={"n3": value_pb2.Value(int_value=1000 * turn + n % 1000)}
        ).SerializeToString()
        for turn in range(2)
        for n in range(PEOPLE)
    ]


def _check(target: str) -> None:
    """What was answered is there: every person was updated."""
    with Client(target) as client:
        for n in range(0, PEOPLE, 50):
            if client.get_profile(f"customer-{n}").version < 2:
                raise SystemExit(f"customer-{n} was not updated")


def _middle(results: list[Result], percent: float) -> float:
    return statistics.median(result.latency.percentile(percent) / 1000 for result in results)
