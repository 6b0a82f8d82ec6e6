"""More than a server can answer: what still comes of it.

*Closed loop*: more and more callers, each of which calls again when it is answered. The knee is the least number of
them that gets nine tenths of the peak; at ten times as many the server must still answer at least 0.9 of the peak, and
nobody waits much longer than their fair share (callers over answers a second). Callers beyond what the server works on
at once are refused with a delay, which they keep.

*Open loop*: calls arrive at random moments, up to 1.3 times of what the server can answer. Who waits longer than the
deadline has got nothing: goodput counts what was answered OK, in time, of all calls that were due. Callers hold back
as clients of ours do when they are refused, by the same code; what they do not send counts as not answered. Beside
them stand *deaf* callers, who send on: what they are refused costs the server what others could have had.

What is asserted is compared with what stands beside it in time, since the machine's speed changes by up to two within
a second: each measurement stands between two of its reference, and of all of them the half counts in which these two
differed least. The reference of the open loop has the same calls, with deadlines, on as many connections.

The server is the one of `serving` with the model, on one core, the load on the other; more connections than one, since
a connection takes a limited number of calls at once.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arbiter.bench import Load, drive
from arbiter.bench.frames import DEADLINE_EXCEEDED, OK, RESOURCE_EXHAUSTED, STATUS_NAMES
from arbiter.client.restraint import Restraint
from arbiter.client.retry import Retries
from benchmarks import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.bench import Result

STREAMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FRACTIONS = (0.2, 0.5, 0.8, 0.9, 1.0, 1.15, 1.3)
BEYOND = (1.0, 1.15, 1.3)  # where it matters whether callers hold back
KNEE = 0.9  # of the peak
TIMES = 10
CONNECTIONS = 8
CALLERS = 64  # of the closed loop that tells what a server can answer
DEADLINE = 0.3  # seconds
BACKOFF = 0.1  # seconds: the delay that the server asks for
ROUNDS, OPEN_ROUNDS, PAIRS = 5, 3, 20
SECONDS, WARMUP = 0.3, 0.15
OPEN_SECONDS, OPEN_WARMUP = 0.5, 0.6  # queues need two deadlines to become what they stay


class Beside(NamedTuple):
    """A measurement, and OK answers a second of its reference before and after it."""

    result: Result
    before: float
    after: float

    @property
    def share(self) -> float:
        """Its OK answers a second over those of the reference."""
        return 2 * self.result.goodput / (self.before + self.after)

    @property
    def drift(self) -> float:
        """How far the machine's speed moved meanwhile, as a share."""
        return abs(self.after - self.before) / min(self.after, self.before)


def run() -> dict[str, Any]:
    """The curves, medians of rounds, and what is left at ten times the knee and at 1.3 times the capacity."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.started(servers.decisions, Path(folder, "home"), servers.ordinary("inline")) as target,
        servers.pinned(),
    ):
        closed = _closed_curve(target)
        goodput = _levelled(closed)
        best = max(STREAMS, key=goodput.__getitem__)
        knee = min(streams for streams in STREAMS if goodput[streams] >= KNEE * goodput[best])
        opened, capacity = _open_curve(target, FRACTIONS, deaf=False)
        deaf, _ = _open_curve(target, BEYOND, deaf=True)
        reference = partial(_answered, _closed(target, best))
        far = _steadiest(lambda _: _driven(_closed(target, TIMES * knee)), reference)
        reference = partial(_answered, _closed(target, CALLERS, deadline=DEADLINE))
        most = max(FRACTIONS)
        kept = _steadiest(lambda before: _driven(_open(target, most * before, deaf=False)), reference)
        deafly = _steadiest(lambda before: _driven(_open(target, most * before, deaf=True)), reference)
        same = _steadiest(lambda _: _driven(_closed(target, CALLERS, deadline=DEADLINE)), reference)
    rate = statistics.median(each.result.goodput for each in far)
    p99_ms = _p99_ms([each.result for each in far])
    told = {
        f"open_{name}{kind}": {f"{fraction:g}": of(results) for fraction, results in curve.items()}
        for kind, curve in (("", opened), ("_deaf", deaf))
        for name, of in (("goodput", _goodput), ("p99_ms", _p99_ms), ("refused", _refused))
    }
    return {
        "knee_streams": knee,
        "closed_goodput": {str(streams): value for streams, value in goodput.items()},
        "closed_p99_ms": {str(streams): _p99_ms(results) for streams, results in closed.items()},
        "closed_refused": {str(streams): _refused(results) for streams, results in closed.items()},
        "at_ten_times_the_knee": {"goodput": rate, "p99_ms": p99_ms},
        "open_capacity": capacity,
        **told,
        "kept_at_1.3": {"deaf": _share(deafly)},
        "same_over_itself": _share(same),
        "ratios": {
            "closed_goodput_at_ten_times_the_knee": _share(far),
            "closed_p99_over_fair_share": p99_ms / (1000 * TIMES * knee / rate),
            "open_goodput_at_1.3": _share(kept),
        },
    }


def _closed(target: str, streams: int, deadline: float | None = None) -> Load:
    return Load(
        target, servers.DECIDE, servers.questions(), streams=streams, connections=min(streams, CONNECTIONS),
        backoff=BACKOFF, timeout=deadline, seconds=SECONDS, warmup=WARMUP,
    )  # fmt: skip


def _open(target: str, rate: float, *, deaf: bool) -> Load:
    return Load(
        target, servers.DECIDE, servers.questions(), rate=rate, poisson=True, connections=CONNECTIONS,
        timeout=DEADLINE, seconds=OPEN_SECONDS, warmup=OPEN_WARMUP,
        restraint=None if deaf else lambda: Restraint(Retries().more),
    )  # fmt: skip


def _closed_curve(target: str) -> dict[int, list[Result]]:
    """By callers, in rounds."""
    results: dict[int, list[Result]] = {streams: [] for streams in STREAMS}
    for _ in range(ROUNDS):
        for streams in STREAMS:
            results[streams].append(_driven(_closed(target, streams)))
    return results


def _open_curve(target: str, fractions: tuple[float, ...], *, deaf: bool) -> tuple[dict[float, list[Result]], float]:
    """By fractions of the capacity, which is measured before each; and what it was in the median."""
    results: dict[float, list[Result]] = {fraction: [] for fraction in fractions}
    capacities = []
    for _ in range(OPEN_ROUNDS):
        for fraction in fractions:
            capacities.append(_answered(_closed(target, CALLERS, deadline=DEADLINE)))
            results[fraction].append(_driven(_open(target, fraction * capacities[-1], deaf=deaf)))
    return results, statistics.median(capacities)


def _levelled(results: Mapping[int, list[Result]]) -> dict[int, float]:
    """OK answers a second by callers: medians of rounds, each over the median of its round, since the machine
    is faster in one than in another.
    """
    rounds = list(zip(*results.values(), strict=True))
    levels = [statistics.median(result.goodput for result in each) for each in rounds]
    usual = statistics.median(levels)
    return {
        streams: usual * statistics.median(result.goodput / level for result, level in zip(each, levels, strict=True))
        for streams, each in results.items()
    }


def _steadiest(measure: Callable[[float], Result], reference: Callable[[], float]) -> list[Beside]:
    """Measure between measurements of the reference, of which `measure` is told the last; the half with least drift."""
    found = []
    before = reference()
    for _ in range(PAIRS):
        result = measure(before)
        found.append(Beside(result, before, before := reference()))
    return sorted(found, key=lambda each: each.drift)[: PAIRS // 2]


def _share(found: list[Beside]) -> float:
    return statistics.median(each.share for each in found)


def _answered(load: Load) -> float:
    return _driven(load).goodput


def _driven(load: Load) -> Result:
    (result,) = drive(load)
    if strange := set(result.ended) - {OK, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED}:
        raise SystemExit(f"calls ended {', '.join(STATUS_NAMES[code] for code in strange)}: {result.summary()}")
    return result


def _goodput(results: list[Result]) -> float:
    return statistics.median(result.goodput for result in results)


def _p99_ms(results: list[Result]) -> float:
    """Of the calls that ended OK."""
    return statistics.median(result.latency.percentile(99) / 1e6 for result in results)


def _refused(results: list[Result]) -> float:
    """The share of calls that did not end OK."""
    return statistics.median(result.failed / max(1, result.failed + result.ended[OK]) for result in results)
