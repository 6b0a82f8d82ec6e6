"""RecordExposures and RecordOutcomes on a real port: what becomes of decisions is an event of their subjects, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.client import AsyncClient, Exposure, InvalidRequest, Outcome, ReportResult, ResourceExhausted
from arbiter.profiles.store import Limits
from arbiter.types import Event

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

ACCEPTED, DUPLICATE, EXPIRED, ERASED = ReportResult
DAY = 86_400_000_000


@pytest.fixture
def asked(shop: Shop) -> Shop:
    shop.client.delete_profile("ann")
    shop.client.update_profile("ann", set={"country": "CA", "age": 20, "name": "Ann"})
    return shop


def decided(shop: Shop, subject: str = "ann", point: str = "shop.banner") -> str:
    return shop.client.decide(subject, point).decision_id


def told(shop: Shop, subject: str = "ann") -> list[tuple[str, dict[str, Any]]]:
    return [(each.type, each.properties) for each in shop.client.list_events(subject).events]


def refused(call: Any, field: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        call()
    assert [each.field for each in caught.value.violations] == [field]
    return str(caught.value)


def test_an_exposure_is_an_event_for_each_treatment_that_was_delivered(asked: Shop) -> None:
    given = decided(asked)
    number = given.partition(".")[0]
    assert asked.client.record_exposures([Exposure(decision_id=given)]) == (ACCEPTED,)
    shared = {"decision": number, "point": "shop.banner", "group": ""}
    assert sorted(told(asked), key=str) == [
        ("arbiter.exposure", {**shared, "rule": "by-name", "action": "greet"}),
        ("arbiter.exposure", {**shared, "rule": "canadian", "action": "show"}),
    ]
    again = [Exposure(decision_id=given), Exposure(decision_id=given, rule_id="canadian")]
    assert asked.client.record_exposures(again) == (DUPLICATE, DUPLICATE)
    assert len(told(asked)) == 2
    assert asked.client.record_exposures([Exposure(decision_id=given, rule_id="canadian", idempotency_key="2")]) == (
        ACCEPTED,
    )
    assert len(told(asked)) == 3


def test_one_treatment_first_and_then_all_records_the_rest(asked: Shop) -> None:
    given = decided(asked)
    both = [Exposure(decision_id=given, rule_id="canadian"), Exposure(decision_id=given)]
    assert asked.client.record_exposures(both) == (ACCEPTED, ACCEPTED)
    assert len(told(asked)) == 2


def test_an_outcome_comes_late_before_its_exposure_and_once(asked: Shop) -> None:
    given = decided(asked)
    bought = Outcome(decision_id=given, name="purchase", rule_id="by-name", value=31.5)
    whole = Outcome(decision_id=given, name="purchase")
    assert asked.client.record_outcomes([bought, bought, whole]) == (ACCEPTED, DUPLICATE, ACCEPTED)
    assert asked.client.record_outcomes([bought]) == (DUPLICATE,)
    assert asked.client.record_exposures([Exposure(decision_id=given)]) == (ACCEPTED,)
    shared = {"decision": given.partition(".")[0], "point": "shop.banner", "name": "purchase"}
    found = [said for kind, said in told(asked) if kind == "arbiter.outcome"]
    assert sorted(found, key=str) == [{**shared, "rule": ""}, {**shared, "rule": "by-name", "value": 31.5}]
    other = Outcome(decision_id=given, name="purchase", idempotency_key="order-8")
    assert asked.client.record_outcomes([other]) == (ACCEPTED,)


def test_what_happened_before_its_decision_by_another_clock_happened_with_it(asked: Shop) -> None:
    given = decided(asked)
    early = datetime.now(UTC) - timedelta(minutes=5)
    assert asked.client.record_outcomes([Outcome(decision_id=given, name="click", at=early)]) == (ACCEPTED,)
    (event,) = asked.client.list_events("ann").events
    assert event.at == int(given.partition("-")[0], 16)


def test_pages_batches_and_defaults_have_ids_that_can_be_reported(asked: Shop) -> None:
    page = asked.client.decide_page("ann", ["shop.banner", "shop.footer"])
    default = decided(asked, "nobody", "shop.footer")
    reports = [Exposure(decision_id=each.decision_id) for each in page.decisions]
    assert asked.client.record_exposures(reports) == (ACCEPTED, ACCEPTED)
    assert asked.client.record_exposures([Exposure(decision_id=default)]) == (ACCEPTED,)
    (event,) = told(asked, "nobody")
    assert (event[1]["rule"], event[1]["action"]) == ("", "show")
    silent = decided(asked, "ann", "shop.silent")
    assert asked.client.record_exposures([Exposure(decision_id=silent)]) == (DUPLICATE,)


def test_an_id_that_was_made_up_cut_or_altered_is_refused_and_nothing_is_recorded(asked: Shop) -> None:
    given, other = decided(asked), decided(asked, "bob")
    number, said, proof = given.split(".")
    flipped = "A" if proof[0] != "A" else "B"
    wrong = [
        "", "x", given[:-1], given + "A", number, f"{number}.{said}", f"{number}.{said}.", "é" + given,
        f"{number}.{said}.{flipped}{proof[1:]}", f"{number[:-1]}.{said}.{proof}", given.replace(".", ".A", 1),
        f"{number}.{said}.{other.split('.')[2]}", f"{number}.{other.split('.')[1]}.{proof}",
    ]  # fmt: skip
    for text in wrong:
        batch = [Outcome(decision_id=given, name="click"), Outcome(decision_id=text, name="click")]
        message = refused(lambda batch=batch: asked.client.record_outcomes(batch), "outcomes[1].decision_id")
        assert "decision_id" in message
        reports = [Exposure(decision_id=text)]
        refused(lambda reports=reports: asked.client.record_exposures(reports), "exposures[0].decision_id")
    assert told(asked) == []


def test_of_a_decision_with_too_many_treatments_to_name_each_is_reported_by_its_rule(open_shop: OpenShop) -> None:
    shop = open_shop()
    rules = "".join(
        f"  - {{id: {number}-{'x' * 250}, decision: feed, priority: {number // 2}, group: g{number}-{'y' * 200},"
        f" then: {{action: show, params: {{n: {number}}}}}}}\n"
        for number in range(1002)
    )
    shop.write(f"decisions:\n  feed: {{slots: 1000, order: [priority]}}\nrules:\n{rules}")
    shop.admin.reload()
    answer = shop.client.decide("ann", "feed")
    assert len(answer.treatments) == 1000
    given = answer.decision_id
    assert len(given) <= 1024
    assert "by its rule" in refused(
        lambda: shop.client.record_exposures([Exposure(decision_id=given)]), "exposures[0].rule_id"
    )
    shown = [answer.treatments[place].rule_id for place in (0, 500, 999)]
    reports = [Exposure(decision_id=given, rule_id=rule) for rule in shown]
    assert shop.client.record_exposures(reports) == (ACCEPTED,) * 3
    assert shop.client.record_exposures(reports) == (DUPLICATE,) * 3
    assert {(said["rule"], said["action"], said["group"]) for _, said in told(shop)} == {
        (rule, "show", f"g{rule.partition('-')[0]}-{'y' * 200}") for rule in shown
    }
    outcomes = [Outcome(decision_id=given, name="buy"), Outcome(decision_id=given, name="buy", rule_id=shown[1])]
    assert shop.client.record_outcomes(outcomes) == (ACCEPTED, ACCEPTED)
    strangers = [f"stranger-{number}" for number in range(50)]
    caught = 0
    for rule in strangers:
        try:
            shop.client.record_outcomes([Outcome(decision_id=given, name="buy", rule_id=rule)])
        except InvalidRequest as error:
            caught += "1,000 treatments of other rules" in str(error)
    assert caught >= 30
    shop.write("decisions: {feed: {default: {action: show, params: {n: 0}}}}\n")
    shop.admin.reload()
    gone = answer.treatments[1].rule_id
    assert shop.client.record_exposures([Exposure(decision_id=given, rule_id=gone)]) == (ACCEPTED,)
    assert ("arbiter.exposure", {**told(shop)[0][1], "rule": gone, "action": "", "group": ""}) in told(shop)


def test_an_id_of_another_store_is_refused(asked: Shop, open_shop: OpenShop) -> None:
    foreign = decided(open_shop())
    message = refused(
        lambda: asked.client.record_outcomes([Outcome(decision_id=foreign, name="click")]), "outcomes[0].decision_id"
    )
    assert "another store" in message


def test_a_report_says_what_is_wrong_with_it(asked: Shop) -> None:
    given = decided(asked)
    client = asked.client
    rule = refused(
        lambda: client.record_exposures([Exposure(decision_id=given, rule_id="phone")]), "exposures[0].rule_id"
    )
    assert "delivered `by-name`, `canadian`" in rule
    refused(lambda: client.record_outcomes([Outcome(decision_id=given, name="No name")]), "outcomes[0].name")
    endless = Outcome(decision_id=given, name="buy", value=float("inf"))
    refused(lambda: client.record_outcomes([endless]), "outcomes[0].value")


def test_a_report_may_not_come_from_the_future(open_shop: OpenShop) -> None:
    shop = open_shop(bounds=Limits(ahead=DAY))
    ahead = Outcome(decision_id=decided(shop), name="buy", at=datetime.now(UTC) + timedelta(days=2))
    assert "events.ahead_seconds" in refused(lambda: shop.client.record_outcomes([ahead]), "outcomes[0].at")


def test_a_batch_is_bounded(open_shop: OpenShop) -> None:
    shop = open_shop()
    given = decided(shop)
    reports = [Outcome(decision_id=given, name="click")] * 10_001
    with pytest.raises(ResourceExhausted, match="batch_events"):
        shop.client.record_outcomes(reports)


def test_a_dry_run_has_no_id_and_nobody_else_may_send_what_is_reserved(asked: Shop) -> None:
    assert not asked.client.decide("ann", "shop.banner", dry_run=True).decision_id
    now = asked.engine.clock()
    by_type = Event("1", "ann", "arbiter.exposure", now)
    assert "RecordExposures" in refused(lambda: asked.client.ingest_events([by_type]), "events[0].type")
    by_id = Event("arbiter.1", "ann", "click", now)
    refused(lambda: asked.client.ingest_events([by_id]), "events[0].id")


def test_an_erased_subject_stays_erased_and_one_that_comes_back_is_reported_on(asked: Shop) -> None:
    before = decided(asked)
    asked.client.record_exposures([Exposure(decision_id=before)])
    erased = asked.client.delete_profile("ann")
    assert erased.erased["events"] == 2
    late = [Outcome(decision_id=before, name="click")]
    assert asked.client.record_outcomes(late) == (ERASED,)
    assert not asked.client.get_profile("ann").exists
    after = decided(asked)
    assert asked.client.record_outcomes([Outcome(decision_id=after, name="click")]) == (ACCEPTED,)


def test_what_became_of_an_anonymous_decision_is_the_known_subject_s(asked: Shop) -> None:
    given = decided(asked, "device-7")
    assert asked.client.record_exposures([Exposure(decision_id=given)]) == (ACCEPTED,)
    asked.client.link_identity("device-7", "ann")
    assert asked.client.record_exposures([Exposure(decision_id=given)]) == (DUPLICATE,)
    assert asked.client.record_outcomes([Outcome(decision_id=given, name="purchase")]) == (ACCEPTED,)
    assert sorted(kind for kind, _ in told(asked)) == ["arbiter.exposure", "arbiter.outcome"]
    held = [fields for holding, fields in asked.client.export_profile("ann").entries if holding == "events"]
    assert len(held) == 2


def test_a_report_on_an_old_decision_is_too_late_and_one_that_was_there_is_a_duplicate(open_shop: OpenShop) -> None:
    shop = open_shop(bounds=Limits(late=7 * DAY, ahead=DAY))
    given, other = decided(shop), decided(shop)
    there = [Outcome(decision_id=given, name="click")]
    assert shop.client.record_outcomes(there) == (ACCEPTED,)
    shop.store.use_clock(lambda: shop.engine.clock() + 8 * DAY)
    assert shop.client.record_outcomes([*there, Outcome(decision_id=other, name="click")]) == (DUPLICATE, EXPIRED)
    assert len(told(shop)) == 1


def test_both_faces_of_the_client_report(asked: Shop) -> None:
    given = decided(asked)

    async def report() -> tuple[ReportResult, ...]:
        async with AsyncClient(f"127.0.0.1:{asked.server.port}") as client:
            return (
                *await client.record_exposures([Exposure(decision_id=given, rule_id="by-name")]),
                *await client.record_outcomes([Outcome(decision_id=given, name="click")]),
            )

    assert asyncio.run(report()) == (ACCEPTED, ACCEPTED)
    assert asked.client.record_outcomes([Outcome(decision_id=given, name="click")]) == (DUPLICATE,)
