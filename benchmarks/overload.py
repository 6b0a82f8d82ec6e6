"""More than a server can answer: what still comes of it.

*Closed loop*: more and more callers, each of which calls again when it is answered. The knee is the least number of
them that gets nine tenths of the peak; at ten times as many the server must still answer at least 0.9 of the peak, and
nobody waits much longer than their fair share (callers over answers a second). Callers beyond what the server works on
at once are refused with a delay, which they keep.

*Open loop*: calls arrive at random moments, up to 1.3 times of what the server can answer. Who waits longer than the
deadline has got nothing: goodput counts what was answered OK, in time. What is refused, is refused cheaply, so that it
does not cost those who are not. What the server can answer is measured again before each round. What is asserted is
measured once more, and each figure is over what was measured beside it, in the same seconds: a machine that is slower
for a while is not a server that gave way.

The server is the one of `serving` with the model, on one core, the load on the other; more connections than one, since
a connection takes a limited number of calls at once.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from arbiter.bench import Load, drive
from arbiter.bench.frames import DEADLINE_EXCEEDED, OK, RESOURCE_EXHAUSTED, STATUS_NAMES
from benchmarks import servers
from benchmarks.latency import capacity_of

if TYPE_CHECKING:
    from arbiter.bench import Result

STREAMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FRACTIONS = (0.2, 0.5, 0.8, 0.9, 1.0, 1.15, 1.3)
KNEE = 0.9  # of the peak
TIMES = 10
CONNECTIONS = 8
DEADLINE = 0.3  # seconds
BACKOFF = 0.1  # seconds: the delay that the server asks for
ROUNDS, PAIRS, OPEN_ROUNDS = 3, 11, 3
SECONDS, WARMUP = 0.5, 0.3
OPEN_SECONDS, OPEN_WARMUP = 0.8, 0.9  # queues need several deadlines to become what they stay
_Key = TypeVar("_Key", int, float)


def run() -> dict[str, Any]:
    """Both curves, medians of rounds, and what is left at ten times the knee and at 1.3 times the capacity."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.started(servers.decisions, Path(folder, "home"), servers.ordinary("inline")) as target,
        servers.pinned(),
    ):
        closed = _rounds({streams: _closed(target, streams) for streams in STREAMS})
        goodput = _goodput(closed)
        best = max(STREAMS, key=goodput.__getitem__)
        knee = min(streams for streams in STREAMS if goodput[streams] >= KNEE * goodput[best])
        again = _rounds({streams: _closed(target, streams) for streams in {best, TIMES * knee}}, PAIRS)
        capacities: list[float] = []
        opened: dict[float, list[Result]] = {fraction: [] for fraction in FRACTIONS}
        for _ in range(OPEN_ROUNDS):
            capacities.append(capacity_of(target))
            loads = {fraction: _open(target, fraction * capacities[-1]) for fraction in FRACTIONS}
            for fraction, results in _rounds(loads, 1).items():
                opened[fraction] += results
        kept = [_kept(target) for _ in range(PAIRS)]
    beyond = TIMES * knee
    rate, reached = _goodput(again), _goodput(opened)
    left = [result.goodput / peak.goodput for result, peak in zip(again[beyond], again[best], strict=True)]
    p99_ms = _p99_ms(again[beyond])
    return {
        "knee_streams": knee,
        "closed_goodput": {str(streams): value for streams, value in goodput.items()},
        "closed_p99_ms": {str(streams): _p99_ms(results) for streams, results in closed.items()},
        "closed_refused": {str(streams): _refused(results) for streams, results in closed.items()},
        "at_ten_times_the_knee": {"goodput": rate[beyond], "p99_ms": p99_ms},
        "open_capacity": statistics.median(capacities),
        "open_goodput": {f"{fraction:g}": value for fraction, value in reached.items()},
        "open_p99_ms": {f"{fraction:g}": _p99_ms(results) for fraction, results in opened.items()},
        "open_refused": {f"{fraction:g}": _refused(results) for fraction, results in opened.items()},
        "ratios": {
            "closed_goodput_at_ten_times_the_knee": statistics.median(left),
            "closed_p99_over_fair_share": p99_ms / (1000 * beyond / rate[beyond]),
            "open_goodput_at_1.3": statistics.median(kept),
        },
    }


def _closed(target: str, streams: int) -> Load:
    return Load(
        target, servers.DECIDE, servers.questions(), streams=streams, connections=min(streams, CONNECTIONS),
        backoff=BACKOFF, seconds=SECONDS, warmup=WARMUP,
    )  # fmt: skip


def _open(target: str, rate: float) -> Load:
    return Load(
        target, servers.DECIDE, servers.questions(), rate=rate, poisson=True, connections=CONNECTIONS,
        timeout=DEADLINE, seconds=OPEN_SECONDS, warmup=OPEN_WARMUP,
    )  # fmt: skip


def _kept(target: str) -> float:
    """The share of what the server can answer, before and after, that it answers of the greatest load."""
    before = capacity_of(target, rounds=1)
    (result,) = _rounds({1: _open(target, max(FRACTIONS) * before)}, 1)[1]
    return 2 * result.goodput / (before + capacity_of(target, rounds=1))


def _rounds(loads: dict[_Key, Load], rounds: int = ROUNDS) -> dict[_Key, list[Result]]:
    results: dict[_Key, list[Result]] = {key: [] for key in loads}
    for _ in range(rounds):
        for key, load in loads.items():
            (result,) = drive(load)
            if strange := set(result.ended) - {OK, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED}:
                raise SystemExit(f"at {key}: calls ended {', '.join(STATUS_NAMES[code] for code in strange)}")
            results[key].append(result)
    return results


def _goodput(results: dict[_Key, list[Result]]) -> dict[_Key, float]:
    return {key: statistics.median(result.goodput for result in each) for key, each in results.items()}


def _p99_ms(results: list[Result]) -> float:
    """Of the calls that ended OK."""
    return statistics.median(result.latency.percentile(99) / 1e6 for result in results)


def _refused(results: list[Result]) -> float:
    """The share of calls that did not end OK."""
    return statistics.median(result.failed / max(1, result.failed + result.ended[OK]) for result in results)
