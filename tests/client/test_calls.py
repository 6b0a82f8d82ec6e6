"""What a caller of the SDK may rely on, on both faces: retries, deadlines, and what is never sent twice."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.client import (
    Ask,
    CallFailed,
    DeadlineExceeded,
    InvalidRequest,
    PermissionDenied,
    ResourceExhausted,
    Retries,
    ServerFault,
    Unauthenticated,
    Unavailable,
    UnknownName,
)
from arbiter.types import ConsentState, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.client import Client
    from tests.client.conftest import OpenClient, Road

QUICK = Retries(first=0.001, longest=0.01)
AWAY = grpc.StatusCode.UNAVAILABLE
READS: list[Callable[[Client], object]] = [
    lambda client: client.decide("ann", "shop.banner"),
    lambda client: client.decide_page("ann", ["shop.banner", "shop.footer"]),
    lambda client: client.decide_batch([Ask(subject_id="ann", decision="shop.banner")]),
    lambda client: client.get_profile("ann"),
    lambda client: client.snapshot(),
    lambda client: client.snapshots(),
    lambda client: client.server_info(),
    lambda client: client.health(),
    lambda client: client.validate({}),
    lambda client: client.set_consent(
        "ann", "ads", ConsentState.DENIED, source="t", at=datetime(2026, 1, 1, tzinfo=UTC)
    ),
    lambda client: client.link_identity("ann's phone", "ann"),
    lambda client: client.ingest_events([Event("e1", "bob", "purchase", 0, {})]),
]


def test_every_kind_of_call_is_answered(open_client: OpenClient, server: str) -> None:
    client = open_client(server)
    client.wait_ready()
    version = client.update_profile("cleo", set={"country": "CA"})
    (result,) = client.decide_batch([Ask(subject_id="cleo", decision="shop.banner")]).results
    page = client.decide_page("cleo", ["shop.banner", "shop.footer"])
    assert not isinstance(result, CallFailed)
    assert [each.local for each in (result, page, *page.decisions)] == [False] * 4
    assert result.failure is None
    assert [each.treatments[0].rule_id for each in page.decisions] == ["canadian", ""]
    client.update_profile("cleo", add_to_set={"tags": "new"}, ttl={"tags": timedelta(days=1)})
    known = client.get_profile("cleo", history=1)
    assert (known.version, known.attributes["tags"], list(known.expires)) == (version + 1, ["new"], ["tags"])
    assert known.history[0].changes["tags"].after == ["new"]
    assert client.reload().last_reload is not None


@pytest.mark.parametrize("ask", READS, ids=range(len(READS)))
def test_what_may_be_sent_twice_is_sent_again(
    open_client: OpenClient, road: Road, ask: Callable[[Client], object]
) -> None:
    client = open_client(road.target, retries=QUICK)
    road.refuse(AWAY, 2)
    ask(client)
    assert len(road.seen) == 3


def test_an_update_whose_answer_was_lost_is_done_once(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    before = client.get_profile("dave").version
    road.lose()
    version = client.update_profile("dave", increment={"visits": 1})
    assert version == before + 1
    assert client.get_profile("dave").attributes == {"visits": client.get_profile("dave").version}
    assert [each.method for each in road.seen].count("UpdateProfile") == 2


def test_an_update_keeps_the_key_that_it_was_given(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    road.lose()
    first = client.update_profile("eve", increment={"visits": 1}, idempotency_key="mine")
    assert client.update_profile("eve", increment={"visits": 1}, idempotency_key="mine") == first


def test_an_update_is_not_sent_again_by_a_client_that_does_not_retry(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=None)
    road.refuse(AWAY)
    with pytest.raises(Unavailable) as caught:
        client.update_profile("fred", set={"country": "CA"})
    assert (len(road.seen), caught.value.attempts) == (1, 1)


def test_an_order_is_never_sent_twice(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    orders: list[Callable[[], object]] = [
        client.reload,
        partial(client.rollback, "0" * 32),
        partial(client.set_canary, "0" * 32, 5),
        client.promote_canary,
        client.drop_canary,
        partial(client.clear_override, "x"),
        # Without a time it would be said anew, after whatever was said in between.
        partial(client.set_consent, "ann", "ads", ConsentState.GRANTED, source="t"),
    ]
    for sent, order in enumerate(orders, start=1):
        road.refuse(AWAY)
        with pytest.raises(Unavailable):
            order()
        assert len(road.seen) == sent


def test_a_full_server_is_asked_again_only_when_it_says_when(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    road.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.01)
    client.decide("ann", "shop.banner")
    assert len(road.seen) == 2
    road.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT_EXCEEDED")
    with pytest.raises(ResourceExhausted):
        client.decide("ann", "shop.banner")
    assert len(road.seen) == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, UnknownName),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, CallFailed),
    ],
)
def test_what_would_fail_again_is_not_sent_again(
    open_client: OpenClient, road: Road, code: grpc.StatusCode, kind: type[CallFailed]
) -> None:
    client = open_client(road.target, retries=QUICK)
    road.refuse(code, reason="SOME_REASON")
    with pytest.raises(CallFailed) as caught:
        client.decide("ann", "shop.banner")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason, caught.value.attempts) == (code.name, "SOME_REASON", 1)
    assert len(road.seen) == 1


def test_attempts_are_counted_and_end(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=Retries(attempts=3, first=0.001))
    road.refuse(AWAY, None)
    with pytest.raises(Unavailable) as caught:
        client.decide("ann", "shop.banner")
    assert (len(road.seen), caught.value.attempts) == (3, 3)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_one_deadline_is_over_all_attempts(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    road.refuse(AWAY, retry_after=1.0)
    client.decide("ann", "shop.banner", timeout=20)
    first, second = [each.remaining for each in road.seen]
    assert second < first - 0.5  # grpc rounds what it sends


def test_nothing_is_sent_again_that_could_not_be_answered_in_time(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK)
    road.refuse(AWAY, retry_after=3600)
    with pytest.raises(Unavailable) as caught:
        client.decide("ann", "shop.banner")
    assert caught.value.retry_after == 3600
    assert len(road.seen) == 1


def test_a_slow_server_is_too_late(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target)
    road.hold()
    with pytest.raises(DeadlineExceeded):
        client.decide("ann", "shop.banner", timeout=0.2)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_without_time_nothing_is_sent(open_client: OpenClient, road: Road, timeout: float) -> None:
    client = open_client(road.target)
    with pytest.raises(DeadlineExceeded, match="before anything was sent") as caught:
        client.decide("ann", "shop.banner", timeout=timeout)
    assert (road.seen, caught.value.attempts) == ([], 0)


def test_an_outage_is_not_multiplied(open_client: OpenClient, road: Road) -> None:
    """Each of ten calls may be retried four times by the attempts, and all of them three times by the budget."""
    client = open_client(road.target, retries=Retries(first=0.001, burst=8))
    road.refuse(AWAY, None)
    for _ in range(10):
        with pytest.raises(Unavailable):
            client.decide("ann", "shop.banner")
    assert len(road.seen) == 10 + 3


def test_good_calls_fill_the_budget_again(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=Retries(first=0.001, burst=4, share=0.5))
    road.refuse(AWAY, 2)
    with pytest.raises(Unavailable):
        client.decide("ann", "shop.banner")
    for _ in range(4):
        client.decide("ann", "shop.banner")
    road.seen.clear()
    road.refuse(AWAY)
    client.decide("ann", "shop.banner")
    assert len(road.seen) == 2


def test_a_server_that_comes_back_on_its_port_is_found(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, timeout=30, retries=Retries(attempts=100, burst=1000))
    client.decide("ann", "shop.banner")
    road.close()
    with pytest.raises(Unavailable):
        client.decide("ann", "shop.banner", timeout=0.3)
    opening = threading.Timer(0.3, road.open, [road.target])
    opening.start()
    assert client.decide("ann", "shop.banner").treatments
    opening.join()


def test_calls_of_a_closed_client_fail(open_client: OpenClient, server: str) -> None:
    client = open_client(server)
    client.decide("ann", "shop.banner")
    client.close()
    with pytest.raises(CallFailed, match="CANCELLED: the client is closed"):
        client.decide("ann", "shop.banner")


@pytest.mark.parametrize("under_way", [False, True])
def test_closing_ends_a_call_that_is_under_way_or_waits_for_its_next_attempt(
    open_client: OpenClient, road: Road, *, under_way: bool
) -> None:
    client = open_client(road.target, timeout=60, retries=QUICK)
    if under_way:
        road.hold()
    else:
        road.refuse(AWAY, retry_after=30)
    failed: list[CallFailed] = []

    def ask() -> None:
        try:
            client.decide("ann", "shop.banner")
        except CallFailed as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    road.wait_for(1)
    client.close()
    asking.join()
    road.let_go()
    assert [each.code for each in failed] == ["CANCELLED"]
    assert len(road.seen) == 1


def test_closing_ends_a_call_that_has_begun_to_wait(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, timeout=600, retries=QUICK)
    road.refuse(AWAY, retry_after=500)
    failed: list[str] = []

    def ask() -> None:
        with pytest.raises(CallFailed) as raised:
            client.decide("ann", "shop.banner")
        failed.append(raised.value.code)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    road.wait_for(1)
    asking.join(1.0)  # by now it waits, if ever it does: that it does not end is what the last line would find
    client.close()
    asking.join(60)
    assert failed == ["CANCELLED"]


def test_nobody_is_waited_for_longer_than_said(open_client: OpenClient, road: Road) -> None:
    road.close()
    client = open_client(road.target)
    with pytest.raises(TimeoutError, match=f"no server answers at {road.target}"):
        client.wait_ready(timeout=0.1)
