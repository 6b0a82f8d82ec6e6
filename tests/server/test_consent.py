"""SetConsent on a real port, and what decisions make of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.client import InvalidRequest
from arbiter.types import ConsentState, ExplainLevel, Reason
from arbiter.v1 import profile_pb2, profile_pb2_grpc

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

GRANTED, DENIED, REVOKED = ConsentState
RULES = """
consent: {purposes: [ads, analytics]}
schema:
  profile: {age: {type: int, purposes: [ads]}, country: string}
features: {visits: {count: visit, purposes: [analytics]}}
segments: {grown: profile.age >= 18}
decisions: {home: {slots: 2}}
rules:
  - {id: offer, decision: home, priority: 2, requires_consent: [ads, analytics], then: {action: show}}
  - {id: grown, decision: home, priority: 1, when: segments.grown, then: {action: greet}}
"""


@pytest.fixture
def asked(open_shop: OpenShop) -> Shop:
    shop = open_shop()
    shop.write(RULES)
    shop.admin.reload()
    return shop


def test_a_grant_holds_as_soon_as_it_is_answered_and_so_does_its_end(asked: Shop) -> None:
    client = asked.client
    client.update_profile("ann", set={"age": 20, "country": "CA"})
    won = []
    for purpose, state in (("ads", GRANTED), ("analytics", GRANTED), ("analytics", REVOKED), ("ads", DENIED)):
        answer = client.set_consent("ann", purpose, state, source="form")
        assert (answer.current.state, answer.recorded, answer.declared) == (state, True, True)
        won.append([treatment.rule_id for treatment in client.decide("ann", "home").treatments])
    assert won == [["grown"], ["offer", "grown"], ["grown"], []]


def test_an_explanation_names_what_lacks_consent_to_what(asked: Shop) -> None:
    asked.client.update_profile("ann", set={"age": 20})
    offer, grown = asked.client.decide("ann", "home", explain=ExplainLevel.ALL).explanation
    assert (offer.rule_id, offer.reason, offer.denied) == ("offer", Reason.NO_CONSENT, {"offer": ("ads", "analytics")})
    assert (grown.reason, grown.missing, grown.denied) == (Reason.UNKNOWN, ("profile.age",), {"profile.age": ("ads",)})


def test_a_profile_shows_what_is_stored_what_was_said_and_what_decisions_see(asked: Shop) -> None:
    client = asked.client
    client.update_profile("ann", set={"age": 20})
    first = client.set_consent("ann", "ads", GRANTED, source="form").current
    last = client.set_consent("ann", "ads", REVOKED, source="call centre").current
    other = client.set_consent("ann", "mail", GRANTED, source="form")
    assert not other.declared
    known = client.get_profile("ann")
    assert known.attributes == {"age": 20}
    assert (known.features, known.segments) == ({}, {"grown": None})
    assert known.denied == {"profile.age": ("ads",), "features.visits": ("analytics",)}
    assert known.consents == (last, other.current)
    assert client.get_profile("ann", consent_history=True).consents == (last, first, other.current)
    assert (last.purpose, last.source, last.recorded_by) == ("ads", "call centre", "")


def test_the_newest_time_holds_whatever_comes_when(asked: Shop) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    asked.client.set_consent("ann", "ads", REVOKED, source="form", at=now)
    late = asked.client.set_consent("ann", "ads", GRANTED, source="form", at=now - timedelta(days=1))
    again = asked.client.set_consent("ann", "ads", GRANTED, source="form", at=now - timedelta(days=1))
    assert (late.current.state, late.current.at, late.recorded, again.recorded) == (REVOKED, now, True, False)


def test_a_state_must_be_said(asked: Shop) -> None:
    stub = profile_pb2_grpc.ProfileServiceStub(asked.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.SetConsent(profile_pb2.SetConsentRequest(subject_id="ann", purpose="ads", source="form"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidRequest) as refused:
        asked.client.set_consent("ann", "no name!", GRANTED, source="form")
    assert refused.value.field == "purpose"
