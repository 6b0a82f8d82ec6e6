"""Bandits on a real port: reports teach them once, and operators see, reset and set back what they learned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.client import Exposure, InvalidRequest, Outcome, UnknownName
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.client import Answer
    from tests.server.conftest import OpenShop, Shop

RULES = """
decisions: {home: , side: {slots: 2}}
metrics: {bought: {outcome: purchase, within: 1h}}
groups: {offers: {choose: thompson, metric: bought, half_life: 14d, floor: 0.1}}
rules:
  - {id: a, decision: home, priority: 2, group: offers, then: {action: show, params: {x: a}}}
  - {id: b, decision: home, priority: 1, group: offers, then: {action: show, params: {x: b}}}
  - {id: s, decision: side, priority: 1, group: offers, then: {action: show, params: {x: s}}}
  - {id: plain, decision: side, then: {action: show, params: {x: p}}}
"""


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    opened = open_shop(load=False)
    opened.write(RULES)
    opened.admin.reload()
    return opened


def decide(shop: Shop, subject: str, point: str = "home") -> Answer:
    return shop.client.decide(subject, point)


def known(shop: Shop) -> dict[tuple[str, str], tuple[int, int]]:
    arms = shop.client.bandits("offers")
    return {(arm.decision, arm.rule_id): (round(arm.wins), round(arm.losses)) for arm in arms}


def shown(shop: Shop, answers: Sequence[Answer]) -> None:
    shop.client.record_exposures([Exposure(decision_id=each.decision_id) for each in answers])


def test_exposures_and_outcomes_teach_once_in_any_order(shop: Shop) -> None:
    answers = [decide(shop, f"s{number}") for number in range(40)]
    drawn = [answer.treatments[0].rule_id for answer in answers]
    bought = [Outcome(decision_id=each.decision_id, name="purchase") for each in answers[::4]]
    shop.client.record_outcomes(bought[:5])
    for _ in range(2):
        shown(shop, answers)
        shop.client.record_outcomes(bought)
    again = [Outcome(decision_id=each.decision_id, name="purchase", idempotency_key="2") for each in answers[::4]]
    shop.client.record_outcomes(again)
    shop.client.record_exposures([Exposure(decision_id=answers[0].decision_id, idempotency_key="2")])
    wins = {rule: drawn[::4].count(rule) for rule in "ab"}
    assert known(shop) == {
        **{("home", rule): (wins[rule], drawn.count(rule) - wins[rule]) for rule in "ab"}, ("side", "s"): (0, 0)
    }  # fmt: skip


def test_only_what_the_metric_counts_is_a_win_and_only_for_the_group(shop: Shop) -> None:
    answer = decide(shop, "ann", "side")
    assert [each.rule_id for each in answer.treatments] == ["s", "plain"]
    later = datetime.now(UTC) + timedelta(hours=1, seconds=5)
    for wrong in (
        Outcome(decision_id=answer.decision_id, name="click"),
        Outcome(decision_id=answer.decision_id, name="purchase", rule_id="plain"),
        Outcome(decision_id=answer.decision_id, name="purchase", at=later, idempotency_key="late"),
    ):
        shop.client.record_outcomes([wrong])
    shown(shop, [answer])
    assert known(shop)["side", "s"] == (0, 1)
    shop.client.record_outcomes([Outcome(decision_id=answer.decision_id, name="purchase", rule_id="s")])
    assert known(shop)["side", "s"] == (1, 0)
    dry = shop.client.decide("ann", "home", dry_run=True)
    assert dry.decision_id == ""


def test_an_explanation_says_what_was_drawn_and_how_probably(shop: Shop) -> None:
    answer = shop.client.decide("ann", "home", explain=ExplainLevel.ALL)
    won, lost = sorted(answer.explanation, key=lambda each: each.lost_on)
    assert won.rule_id == answer.treatments[0].rule_id
    assert "drawn of 2 rules of group `offers`, with probability 0.5" in won.detail
    assert (lost.lost_to, lost.lost_on) == (won.rule_id, "lot")
    assert answer.valid_until is None


def test_operators_reset_a_group_and_set_it_back(shop: Shop) -> None:
    shown(shop, [decide(shop, f"s{number}") for number in range(10)])
    before, at = known(shop), datetime.now(UTC)
    assert shop.client.reset_bandit("offers", decision="home", reason="new texts") == len(before) - 1
    assert set(known(shop).values()) == {(0, 0)}
    assert shop.client.rollback_bandit("offers", at) == len(before) - 1
    assert known(shop) == before
    assert [arm.written for arm in shop.client.bandits("offers", decision="side")] == [None]
    assert shop.client.bandits("others") == ()


def test_requests_that_mean_nothing_are_refused(shop: Shop) -> None:
    def refused(call: Any, field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert [each.field for each in caught.value.violations] == [field]

    refused(lambda: shop.client.reset_bandit(""), "group")
    refused(lambda: shop.client.rollback_bandit("", datetime.now(UTC)), "group")
    refused(lambda: shop.client.rollback_bandit("offers", datetime.now(UTC) + timedelta(days=1)), "to")
    with pytest.raises(UnknownName, match="`offers` has learned nothing"):
        shop.client.reset_bandit("offers")


def test_rules_that_are_gone_are_shown_as_long_as_something_is_known_of_them(shop: Shop) -> None:
    shown(shop, [decide(shop, f"s{number}") for number in range(20)])
    shop.write(RULES.replace("id: b,", "id: c,"))
    shop.admin.reload()
    arms = {arm.rule_id: arm for arm in shop.client.bandits(decision="home")}
    assert arms.keys() == {"a", "b", "c"}
    assert arms["b"].probability == 0
    assert arms["b"].losses > 0
    assert arms["a"].probability + arms["c"].probability == pytest.approx(1)
