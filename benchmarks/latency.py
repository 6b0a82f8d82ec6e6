"""How long a decision takes as more of them come: open loop, at fractions of what the server can answer.

Calls arrive at random moments (a Poisson process) whether or not those before them were answered, and each counts from
the moment when it was due: a server that stalls is not asked less, and its stall is in the figures of all that had to
wait. What the generator itself was late is told beside it.

The server is the one of `serving` with the model, on one core, the load on the other.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load, drive
from benchmarks import servers
from benchmarks.stats import driven

if TYPE_CHECKING:
    from arbiter.bench import Result

FRACTIONS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9)
PERCENTILES = (50, 99, 99.9)
CONNECTIONS = 4
ROUNDS = 3
SECONDS, WARMUP = 1.0, 0.2


def run() -> dict[str, Any]:
    """By fraction: calls a second, percentiles in µs, medians of rounds; the 99th percentile at half of the capacity
    over the median at a tenth.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.started(servers.decisions, Path(folder, "home"), servers.ordinary("inline")) as target,
        servers.pinned(),
    ):
        capacity = capacity_of(target)
        rounds: dict[float, list[Result]] = {fraction: [] for fraction in FRACTIONS}
        for number in range(ROUNDS):
            for fraction, results in rounds.items():
                load = Load(
                    target, servers.DECIDE, servers.questions(), rate=capacity * fraction, poisson=True, seed=number,
                    connections=CONNECTIONS, seconds=SECONDS, warmup=WARMUP,
                )  # fmt: skip
                results.append(driven(f"at {fraction:.0%} of the capacity", load))
    took = {
        f"p{percent:g}": {
            f"{fraction:g}": statistics.median(result.latency.percentile(percent) / 1000 for result in results)
            for fraction, results in rounds.items()
        }
        for percent in PERCENTILES
    }
    return {
        "capacity": capacity,
        "calls_per_second": {
            f"{fraction:g}": statistics.median(result.goodput for result in results)
            for fraction, results in rounds.items()
        },
        "us": took,
        "generator_late_us": {
            f"{fraction:g}": statistics.median(result.lag.percentile(50) / 1000 for result in results)
            for fraction, results in rounds.items()
        },
        "ratios": {"p99_at_half_over_p50_at_a_tenth": took["p99"]["0.5"] / took["p50"]["0.1"]},
    }


def capacity_of(target: str, streams: int = 64, rounds: int = 3) -> float:
    """OK answers a second in a closed loop, the median of so many short ones."""
    load = Load(
        target, servers.DECIDE, servers.questions(), streams=streams, connections=CONNECTIONS, seconds=0.6, warmup=0.3
    )  # fmt: skip
    return statistics.median(drive(load)[0].goodput for _ in range(rounds))
