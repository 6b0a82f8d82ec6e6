"""What a link costs by the events on both sides, with 20 features, and what an alias costs a read."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from arbiter.profiles.store import Store, Update
from arbiter.types import Event
from benchmarks.measure import alternate
from benchmarks.store import attribute, features, purchases

BATCH = 10_000
SIDES = ((10, 10), (10, 100_000), (10_000, 10_000), (100_000, 10), (100_000, 100_000))  # anonymous, known


def run() -> dict[str, Any]:
    """Seconds of one link by events; µs of a read by a subject's own id and by an alias."""
    with tempfile.TemporaryDirectory() as scratch:
        now = time.time_ns() // 1000
        seconds = {}
        for anonymous, known in SIDES:
            with Store.open(Path(scratch) / f"{anonymous}-{known}", clock=lambda: now, background=False) as store:
                store.use_features(features(20))
                _fill(store, "device", anonymous, now)
                _fill(store, "ann", known, now - 1)
                began = time.perf_counter()
                store.link("device", "ann").result()
                seconds[f"{anonymous} events to {known}"] = time.perf_counter() - began
        with Store.open(Path(scratch) / "read", clock=lambda: now, background=False) as store:
            store.use_features(features(20))
            _fill(store, "ann", 100, now)
            store.link("device", "ann").result()
            took = alternate({"own id": lambda: store.read("ann", now), "alias": lambda: store.read("device", now)})
        return {"link_seconds": seconds, "read_us": took}


def _fill(store: Store, who: str, size: int, now: int) -> None:
    store.update(Update(who, set={f"a{index}": attribute(index) for index in range(30)})).result()
    events = [Event(f"{who} {each.id}", who, each.type, each.at, each.properties) for each in purchases(size, 1, now)]
    for start in range(0, size, BATCH):
        store.ingest(events[start : start + BATCH]).result()
