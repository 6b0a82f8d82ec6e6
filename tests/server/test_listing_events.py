"""ListEvents on a real port: pages by time, between times, of some types, from either end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.client import InvalidRequest
from arbiter.profiles import listing
from arbiter.types import Event, from_micros
from arbiter.v1 import profile_pb2, profile_pb2_grpc

if TYPE_CHECKING:
    from arbiter.client import Client
    from tests.server.conftest import OpenShop, Shop

MINUTE = 60_000_000
START = 1_790_000_000_000_000


def listed(client: Client, subject_id: str, **asked: Any) -> list[Event]:
    """All pages, one after another."""
    found: list[Event] = []
    page = client.list_events(subject_id, **asked)
    while page.next:
        found += page.events
        page = client.list_events(subject_id, page_token=page.next, **asked)
    return [*found, *page.events]


def history(subject_id: str, rng: random.Random) -> list[Event]:
    """Events at few different times, so that many share one."""
    return [
        Event(f"e{number}", subject_id, rng.choice(["see", "buy"]), START + rng.randrange(12) * MINUTE, {"n": number})
        for number in range(60)
    ]


def test_pages_together_are_what_was_asked_for(shop: Shop) -> None:
    rng = random.Random(5)  # noqa: S311 - no secret
    events = history("pages", rng)
    shop.client.ingest_events(events[:40])
    shop.client.ingest_events(history("pagesnext", rng))
    shop.client.ingest_events(events[40:])
    in_order = sorted(events, key=lambda event: event.at)
    for _ in range(60):
        low, high = sorted(START + rng.randrange(-1, 13) * MINUTE for _ in range(2))
        types = rng.choice([[], ["buy"], ["buy", "see"], ["none"]])
        backwards = rng.random() < 0.5
        expected = [event for event in in_order if low <= event.at < high and (not types or event.type in types)]
        found = listed(
            shop.client,
            "pages",
            start=from_micros(low),
            end=from_micros(high),
            types=types,
            newest_first=backwards,
            page_size=rng.choice([1, 7, 1000]),
        )
        assert found == (expected[::-1] if backwards else expected)
    assert listed(shop.client, "pages") == in_order
    assert listed(shop.client, "nobody") == []


def test_a_rare_type_is_found_over_short_pages(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 10)
    events = [Event(f"e{number}", "rare", "buy" if number == 55 else "see", START + number) for number in range(60)]
    shop.client.ingest_events(events)
    first = shop.client.list_events("rare", types=["buy"])
    assert first.events == ()
    assert first.next
    assert listed(shop.client, "rare", types=["buy"]) == [events[55]]


def test_a_page_goes_on_where_it_ended_while_events_come(shop: Shop) -> None:
    shop.client.ingest_events([Event(f"e{n}", "grows", "see", START + n * MINUTE) for n in range(4)])
    page = shop.client.list_events("grows", page_size=2)
    shop.client.ingest_events([Event("late", "grows", "see", START), Event("new", "grows", "see", START + 9 * MINUTE)])
    rest = shop.client.list_events("grows", page_size=1000, page_token=page.next)
    assert [event.id for event in (*page.events, *rest.events)] == ["e0", "e1", "e2", "e3", "new"]


def test_what_is_no_page_is_refused(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"page_events": 50})
    shop.client.ingest_events([Event(f"e{n}", "ann", "see", START + n) for n in range(3)])
    token = shop.client.list_events("ann", page_size=1).next
    with pytest.raises(InvalidRequest, match="`page_events` allows 50") as large:
        shop.client.list_events("ann", page_size=51)
    assert (large.value.field, large.value.limit) == ("page_size", "page_events")
    for asked in ({"page_token": "!"}, {"page_token": token[:-4]}, {"page_token": token, "types": ["see"]}):
        with pytest.raises(InvalidRequest, match="page_token") as strange:
            shop.client.list_events("ann", **asked)
        assert strange.value.field == "page_token"
    with pytest.raises(InvalidRequest, match="subject_id is empty"):
        shop.client.list_events("")
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    assert len(stub.ListEvents(profile_pb2.ListEventsRequest(subject_id="ann")).events) == 3
