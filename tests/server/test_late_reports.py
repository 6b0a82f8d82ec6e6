"""Reports that come when much has changed: other rules, another id of the subject, an erasure, an older order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from arbiter.client import Exposure, InvalidRequest, Outcome, ReportResult
from arbiter.profiles.store import Limits
from arbiter.types import from_micros

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

ACCEPTED, DUPLICATE, _, ERASED = ReportResult
DAY = 86_400_000_000
CAPPED = """
decisions: {home: {default: {action: show, params: {n: 0}}}}
rules:
  - id: offer
    decision: home
    then: {action: show, params: {n: 1}}
    cap: {max: 2, per: 7d, count_on: exposure}
"""


@pytest.fixture(scope="module")
def transport() -> str:
    """One will do: what is reported is the same on both."""
    return "inline"


@pytest.fixture
def capped(open_shop: OpenShop) -> Shop:
    shop = open_shop()
    shop.write(CAPPED)
    shop.admin.reload()
    return shop


def given(shop: Shop, subject: str) -> str:
    return shop.client.decide(subject, "home").decision_id


def shown(shop: Shop, decision_id: str, at: datetime | None = None, key: str = "") -> ReportResult:
    (result,) = shop.client.record_exposures([Exposure(decision_id=decision_id, at=at, idempotency_key=key)])
    return result


def is_full(shop: Shop, subject: str) -> bool:
    return shop.client.decide(subject, "home").defaulted


def test_whatever_the_order_of_the_reports_the_newest_fill_the_cap(capped: Shop) -> None:
    days = [day * 5 % 12 for day in range(12)]
    decision = given(capped, "ann")
    begun = int(decision.partition("-")[0], 16)
    for day in days:
        moment = from_micros(begun + day * DAY)
        assert shown(capped, decision, moment, key=f"day-{day}") is ACCEPTED
    assert [each.at for each in capped.client.list_events("ann").events] == [begun + day * DAY for day in range(12)]
    told = capped.client.decide("ann", "home")
    assert told.defaulted
    assert told.valid_until == from_micros(begun + 17 * DAY)  # the last but one of them leaves


def test_what_two_ids_were_shown_fills_one_cap_once_they_are_one(capped: Shop) -> None:
    before, known = given(capped, "device"), given(capped, "ann")
    assert (shown(capped, before), shown(capped, known)) == (ACCEPTED, ACCEPTED)
    assert not is_full(capped, "device")
    assert not is_full(capped, "ann")
    capped.client.link_identity("device", "ann")
    assert is_full(capped, "ann")
    assert is_full(capped, "device")
    assert (shown(capped, before), shown(capped, known)) == (DUPLICATE, DUPLICATE)


def test_a_report_that_comes_after_the_link_counts_for_the_known_one(capped: Shop) -> None:
    first, second = given(capped, "device"), given(capped, "device")
    capped.client.link_identity("device", "ann")
    assert (shown(capped, first), shown(capped, second)) == (ACCEPTED, ACCEPTED)
    assert is_full(capped, "ann")


def test_who_was_erased_under_one_id_is_not_brought_back_by_a_decision_for_another(capped: Shop) -> None:
    before = given(capped, "device")
    capped.client.update_profile("device", set={"seen": True})
    capped.client.link_identity("device", "ann")
    after = given(capped, "device")
    capped.client.delete_profile("ann")
    for decision in (before, after):
        assert shown(capped, decision) is ERASED
        assert capped.client.record_outcomes([Outcome(decision_id=decision, name="click")]) == (ERASED,)
    for subject in ("ann", "device"):
        assert not capped.client.get_profile(subject).exists
        assert capped.client.list_events(subject).events == ()


def test_erasing_empties_the_caps(capped: Shop) -> None:
    for _ in range(2):
        shown(capped, given(capped, "ann"))
    assert is_full(capped, "ann")
    capped.client.delete_profile("ann")
    assert not is_full(capped, "ann")
    assert shown(capped, given(capped, "ann")) is ACCEPTED


def test_a_decision_by_rules_that_are_gone_is_reported_as_it_was(capped: Shop) -> None:
    decision = given(capped, "ann")
    capped.write("decisions: {other: {default: {action: show, params: {n: 0}}}}\n")
    capped.admin.reload()
    assert shown(capped, decision) is ACCEPTED
    bought = Outcome(decision_id=decision, name="buy", rule_id="offer", value=3.0)
    assert capped.client.record_outcomes([bought]) == (ACCEPTED,)
    (exposure,) = capped.client.list_events("ann", types=["arbiter.exposure"]).events
    assert (exposure.properties["point"], exposure.properties["rule"]) == ("home", "offer")
    # What was shown meanwhile counts when the rule comes back.
    capped.write(CAPPED.replace("max: 2", "max: 1"))
    capped.admin.reload()
    assert is_full(capped, "ann")


def test_a_rule_that_came_later_was_not_delivered(capped: Shop) -> None:
    decision = given(capped, "ann")
    capped.write(CAPPED.replace("id: offer", "id: other"))
    capped.admin.reload()
    with pytest.raises(InvalidRequest, match="delivered `offer`"):
        capped.client.record_exposures([Exposure(decision_id=decision, rule_id="other")])


def test_what_happened_first_may_be_told_last(open_shop: OpenShop) -> None:
    shop = open_shop(bounds=Limits(late=None, ahead=None))
    decision = shop.client.decide("ann", "shop.footer").decision_id
    late = datetime.now(UTC) + timedelta(days=400)
    assert shop.client.record_outcomes([Outcome(decision_id=decision, name="renew", at=late)]) == (ACCEPTED,)
    assert shop.client.record_outcomes([Outcome(decision_id=decision, name="click")]) == (ACCEPTED,)
    names = [each.properties["name"] for each in shop.client.list_events("ann").events]
    assert names == ["click", "renew"]
