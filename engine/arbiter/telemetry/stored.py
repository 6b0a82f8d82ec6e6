"""What a store tells of itself, as instruments.

Law: pure, as `instruments`, of whose one list these are a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.telemetry import histogram
from arbiter.telemetry.instrument import Instrument, one

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.profiles.figures import Written
    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Point

_NANOS = 1_000_000_000


def _groups(written: Written) -> list[int]:
    counts = [written.groups.get(size, 0) for size in histogram.SIZES]
    return [*counts, 0, written.operations]  # none is beyond: the writer's bound on a group is below


def _gone(counters: Counters) -> Iterable[Point]:
    collected = counters.store.collected
    yield ("events",), collected.events
    yield ("ids",), collected.ids
    yield ("profiles",), collected.subjects


INSTRUMENTS = (
    Instrument("arbiter.store.reads", "counter", "{read}", "Profiles read.", one(lambda c: c.store.reads)),
    Instrument("arbiter.store.writes", "counter", "{write}", "Writes acknowledged.", one(lambda c: c.store_writes)),
    Instrument(
        "arbiter.store.commits", "counter", "{commit}", "Transactions on disk.", one(lambda c: c.store.written.commits)
    ),
    Instrument(
        "arbiter.store.commit.time",
        "counter",
        "s",
        "Time in transactions that write, the disk's included.",
        one(lambda c: c.store.written.time / _NANOS),
    ),
    Instrument(
        "arbiter.store.commit.writes",
        "histogram",
        "{write}",
        "Writes that shared a transaction.",
        one(lambda c: _groups(c.store.written)),
        bounds=histogram.SIZES,
        scale=1,
    ),
    Instrument("arbiter.store.queue", "updown", "{write}", "Writes that wait.", one(lambda c: c.store.waiting)),
    Instrument(
        "arbiter.store.used", "gauge", "By", "Data in the store.", one(lambda c: c.store.used_bytes), joined="most"
    ),
    Instrument(
        "arbiter.store.quota",
        "gauge",
        "By",
        "Data beyond which writes are refused.",
        one(lambda c: c.store.quota_bytes),
        joined="most",
    ),
    Instrument(
        "arbiter.store.file",
        "gauge",
        "By",
        "The store's file, its free pages included.",
        one(lambda c: c.store.file_bytes),
        joined="most",
    ),
    Instrument(
        "arbiter.store.oldest_read",
        "gauge",
        "s",
        "For how long the oldest state of the store that is read has been held: freed pages wait for its end.",
        one(lambda c: c.store.oldest_read_s),
        joined="most",
    ),
    Instrument(
        "arbiter.store.rebuilding",
        "gauge",
        "",
        "1 while records are rewritten for changed features.",
        one(lambda c: int(c.store.rebuilding is not None)),
        joined="most",
    ),
    Instrument(
        "arbiter.store.rebuilding.left",
        "gauge",
        "{profile}",
        "Profiles left to look at until all are rewritten for changed features, about.",
        one(lambda c: 0 if c.store.rebuilding is None else c.store.rebuilding.left),
        joined="most",
    ),
    Instrument(
        "arbiter.store.previous_ids",
        "gauge",
        "{id}",
        "Ids that still lie under an earlier key, those of erased subjects included: 0 when the store has turned.",
        one(lambda c: c.store.previous_ids),
        joined="most",
    ),
    Instrument(
        "arbiter.store.collected",
        "counter",
        "{entry}",
        "What was no longer to be kept: events of the log, ids of events, profiles of inactive subjects.",
        _gone,
        ("arbiter.collected",),
    ),
)
