"""Stores of ten thousand to ten million profiles: what a read, a decision and an update take of each.

In process, where nothing hides what the store takes: `read_us` of subjects drawn at random whose pages this process
has used before, `first_read_us` of others, whose pages are in the machine's memory but not in this process's map, and
`cold_read_us` of others again, once the file was dropped from memory, so that each comes from the disk. `decide_us` is
a whole decision by 1,000 rules without a model. `updates` of random subjects are kept 64 in flight, each answered when
it is on disk, alone and beside paced decisions, whose own time is told too. `over_grpc` asks a server of its own, sends
it people whom it does not know, thirty attributes each, as who fills a store by its API does, and tells its memory.
Sizes take turns; `disk_reads` are the page faults that went to the disk while what is in memory was measured: where
there are many, it was not.

Ten million are some 19 GB on disk, and the machine needs about as much memory to have them cached, which is why
`make bench` leaves this out. ``BENCH_STORES=DIR`` keeps the filled stores, and finds them there the next time.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from arbiter.bench import Load
from arbiter.client.written import written_update
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.runtime.engine import Engine, wall_clock
from arbiter.runtime.quiet import SWITCH_INTERVAL_S
from arbiter.types import Request
from benchmarks import servers
from benchmarks.conditions import POINT
from benchmarks.filled import Filled, data_of, filled, snapshot_of
from benchmarks.population import profile
from benchmarks.profiles import questions, serve_filled
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
LEAST, MOST = str(SIZES[0]), str(SIZES[-1])
ASKED, ROUNDS = 4_000, 9
COLD = 1_000
IN_FLIGHT = 64
WRITE_ROUNDS, WRITE_S, DECISIONS_A_SECOND = 3, 1.0, 500
STREAMS, SERVED_ROUNDS, SECONDS, WARMUP = 32, 3, 0.8, 0.4
NEW = 20_000
_CHUNK = 1 << 24

Timed = dict[str, float]


def run() -> dict[str, Any]:
    """Figures by number of profiles; the most over the least."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.environ.get("BENCH_STORES", folder))
        told = {size: filled(place / str(size), size) for size in SIZES}
        homes = {str(size): place / str(size) for size in SIZES}
        for size, home in homes.items():
            _warm(data_of(home), told[int(size)].hot_bytes)
        inside = _inside(homes)
        served = _served({size: homes[size] for size in (LEAST, MOST)})
        cold = {size: _cold(home, int(size)) for size, home in homes.items()}
        after = {size: data_of(home).stat().st_size / 1e9 for size, home in homes.items()}
    return {
        "filled": {str(size): _shown(each) for size, each in told.items()},
        **inside,
        "cold_read_us": cold,
        **served,
        "file_gb_afterwards": after,
        "ratios": {
            "read_p50_10000000_over_10000": _growth(inside["read_us"], "p50"),
            "first_read_p50_10000000_over_10000": _growth(inside["first_read_us"], "p50"),
            "decide_p50_10000000_over_10000": _growth(inside["decide_us"], "p50"),
            "updates_10000000_over_10000": _growth(inside["updates"], "a second, alone"),
            "updates_per_commit_of_10000000": inside["updates"][MOST]["a commit, alone"],
            "throughput_10000000_profiles_over_10000": _growth(served["over_grpc"], "decisions a second"),
        },
    }


def _growth(figures: dict[str, Timed], name: str) -> float:
    return figures[MOST][name] / figures[LEAST][name]


def _shown(told: Filled) -> Timed:
    return {
        "profiles a second, in order": told.profiles / told.writing_seconds,
        "seconds in all": told.seconds,
        "hot bytes a profile": told.hot_bytes / told.profiles,
        "cold bytes a profile": told.cold_bytes / told.profiles,
        "file, GB": told.file_bytes / 1e9,
    }


def _warm(data: Path, size: int) -> None:
    """Have the first so many bytes of a file in memory: of a filled store they are the hot records."""
    buffer = bytearray(_CHUNK)
    with data.open("rb", buffering=0) as file:
        while file.tell() < size and file.readinto(buffer):
            pass


def _inside(homes: dict[str, Path]) -> dict[str, Any]:
    """What is measured in this process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as stack:
        engines = {}
        for size, home in homes.items():
            engines[size] = Engine(stack.enter_context(_store(home)))
            engines[size].activate(snapshot_of(home))
            while engines[size].store.rebuild_step(1):  # finds that nothing is to be rewritten
                pass
        reading, first, reads = _by_turns({size: _reads(each.store, int(size)) for size, each in engines.items()})
        deciding, _, decides = _by_turns({size: _decisions(each, int(size)) for size, each in engines.items()})
        writing = _writing(engines)
        computed = {size: float(engine.store.figures().computed) for size, engine in engines.items()}
    return {
        "read_us": reading,
        "first_read_us": first,
        "decide_us": deciding,
        "updates": writing,
        "disk_reads": {"of read_us": reads[1], "of first_read_us": reads[0], "of decide_us": decides[1]},
        "computed_anew": {"reads": computed},
    }


def _reads(store: Store, size: int) -> tuple[Callable[[str], object], list[str]]:
    now = wall_clock()
    return lambda subject: store.read(subject, now), _subjects(size, ASKED, seed=1)


def _decisions(engine: Engine, size: int) -> tuple[Callable[[str], object], list[str]]:
    now = wall_clock()
    return lambda subject: engine.decide(Request(subject, (POINT,), now)), _subjects(size, ASKED, seed=2)


def _subjects(size: int, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"customer-{draw.randrange(size)}" for _ in range(count)]


def _by_turns(
    asked: dict[str, tuple[Callable[[str], object], list[str]]],
) -> tuple[dict[str, Timed], dict[str, Timed], tuple[int, int]]:
    """Percentiles of single calls of each size in µs, over rounds in which all take turns; those of the round before
    them, which is the first to ask for these subjects; and the reads from the disk of that round and of the others.
    """
    took: dict[str, list[int]] = {size: [] for size in asked}
    first: dict[str, list[int]] = {}
    start = _disk_reads()
    gc.collect()
    gc.disable()
    try:
        for size, (call, subjects) in asked.items():
            call(subjects[0])
            first[size] = _timed(call, subjects)
        again = _disk_reads()
        for _ in range(ROUNDS):
            for size, (call, subjects) in asked.items():
                took[size] += _timed(call, subjects)
    finally:
        gc.enable()
    return (
        {size: _percentiles(each) for size, each in took.items()},
        {size: _percentiles(each) for size, each in first.items()},
        (again - start, _disk_reads() - again),
    )


def _timed(call: Callable[[str], object], subjects: list[str]) -> list[int]:
    clock, took = time.perf_counter_ns, []
    for subject in subjects:
        start = clock()
        call(subject)
        took.append(clock() - start)
    return took


def _percentiles(took: list[int]) -> Timed:
    took.sort()
    return {f"p{p}": took[len(took) * p // 100] / 1000 for p in (50, 99)}


def _disk_reads() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _writing(engines: dict[str, Engine]) -> dict[str, Timed]:
    """Updates alone and beside decisions, sizes by turns: the medians of the rounds."""
    rounds: dict[str, list[Timed]] = {size: [] for size in engines}
    for number in range(WRITE_ROUNDS):
        for size, engine in engines.items():
            rounds[size].append(_a_round(engine, int(size), number))
    return {
        size: {name: statistics.median(each[name] for each in told) for name in told[0]}
        for size, told in rounds.items()
    }


def _a_round(engine: Engine, size: int, number: int) -> Timed:
    ask, subjects = _decisions(engine, size)
    asked = itertools.cycle(subjects)
    quiet = _paced(lambda: ask(next(asked)), WRITE_S / 2)
    with _updating(engine.store, size, 2 * number) as alone:
        time.sleep(WRITE_S)
    with _updating(engine.store, size, 2 * number + 1) as beside:
        busy = _paced(lambda: ask(next(asked)), WRITE_S)
    return {
        "a second, alone": alone.rate,
        "a commit, alone": alone.per_commit,
        "a second, beside decisions": beside.rate,
        "µs of a decision, paced, no updates, p50": quiet["p50"],
        "µs of a decision, paced, no updates, p99": quiet["p99"],
        "µs of a decision beside updates, p50": busy["p50"],
        "µs of a decision beside updates, p99": busy["p99"],
    }


def _paced(call: Callable[[], object], seconds: float) -> Timed:
    """Percentiles in µs of calls that are made at a steady rate, each from when it was begun."""
    took = []
    due, until = time.perf_counter(), time.perf_counter() + seconds
    while due < until:
        due += 1 / DECISIONS_A_SECOND
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter_ns()
        call()
        took.append(time.perf_counter_ns() - start)
    return _percentiles(took)


class _updating:  # noqa: N801 - used as a `with` statement reads
    """Updates of random subjects, so many in flight, from a thread of their own while the block runs."""

    rate = per_commit = 0.0

    def __init__(self, store: Store, size: int, seed: int) -> None:
        self._store = store
        self._subjects = itertools.cycle(_subjects(size, 50_000, seed=100 + seed))
        self._enough = Flag()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        numbers, flight = itertools.count(), []
        commits, start = self._store.commits, time.perf_counter()
        while not self._enough.is_set():
            flight.append(self._store.update(Update(next(self._subjects), {"n3": next(numbers)})))
            if len(flight) >= IN_FLIGHT:
                flight.pop(0).result()
        for future in flight:
            future.result()
        written = next(numbers)
        self.rate = written / (time.perf_counter() - start)
        self.per_commit = written / (self._store.commits - commits)


def _cold(home: Path, size: int) -> Timed:
    """Percentiles in µs of reads whose pages are on the disk alone."""
    with data_of(home).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with _store(home) as store:
        store.use_features(FeatureSet(snapshot_of(home).frame.features))
        call, _ = _reads(store, size)
        return _percentiles(_timed(call, _subjects(size, COLD, seed=3)))


def _store(home: Path) -> Store:
    """The store of a home without its upkeep, whose hourly round would go on all the while in the largest alone."""
    return Store.open(home / "data" / "store", background=False)


def _served(homes: dict[str, Path]) -> dict[str, dict[str, Timed]]:
    """Decisions a second from a server on one core, people who are new to it a second, and its memory then."""
    new = _new_people()
    with ExitStack() as stack:
        running = {size: stack.enter_context(servers.served(serve_filled, home)) for size, home in homes.items()}
        loads = {}
        for size, each in running.items():
            loads[f"decisions {size}"] = Load(
                each.target, servers.DECIDE, questions(int(size)), streams=STREAMS, seconds=SECONDS, warmup=WARMUP
            )  # fmt: skip
            loads[f"new {size}"] = Load(
                each.target, servers.UPDATE, new, streams=IN_FLIGHT, seconds=SECONDS, warmup=WARMUP
            )  # fmt: skip
        results = alternate(loads, SERVED_ROUNDS)
        memory = {size: dict(_memory(each.process)) for size, each in running.items()}
    return {
        "over_grpc": {
            size: {
                "decisions a second": results[f"decisions {size}"].rate,
                "new people a second": results[f"new {size}"].rate,
                **memory[size],
            }
            for size in homes
        }
    }


def _new_people() -> list[bytes]:
    """Updates that each set thirty attributes of somebody whom no store knows."""
    draw, day = random.Random(9), time.time_ns()
    return [written_update(f"new-{day}-{n}", profile(draw)).content for n in range(NEW)]


def _memory(process: int) -> Iterator[tuple[str, float]]:
    """MB that are a process's own, and of files that it has mapped, which the machine can take back."""
    names = {"RssAnon:": "MB of its own", "RssFile:": "MB of files, mapped"}
    for line in Path("/proc", str(process), "status").read_text("utf-8").splitlines():
        head, *rest = line.split()
        if head in names:
            yield names[head], int(rest[0]) / 1e3
