"""Thirty-nine weeks of purchases: fetched, moved to end now, and sent over gRPC.

Law: events in, nothing out but what was sent; asks for no decision.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.demo.stage import require
from arbiter.cli.eventfile import batches
from arbiter.datasets import cdnow
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.cli.demo.scene import Scene
    from arbiter.types import Event

_BATCH = 1000
_NEWCOMERS = 3
_FIRST_PURCHASES = 3
_BIG = 50.0
_QUICK_SHARE = 10


class Record(msgspec.Struct, frozen=True):
    """What is replayed, by time, and the first three purchases of a few customers who are kept back to join later."""

    past: list[Event]
    newcomers: dict[str, list[Event]]

    @property
    def customers(self) -> list[str]:
        """Who bought, sorted."""
        return sorted({event.subject_id for event in self.past})


def read_record(*, quick: bool) -> Record:
    """Fetch the record and let its 39th week end now. Raises DataUnavailable."""
    now = datetime.now(UTC)
    by_customer: dict[str, list[Event]] = defaultdict(list)
    for event in cdnow.events(cdnow.load(), shift_to=now):
        if event.at <= to_micros(now):
            by_customer[event.subject_id].append(event)
    newcomers = _newcomers(by_customer)
    for customer in newcomers:
        del by_customer[customer]
    kept = sorted(by_customer)[:: _QUICK_SHARE if quick else 1]
    past = [event for customer in kept for event in by_customer[customer]]
    past.sort(key=lambda event: event.at)
    return Record(past, newcomers)


def _newcomers(by_customer: dict[str, list[Event]]) -> dict[str, list[Event]]:
    """Customers with three purchases or more: one who began with a large order, and others who did not."""
    long = [events for _, events in sorted(by_customer.items()) if len(events) >= _FIRST_PURCHASES]
    large = [events for events in long if events[0].properties["amount"] >= _BIG]
    small = [events for events in long if events[0].properties["amount"] < _BIG]
    chosen = [*small[: _NEWCOMERS - 1], *large[:1]]
    require(len(chosen) == _NEWCOMERS, "the record has too few customers with three purchases")
    return {events[0].subject_id: events[:_FIRST_PURCHASES] for events in chosen}


def replay(scene: Scene, record: Record) -> None:
    """Send the past in batches, then the last batch once more: it must be known."""
    stage, client = scene.stage, scene.client
    began = time.perf_counter()
    accepted = 0
    last: Sequence[Event] = ()
    with stage.progress() as bar:
        task = bar.add_task("purchases", total=len(record.past), rate="")
        for last in batches(record.past, _BATCH):
            done = client.ingest_events(last, timeout=60)
            require(done.accepted == len(last), f"of {len(last)} purchases {done.accepted} were accepted as new")
            accepted += done.accepted
            rate = accepted / (time.perf_counter() - began)
            bar.update(
                task,
                completed=accepted,
                description=f"purchases up to {from_micros(last[-1].at):%d %b %Y}",
                rate=f"{rate:,.0f}/s",
            )
    seconds = time.perf_counter() - began
    stage.done(
        f"{accepted:,} purchases by {len(record.customers):,} customers stored in {seconds:.1f} s, "
        f"each on disk before it was acknowledged"
    )
    again = client.ingest_events(last, timeout=60)
    require(again.duplicates == len(last) and not again.accepted, "a batch that was sent twice was stored twice")
    stage.done(f"the last batch sent once more: {again.duplicates:,} duplicates dropped, nothing counted twice")
