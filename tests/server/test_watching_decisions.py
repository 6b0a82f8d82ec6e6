"""WatchDecisions on a real port: who looks on is told what was decided and why, and nothing that is personal."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.client import AsyncClient, CallFailed, Client, InvalidRequest, WatchedDecision
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.types import ConsentState, ExplainLevel, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.conftest import OpenShop, Shop

PATIENCE_S = 60.0
PERSONAL = """
schema:
  profile: {country: string, name: {type: string, personal: true}}
decisions:
  shop.banner: {slots: 1, order: [priority], default: {action: show, params: {banner: bestsellers}}}
  shop.silent: {slots: 1, order: [priority]}
rules:
  - id: named
    decision: shop.banner
    priority: 9
    when: profile.name.startsWith("Mia")
    then: {action: show, params: {banner: "for ${profile.name}"}}
  - id: canadian
    decision: shop.banner
    priority: 8
    when: profile.country == "CA"
    then: {action: show, params: {banner: maple}}
"""
CONSENTED = "consent: {purposes: [analytics, marketing]}\n"


def wait_until(true: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Return when something is true; what is explained is told as far as there is time, so it may be done again."""
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until
        meanwhile()
        time.sleep(0.005)


class Onlooker:
    """Looks on in a thread; what was told so far is `seen`."""

    def __init__(self, target: str, **asked: Any) -> None:
        self.seen: list[WatchedDecision] = []
        self.failed: CallFailed | None = None
        self._client = Client(target)
        self.stream = self._client.watch_decisions(**asked)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for each in self.stream:
                self.seen.append(each)
        except CallFailed as error:
            self.failed = error

    def close(self) -> None:
        self._client.close()
        self._thread.join()


@pytest.fixture
def look_on() -> Iterator[Callable[..., Onlooker]]:
    opened: list[Onlooker] = []

    def look(shop: Shop, **asked: Any) -> Onlooker:
        there: list[int] = []
        shop.admin.onlookers(lambda each: there.append(len(each)))
        opened.append(Onlooker(f"127.0.0.1:{shop.server.port}", **asked))
        wait_until(lambda: there[-1] > there[0])
        return opened[-1]

    yield look
    for each in opened:
        each.close()


def watched(shop: Shop) -> bool:
    """Whether decisions are handed to somebody: they are made so that what they saw is kept."""
    kept: list[bool] = []
    decide = shop.engine.decide

    def spy(request: Any, deadline: Any, active: Any, seen: Any) -> Any:
        kept.append(seen is not None)
        return decide(request, deadline, active, seen)

    shop.engine.decide = spy  # type: ignore[method-assign, assignment]
    try:
        shop.client.decide("nobody", "shop.silent")
    finally:
        shop.engine.decide = decide  # type: ignore[method-assign]
    return kept[0]


def test_decisions_are_told_as_they_are_made_until_nobody_looks_on(shop: Shop, look_on: Any) -> None:
    assert not watched(shop)
    shop.client.update_profile("mia", set={"country": "CA", "age": 30, "name": "Mia"})
    onlooker = look_on(shop, decisions=["shop.banner", "shop.footer"], most_per_second=1000)
    answers = [shop.client.decide("mia", "shop.banner"), shop.client.decide("ann", "shop.footer")]
    answers += shop.client.decide_page("mia", ["shop.banner", "shop.footer"]).decisions
    shop.client.decide("mia", "shop.banner", dry_run=True)
    wait_until(lambda: len(onlooker.seen) >= 4)
    for told, answer in zip(onlooker.seen, answers, strict=True):
        assert told.decision == answer.decision
        assert answer.decision_id.startswith(told.id)
        assert [each.rule_id for each in told.treatments] == [each.rule_id for each in answer.treatments]
        assert (told.snapshot, told.defaulted) == (answer.snapshot, answer.defaulted)
        assert not any(each.params for each in told.treatments)
        assert (told.subject_id, told.explanation, told.impersonal) == ("", (), False)
    onlooker.close()
    wait_until(lambda: not watched(shop))


def test_filters_let_through_what_is_asked_for(shop: Shop, look_on: Any) -> None:
    shop.client.update_profile("mia", set={"country": "CA", "age": 30, "name": "Mia"})
    by_rule = look_on(shop, rules=["canadian"], most_per_second=1000)
    by_subject = look_on(shop, subject_id="ann", most_per_second=1000)
    rarely = look_on(shop, share=0.2, most_per_second=1000, decisions=["shop.footer"])
    for _ in range(400):
        shop.client.decide("mia", "shop.footer")
    shop.client.decide("ann", "shop.banner")
    shop.client.decide("mia", "shop.banner")
    wait_until(lambda: by_rule.seen and by_subject.seen)
    assert [(each.decision, each.subject_id) for each in by_subject.seen] == [("shop.banner", "ann")]
    assert [each.decision for each in by_rule.seen] == ["shop.banner"]
    assert 20 < len(rarely.seen) < 180  # beyond seven standard deviations


def test_reasons_are_told_and_nothing_personal(open_shop: OpenShop, look_on: Any) -> None:
    shop = open_shop(load=False)
    shop.write(PERSONAL + "\n")
    shop.client.reload()
    shop.client.update_profile("mia", set={"country": "CA", "name": "Mia Secret"})
    onlooker = look_on(shop, explain=ExplainLevel.ALL, decisions=["shop.banner"])
    narrowly = {"explain_rules": ["canadian", "elsewhere"], "decisions": ["shop.banner"]}
    one_rule = look_on(shop, explain=ExplainLevel.ALL, **narrowly)
    wait_until(lambda: onlooker.seen and one_rule.seen, lambda: shop.client.decide("mia", "shop.banner"))
    mia, narrow = onlooker.seen[0], one_rule.seen[0]
    wait_until(lambda: onlooker.seen[-1].defaulted, lambda: shop.client.decide("ann", "shop.banner"))
    ann = onlooker.seen[-1]
    assert {each.rule_id: each.reason for each in mia.explanation} == {
        "named": Reason.WON,
        "canadian": Reason.LOST_SLOT,
    }
    assert {each.rule_id: each.reason for each in ann.explanation}["named"] is Reason.UNKNOWN
    assert [each.rule_id for each in narrow.explanation] == ["canadian"]
    assert "won" in mia.explanation_text
    assert b"Secret" not in msgspec.json.encode([*onlooker.seen, *one_rule.seen])


def test_who_has_not_granted_the_log_s_purpose_is_told_of_impersonally(
    open_shop: OpenShop, look_on: Any, transport: str
) -> None:
    shop = open_shop(load=False)
    shop.write(CONSENTED + PERSONAL)
    shop.client.reload()
    backing = msgspec.structs.replace(shop.backing, purpose="analytics")
    other = Server(backing, "127.0.0.1:0", msgspec.convert({"transport": transport}, FaceSettings))
    try:
        for name in ("mia", "bob"):
            shop.client.update_profile(name, set={"country": "CA"})
        shop.client.set_consent("mia", "analytics", ConsentState.GRANTED, source="form")
        everybody = look_on(shop, explain=ExplainLevel.ALL, decisions=["shop.banner"])
        of_bob = look_on(shop, subject_id="bob", explain=ExplainLevel.ALL)
        with Client(f"127.0.0.1:{other.port}") as client:
            client.decide("bob", "shop.banner")
            wait_until(lambda: everybody.seen)
            mine = [client.decide("mia", "shop.banner")]
            wait_until(lambda: len(everybody.seen) > 1, lambda: mine.append(client.decide("mia", "shop.banner")))
    finally:
        other.stop(1.0)
    bob, mia = everybody.seen[:2]
    assert (bob.impersonal, bob.id, bob.reference, bob.explanation, bob.at.second) == (True, "", "", (), 0)
    assert [each.rule_id for each in bob.treatments] == ["canadian"]
    assert any(each.decision_id.startswith(mia.id) for each in mine)
    assert mia.explanation
    assert not mia.impersonal
    assert of_bob.seen == []


def test_what_is_too_much_is_counted_and_not_told(shop: Shop, look_on: Any) -> None:
    onlooker = look_on(shop, most_per_second=5, decisions=["shop.footer"])
    for _ in range(200):
        shop.client.decide("ann", "shop.footer")
    wait_until(lambda: len(onlooker.seen) + onlooker.stream.dropped >= 200)
    assert len(onlooker.seen) + onlooker.stream.dropped == 200
    assert onlooker.stream.dropped > 100


def test_a_request_that_makes_no_sense_is_refused(shop: Shop) -> None:
    for asked, field in (
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"most_per_second": 1001}, "most_per_second"),
        ({"subject_id": "x" * 300}, "subject_id"),
        ({"decisions": [""]}, "decisions[0]"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            next(shop.client.watch_decisions(**asked))
        assert caught.value.field == field


def test_streams_are_bounded_and_a_server_that_stops_ends_them(open_shop: OpenShop, look_on: Any) -> None:
    shop = open_shop(limits={"watchers": 1})
    onlooker = look_on(shop, patience=0.0)
    with Client(f"127.0.0.1:{shop.server.port}", retries=None) as client, pytest.raises(CallFailed) as caught:
        next(client.watch_decisions())
    assert (caught.value.code, caught.value.limit) == ("RESOURCE_EXHAUSTED", "watchers")
    began = time.monotonic()
    shop.server.stop(PATIENCE_S)
    assert time.monotonic() - began < PATIENCE_S
    wait_until(lambda: onlooker.failed)
    assert (onlooker.failed.code, onlooker.failed.reason) == ("UNAVAILABLE", "NOT_READY")


def test_the_client_for_asyncio_looks_on_too(shop: Shop) -> None:
    async def run() -> WatchedDecision:
        async with AsyncClient(f"127.0.0.1:{shop.server.port}") as client, client.watch_decisions() as stream:
            following = asyncio.ensure_future(anext(stream))
            while not following.done():
                await client.decide("ann", "shop.banner")
                await asyncio.sleep(0.01)
            return following.result()

    assert asyncio.run(run()).decision == "shop.banner"
