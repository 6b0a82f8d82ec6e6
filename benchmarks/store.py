"""What the store costs: a read against bare LMDB and msgspec, group commit against one commit a write, events a second.

Run: ``PYTHONPATH=engine python benchmarks/store.py``. Ratios are medians of nine alternating pairs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.rules import Aggregate, Feature
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400_000_000
IN_FLIGHT = 64
BATCHES = 4
AGGREGATES: tuple[Aggregate, ...] = ("count", "sum", "since", "distinct", "first", "last", "min", "max", "mean")


def features(number: int) -> FeatureSet:
    """`number` features, of every aggregate, over windows and all time."""
    made = []
    for index in range(number):
        aggregate = AGGREGATES[index % len(AGGREGATES)]
        prop = "" if aggregate in {"count", "since"} else "amount"
        window = (30 * DAY, 90 * DAY, None)[index // len(AGGREGATES) % 3]
        made.append(Feature(f"f{index}", aggregate, "purchase", prop, window, None, DAY, f"key{index:05}", "dyn"))
    return FeatureSet(made)


def attribute(index: int) -> Any:
    """Values of every common kind."""
    return [index, index * 1.5, f"value {index}", index % 2 == 0, datetime(2026, 1, 1, tzinfo=UTC)][index % 5]


def micros(work: Callable[[], object], times: int) -> float:
    """µs per call."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times * 1e6


def purchases(number: int, subjects: int, now: int) -> list[Event]:
    """Purchases of the last year, in order."""
    return [
        Event(
            f"e{i}",
            f"s{i * 7919 % subjects}",
            "purchase",
            now - (number - i) * (365 * DAY // number),
            {"quantity": 1 + i % 3, "amount": i % 900 / 7},
        )
        for i in range(number)
    ]


def read(folder: Path) -> None:
    """One read of 30 attributes and 20 features, beside what bare LMDB and msgspec take for the same bytes."""
    with Store.open(folder / "read", background=False) as store:
        store.use_features(features(20))
        now = time.time_ns() // 1000
        store.ingest(purchases(50_000, 10_000, now)[-10_000:]).result()
        store.ingest([Event(f"x{n}", "s77", "purchase", now - n * DAY, {"amount": n / 7}) for n in range(20)]).result()
        waiting = [
            store.update(Update(f"s{n}", {f"attribute_{i}": attribute(i) for i in range(30)})) for n in range(5_000)
        ]
        for future in waiting:
            future.result()
        now = time.time_ns() // 1000
        profile = store.read("s77", now)
        print(f"                {len(profile.attributes)} attributes, {len(profile.features)} features")
        decode = msgspec.msgpack.Decoder().decode
        with lmdb.open(str(folder / "bare"), max_spare_txns=1) as handle:
            with handle.begin(write=True) as txn:
                for n in range(5_000):
                    txn.put(f"s{n}".encode(), msgspec.msgpack.encode(profile))

            def bare() -> object:
                with handle.begin() as txn:
                    return decode(txn.get(b"s77", b""))

            pairs = [(micros(lambda: store.read("s77", now), 20_000), micros(bare, 20_000)) for _ in range(9)]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"read            {ours:6.2f} µs   bare get + decode {theirs:6.2f} µs   ratio {ratio:.2f}")
        stale = profile.next_change_at or now + 400 * DAY
        late = statistics.median(micros(lambda: store.read("s77", stale), 500) for _ in range(9))
        print(f"stale read      {late:6.1f} µs")


def writes(folder: Path) -> None:
    """Updates with many in flight, against one at a time."""
    with Store.open(folder / "writes", background=False) as store:
        store.use_features(features(20))
        alone, together, per_commit = [], [], []
        for _ in range(9):
            start = time.perf_counter()
            for n in range(300):
                store.update(Update(f"s{n}", {"a": n})).result()
            alone.append(300 / (time.perf_counter() - start))
            start, before = time.perf_counter(), store.commits
            flight = []
            for n in range(5_000):
                flight.append(store.update(Update(f"s{n}", {"a": n})))
                if len(flight) >= IN_FLIGHT:
                    flight.pop(0).result()
            for future in flight:
                future.result()
            together.append(5_000 / (time.perf_counter() - start))
            per_commit.append(5_000 / (store.commits - before))
        ratio = statistics.median(b / a for a, b in zip(alone, together, strict=True))
        single, many, shared = (statistics.median(figures) for figures in (alone, together, per_commit))
        print(f"writes          {many:6.0f}/s with {IN_FLIGHT} in flight ({shared:.0f} a commit)", end="   ")
        print(f"{single:6.0f}/s one by one   ratio {ratio:.1f}")


def events(folder: Path) -> None:
    """70,000 events of 23,000 subjects in batches of 500, with 0, 10 and 20 features, four batches in flight."""
    for number in (0, 10, 20):
        with Store.open(folder / f"events{number}", background=False) as store:
            store.use_features(features(number))
            stream = purchases(70_000, 23_000, time.time_ns() // 1000)
            start = time.perf_counter()
            flight = []
            for low in range(0, len(stream), 500):
                flight.append(store.ingest(stream[low : low + 500]))
                if len(flight) >= BATCHES:
                    flight.pop(0).result()
            for future in flight:
                future.result()
            took = time.perf_counter() - start
            print(f"events          {len(stream) / took:6.0f}/s with {number} features ({took:.1f} s)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        read(Path(scratch))
        writes(Path(scratch))
        events(Path(scratch))
