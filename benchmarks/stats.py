"""Load in rounds on several servers, and the medians of what came of it.

Law: nothing but OK is counted as an answer; a benchmark that expects refusals looks at the results itself.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from arbiter.bench import drive
from benchmarks import servers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.bench import Load, Result


class Told(NamedTuple):
    """Of one load, the medians of its rounds: OK answers a second, percentiles of their latency in µs."""

    rate: float
    p50: float
    p99: float


def alternate(loads: Mapping[str, Load], rounds: int) -> dict[str, Told]:
    """Put each load on its server in each round, by turns, from a core of our own. A call that fails ends it all."""
    results: dict[str, list[Result]] = {name: [] for name in loads}
    with servers.pinned():
        for _ in range(rounds):
            for name, load in loads.items():
                (result,) = drive(load)
                if result.failed:
                    raise SystemExit(f"{name}: {result.failed} calls failed: {result.summary()}")
                results[name].append(result)
    return {name: told(each) for name, each in results.items()}


def told(results: list[Result]) -> Told:
    """The medians."""
    return Told(
        statistics.median(result.goodput for result in results),
        statistics.median(result.latency.percentile(50) / 1000 for result in results),
        statistics.median(result.latency.percentile(99) / 1000 for result in results),
    )
