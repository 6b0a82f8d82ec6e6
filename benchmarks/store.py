"""What the store costs: reads against bare LMDB and msgspec, group commit against one commit a write, events.

That a read takes at most so many µs is a promise in time, and held by the quickest of nine rounds: what else the
machine does only adds to it. It is held with every value taken out of the record, as a decision takes them, since
names are looked up then and not before. The figures beside it are medians, as all others are.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from arbiter.expr.shaped import taker
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.reads import reads_of
from arbiter.ruleset.rules import Aggregate, Feature
from arbiter.types import Event
from benchmarks.measure import ROUNDS, alternate

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.profiles.windows import State

DAY = 86_400_000_000
IN_FLIGHT = 64
BATCHES = 4
AGGREGATES: tuple[Aggregate, ...] = ("count", "sum", "since", "distinct", "first", "last", "min", "max", "mean")


def run() -> dict[str, Any]:
    """Reads in µs, writes and events a second, what each aggregate costs in µs; the ratios to bare LMDB and to one
    commit a write.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        took, quickest = _read(folder)
        alone, together, per_commit, ratio = _writes(folder)
        return {
            "read_us": took,
            "writes_per_second": {"one by one": alone, f"{IN_FLIGHT} in flight": together},
            "writes_per_commit": per_commit,
            "feature_us": _aggregates(),
            "events_per_second": {f"{number} features": _events(folder, number) for number in (0, 10, 20)},
            "ratios": {
                "read_us": quickest,
                "read_over_bare_lmdb": took["30 attributes, 20 features"] / took["bare get and decode"],
                "grouped_writes_per_commit": per_commit,
                "one_by_one_over_grouped": 1 / ratio,
            },
        }


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


def _read(folder: Path) -> tuple[dict[str, float], float]:
    """One read of 30 attributes and 20 features, beside what bare LMDB and msgspec take for the same bytes; and the
    same read with every value taken in the quickest round.
    """
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
        stale = profile.next_change_at or now + 400 * DAY
        decode = msgspec.msgpack.Decoder().decode
        with lmdb.open(str(folder / "bare"), max_spare_txns=1) as handle:
            with handle.begin(write=True) as txn:
                for n in range(5_000):
                    txn.put(f"s{n}".encode(), msgspec.msgpack.encode(profile))

            names, keys = taker(tuple(profile.attributes)), taker(tuple(profile.features))

            def every() -> None:
                found = store.read("s77", now)
                names(found.attributes)
                keys(found.features)

            def bare() -> object:
                with handle.begin() as txn:
                    return decode(txn.get(b"s77", b""))

            took = alternate(
                {
                    "30 attributes, 20 features": lambda: store.read("s77", now),
                    "and every value taken": every,
                    "bare get and decode": bare,
                    "from the cold record": lambda: store.read("s77", stale),
                }
            )
            return took, alternate({"read": every}, of=min)["read"]


def _aggregates() -> dict[str, float]:
    """What one feature of each aggregate costs in µs, of a subject with 100 events within 90 days.

    ``write`` is to count an event and read the feature anew, as every write does; ``read`` is what a decision does with
    what is stored of it.
    """
    now = time.time_ns() // 1000
    events = [Event(f"e{n}", "s", "purchase", now - n * DAY // 2, {"amount": n / 7}) for n in range(100)]
    count, decay = _one("count"), _one("decay")
    sets = {aggregate: [_one(aggregate)] for aggregate in (*AGGREGATES, "decay")}
    sets["ratio"] = [
        count,
        decay,
        Feature("r", "ratio", "", "", None, None, 0, "r", "double", parts=("count", "decay")),
    ]
    timed: dict[str, Callable[[], object]] = {}
    for name, definitions in sets.items():
        features, states = FeatureSet(definitions), FeatureSet(definitions).fresh()
        for event in events:
            features.insert(states, event)

        def write(features: FeatureSet = features, states: dict[str, State] = states) -> dict[str, Any]:
            features.insert(states, events[0])
            values = features.read(states, now, lambda _first, _last: ()).values
            features.compact(states, now)
            return values

        stored, read = write()[definitions[-1].key], reads_of(definitions)[definitions[-1].key]
        timed[f"write {name}"] = write
        if read.moves:
            timed[f"read {name}"] = functools.partial(read.value, stored, now)
    return alternate(timed)


def _one(aggregate: Aggregate) -> Feature:
    of_events, half_life = aggregate in {"count", "since"}, 14 * DAY if aggregate == "decay" else 0
    prop = "" if of_events else "amount"
    return Feature("f", aggregate, "purchase", prop, 90 * DAY, None, DAY, aggregate, "dyn", half_life=half_life)


def _writes(folder: Path) -> tuple[float, float, float, float]:
    """Updates a second one at a time and with many in flight, writes per commit, and the median ratio of the two."""
    with Store.open(folder / "writes", background=False) as store:
        store.use_features(features(20))
        alone, together, per_commit = [], [], []
        for _ in range(ROUNDS):
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
        return single, many, shared, ratio


def _events(folder: Path, number: int) -> float:
    """Events a second: 70,000 of 23,000 subjects in batches of 500, four batches in flight."""
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
        return len(stream) / (time.perf_counter() - start)
