"""What answers when no server does, on both faces, and when nothing local may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.client import (
    Answer,
    Ask,
    CallFailed,
    DeadlineExceeded,
    InvalidRequest,
    Page,
    Retries,
    Unavailable,
    UnknownName,
)
from arbiter.types import Reason, Treatment

if TYPE_CHECKING:
    from tests.client.conftest import OpenClient, Road

QUICK = Retries(first=0.001)
PLAIN = Treatment("", "show", {"banner": "plain"})
AWAY = grpc.StatusCode.UNAVAILABLE


def shown(answer: Answer | Page | CallFailed) -> object:
    assert isinstance(answer, Answer)
    return [each.params["banner"] for each in answer.treatments]


def test_a_treatment_answers_when_the_server_is_away(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=QUICK, fallback={"shop.banner": PLAIN})
    road.close()
    answer = client.decide("ann", "shop.banner", request_id="r1")
    assert answer.local
    assert isinstance(answer.failure, Unavailable)
    assert answer.failure.attempts == 5
    assert (answer.decision, answer.request_id, answer.decision_id, answer.snapshot) == ("shop.banner", "r1", "", "")
    assert answer.defaulted
    assert answer.treatments == (Treatment("", "show", {"banner": "plain"}, reason=Reason.DEFAULT),)


def test_it_answers_when_the_server_is_too_late(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target)
    road.hold()
    answer = client.decide("ann", "shop.banner", fallback=[PLAIN, PLAIN], timeout=0.2)
    assert isinstance(answer.failure, DeadlineExceeded)
    assert shown(answer) == ["plain", "plain"]


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_it_answers_when_the_server_fails(open_client: OpenClient, road: Road, code: grpc.StatusCode) -> None:
    client = open_client(road.target)
    road.refuse(code)
    assert client.decide("ann", "shop.banner", fallback=()).local


def test_it_answers_when_the_server_is_full_but_not_for_what_is_too_much(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=None)
    road.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.1)
    assert client.decide("ann", "shop.banner", fallback=PLAIN).local
    road.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT_EXCEEDED")
    with pytest.raises(CallFailed, match="RESOURCE_EXHAUSTED"):
        client.decide("ann", "shop.banner", fallback=PLAIN)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
def test_nothing_local_stands_in_for_a_mistake(open_client: OpenClient, road: Road, code: grpc.StatusCode) -> None:
    client = open_client(road.target, fallback={"shop.banner": PLAIN})
    road.refuse(code, None)
    with pytest.raises(CallFailed, match=code.name):
        client.decide("ann", "shop.banner")
    with pytest.raises(CallFailed, match=code.name):
        client.decide_batch([Ask(subject_id="ann", decision="shop.banner")])


def test_nothing_local_stands_in_for_what_cannot_be_sent(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target)
    with pytest.raises(InvalidRequest):
        client.decide("ann", "shop.banner", slots=-1, fallback=PLAIN)


def test_a_server_that_answers_is_believed(open_client: OpenClient, server: str) -> None:
    client = open_client(server, fallback={"shop.banner": PLAIN})
    answer = client.decide("ann", "shop.banner", fallback=PLAIN)
    assert (answer.local, answer.failure, shown(answer)) == (False, None, ["bestsellers"])


def test_a_function_sees_the_request_and_the_failure(open_client: OpenClient, road: Road) -> None:
    def choose(asked: Ask, failure: CallFailed) -> Treatment:
        device = (asked.context or {})["device"]
        return Treatment("", "show", {"banner": f"{asked.subject_id} {asked.decision} {device} {failure.code}"})

    client = open_client(road.target, retries=None, fallback={"shop.banner": choose, "shop.footer": choose})
    road.refuse(AWAY, None)
    answer = client.decide("ann", "shop.banner", context={"device": "ios"})
    page = client.decide_page("ann", ["shop.footer", "shop.banner"], context={"device": "tv"})
    assert shown(answer) == ["ann shop.banner ios UNAVAILABLE"]
    assert page.local
    assert [shown(each) for each in page.decisions] == [
        ["ann shop.footer tv UNAVAILABLE"],
        ["ann shop.banner tv UNAVAILABLE"],
    ]


def test_what_a_call_gives_goes_before_what_the_client_has(open_client: OpenClient, road: Road) -> None:
    other = Treatment("", "show", {"banner": "other"})
    client = open_client(road.target, retries=None, fallback={"shop.banner": PLAIN, "shop.footer": PLAIN})
    road.refuse(AWAY, None)
    assert shown(client.decide("ann", "shop.banner", fallback=other)) == ["other"]
    page = client.decide_page("ann", ["shop.banner", "shop.footer"], fallback={"shop.banner": other})
    assert [shown(each) for each in page.decisions] == [["other"], ["plain"]]


def test_a_page_is_local_as_a_whole_or_not_at_all(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=None, fallback={"shop.banner": PLAIN})
    road.refuse(AWAY, None)
    with pytest.raises(Unavailable):
        client.decide_page("ann", ["shop.banner", "shop.footer"])
    with pytest.raises(Unavailable):
        client.decide_page("ann", [])


def test_requests_of_a_batch_are_local_one_by_one(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, retries=None, fallback={"shop.banner": PLAIN})
    road.refuse(AWAY, None)
    batch = client.decide_batch(
        [
            Ask(subject_id="ann", decision="shop.banner"),
            Ask(subject_id="ann", decision="shop.footer"),
            Ask(subject_id="ann", decision="shop.banner", slots=-1),
            Ask(subject_id="ann", decisions=iter(["shop.banner"])),
        ]
    )
    first, second, third, fourth = batch.results
    assert shown(first) == ["plain"]
    assert isinstance(second, Unavailable)
    assert isinstance(third, InvalidRequest)
    assert isinstance(fourth, Page)
    assert (fourth.local, batch.snapshot) == (True, "")
    with pytest.raises(Unavailable):
        client.decide_batch([Ask(subject_id="ann", decision="shop.footer")])


def test_in_a_batch_that_is_answered_mistakes_stay_mistakes(open_client: OpenClient, server: str) -> None:
    client = open_client(server, fallback={"shop.baner": PLAIN, "shop.banner": PLAIN})
    asked = [Ask(subject_id="ann", decision=name) for name in ("shop.baner", "shop.banner")]
    wrong, right = client.decide_batch(asked).results
    assert isinstance(wrong, UnknownName)
    assert shown(right) == ["bestsellers"]


def test_what_a_fallback_raises_is_not_hidden(open_client: OpenClient, road: Road) -> None:
    def choose(_asked: Ask, _failure: CallFailed) -> Treatment:
        raise LookupError("nothing to choose from")

    client = open_client(road.target, retries=None)
    road.refuse(AWAY)
    with pytest.raises(LookupError, match="nothing to choose from"):
        client.decide("ann", "shop.banner", fallback=choose)
