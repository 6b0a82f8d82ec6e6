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
    from benchmarks.servers import Served


class Told(NamedTuple):
    """Of one load, the medians of its rounds: OK answers a second, and percentiles of their latency in µs; and the
    processor time in µs that a call took from the server, over all rounds, where that was looked at.
    """

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


def alternate(loads: Mapping[str, Load], rounds: int, watched: Mapping[str, Served] | None = None) -> dict[str, Told]:
    """Put each load on its server in each round, by turns, from a core of our own. A call that fails ends it all.

    `watched` are the servers, by the load's name, whose processor time is looked at.
    """
    watched = watched or {}
    results: dict[str, list[Result]] = {name: [] for name in loads}
    used, answers = dict.fromkeys(loads, 0), dict.fromkeys(loads, 0)
    with servers.pinned():
        for _ in range(rounds):
            for name, load in loads.items():
                before = watched[name].cpu_ns() if name in watched else 0
                result = driven(name, load)
                results[name].append(result)
                if name in watched:
                    used[name] += watched[name].cpu_ns() - before
                    answers[name] += result.answers
    return {
        name: told(each)._replace(cpu=used[name] / answers[name] / 1000 if answers[name] else 0.0)
        for name, each in results.items()
    }


def driven(name: str, load: Load) -> Result:
    """What came of a load. A call that fails ends it all."""
    (result,) = drive(load)
    if result.failed:
        raise SystemExit(f"{name}: {result.failed} calls failed: {result.summary()}")
    return result


def told(results: list[Result]) -> Told:
    """The medians."""
    return Told(
        statistics.median(result.goodput for result in results),
        statistics.median(result.latency.percentile(50) / 1000 for result in results),
        statistics.median(result.latency.percentile(99) / 1000 for result in results),
    )
