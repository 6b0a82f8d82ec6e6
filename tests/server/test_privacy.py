"""ExportProfile and DeleteProfile on a real port."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.client import AsyncClient, InvalidRequest, PreconditionFailed
from arbiter.profiles.compaction import compact
from arbiter.profiles.environment import open_environment
from arbiter.profiles.generations import remove_superseded
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import OpenShop, Shop

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fill(shop: Shop, subject: str, number: int = 5) -> None:
    shop.client.update_profile(subject, set={"street": "Seestrasse 4", "raw": b"\x00\xff"}, idempotency_key="once")
    shop.client.ingest_events([
        Event(f"{subject}-{n}", subject, "visit", to_micros(AT) + n, {"page": f"/path-{n}"}) for n in range(number)
    ])  # fmt: skip


def held(shop: Shop, page_size: int = 0, *, subject_id: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Everything, a page after the other."""
    page = shop.client.export_profile(subject_id, page_size=page_size)
    found = list(page.entries)
    while page.next_page_token:
        assert page_size == 0 or len(page.entries) == page_size
        page = shop.client.export_profile(subject_id, page_size=page_size, page_token=page.next_page_token)
        found += page.entries
    return found


def test_an_export_holds_everything_whatever_the_size_of_its_pages(shop: Shop) -> None:
    fill(shop, "exported")
    whole = held(shop, subject_id="exported")
    assert [name for name, _ in whole] == [
        "profile", "feature_states", *["events"] * 5, *["event_ids"] * 5, "idempotency_keys", "history"
    ]  # fmt: skip
    assert whole[0][1]["attributes"] == {"street": "Seestrasse 4", "raw": b"\x00\xff"}
    assert whole[0][1]["version"] == 1
    assert [(each["id"], each["properties"]) for name, each in whole if name == "events"] == [
        (f"exported-{n}", {"page": f"/path-{n}"}) for n in range(5)
    ]
    assert whole[2][1]["at"] == AT
    for size in (1, 2, 3, 100):
        assert held(shop, size, subject_id="exported") == whole


def test_large_entries_make_small_pages(shop: Shop) -> None:
    text = "x" * 15_000
    events = [Event(str(n), "large", "visit", to_micros(AT) + n, {"text": text}) for n in range(200)]
    shop.client.ingest_events(events)
    page = shop.client.export_profile("large")
    assert page.next_page_token
    assert len(page.entries) < 100
    assert sum(name == "events" for name, _ in held(shop, subject_id="large")) == 200


def test_of_an_unknown_subject_nothing_is_held(shop: Shop) -> None:
    page = shop.client.export_profile("nobody at all")
    assert (page.entries, page.erased_at, page.next_page_token) == ((), None, "")
    assert shop.client.delete_profile("nobody at all").erased == {}


def test_an_erased_subject_is_gone_for_every_call(shop: Shop) -> None:
    fill(shop, "erased")
    fill(shop, "kept")
    done = shop.client.delete_profile("erased")
    assert done.erased == {
        "profile": 1,
        "feature_states": 1,
        "events": 5,
        "event_ids": 5,
        "idempotency_keys": 1,
        "history": 1,
    }
    assert done.pseudonym == shop.store.pseudonym("erased")
    assert not shop.client.get_profile("erased").exists
    page = shop.client.export_profile("erased")
    assert (page.entries, page.erased_at) == ((), done.erased_at)
    again = shop.client.delete_profile("erased")
    assert again.erased == {}
    assert again.erased_at >= done.erased_at
    old = Event("new id", "erased", "visit", to_micros(AT))
    assert shop.client.ingest_events([old]).erased == 1
    assert shop.client.get_profile("kept").version == 1


def test_a_stream_tells_what_it_dropped_of_the_erased(shop: Shop) -> None:
    shop.client.delete_profile("streamed")
    events = [Event(str(n), who, "visit", to_micros(AT)) for n in range(30) for who in ("streamed", "kept too")]
    done = list(shop.client.ingest_stream(events, batch=7))[-1]
    assert (done.sent, done.accepted, done.duplicates, done.erased) == (60, 30, 0, 30)
    assert shop.store.events("streamed") == []


def test_accounts_are_exported_and_erased_like_subjects(shop: Shop) -> None:
    shop.client.update_profile(account_id="acme", set={"tier": "gold"})
    shop.client.update_profile("acme", set={"tier": "none"})
    page = shop.client.export_profile(account_id="acme")
    assert (page.account_id, page.subject_id) == ("acme", "")
    assert page.entries[0][1]["attributes"] == {"tier": "gold"}
    assert shop.client.delete_profile(account_id="acme").erased["profile"] == 1
    assert not shop.client.get_profile(account_id="acme").exists
    assert shop.client.get_profile("acme").attributes == {"tier": "none"}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "subject_id"),
        ({"subject_id": "x" * 257}, "subject_id"),
        ({"subject_id": "a", "account_id": "b"}, "account_id"),
        ({"subject_id": "a", "page_size": 10_001}, "page_size"),
        ({"subject_id": "a", "page_token": "!"}, "page_token"),
        ({"subject_id": "a", "page_token": "kqNub3fEAA=="}, "page_token"),  # of a holding that there is not
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_field(shop: Shop, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shop.client.export_profile(**asked)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_page_is_no_longer_than_the_limit(open_shop: OpenShop) -> None:
    client = open_shop(limits={"page_entries": 2}).client
    client.ingest_events([Event(f"e{number}", "ann", "purchase", number, {}) for number in range(9)])
    with pytest.raises(InvalidRequest, match="`page_entries` allows 2") as caught:
        client.export_profile("ann", page_size=3)
    assert caught.value.limit == "page_entries"
    assert len(client.export_profile("ann").entries) == 2


def test_both_are_recorded_without_an_id(open_shop: OpenShop, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    shop = open_shop(audit={"file": str(file)})
    fill(shop, "secretive")
    token = shop.client.export_profile("secretive", page_size=1).next_page_token
    shop.client.export_profile("secretive", page_token=token)
    shop.client.delete_profile("secretive")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [line["method"].rpartition("/")[2] for line in lines] == ["ExportProfile"] * 2 + ["DeleteProfile"]
    assert {line["subject"] for line in lines} == {shop.store.pseudonym("secretive")}
    assert [line.get("request") for line in lines] == [{"page_size": 1}, None, None]
    assert "secretive" not in file.read_text("utf-8")


def test_no_file_of_a_server_holds_a_trace_of_the_erased(
    open_shop: OpenShop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop(audit={"file": str(tmp_path / "audit.jsonl")})
    fill(shop, "traceable-subject")
    with pytest.raises(PreconditionFailed):
        shop.client.update_profile("traceable-subject", set={"street": "Nowhere"}, idempotency_key="once")
    shop.client.get_profile("traceable-subject")
    shop.client.decide("traceable-subject", "shop.banner")
    shop.client.export_profile("traceable-subject")
    shop.client.delete_profile("traceable-subject")
    pseudonym = shop.store.pseudonym("traceable-subject")
    shop.close()
    store = tmp_path / "0" / "data" / "store"
    environment = open_environment(store, 1 << 30)
    compact(environment, 1 << 30)
    environment.handle.close()
    remove_superseded(store)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"data.mdb", "audit.jsonl", "shop.yaml"} <= {path.name for path in files}
    said = b"".join(path.read_bytes() for path in files) + caplog.text.encode()
    traces = (b"traceable", b"Seestrasse", b"Nowhere", b"/path-")
    assert [trace for trace in traces if trace in said] == []
    assert said.count(bytes.fromhex(pseudonym)) == 1  # the tombstone
    assert said.count(pseudonym.encode()) == 3  # the audit log: read, exported, erased


def test_the_other_face_does_the_same(shop: Shop) -> None:
    async def ask() -> tuple[int, int]:
        async with AsyncClient(f"127.0.0.1:{shop.server.port}") as client:
            held = await client.export_profile("awaited")
            return len(held.entries), (await client.delete_profile("awaited")).erased["events"]

    fill(shop, "awaited")
    assert asyncio.run(ask()) == (14, 5)
