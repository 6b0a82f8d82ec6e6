"""Decide and DecideBatch on a real port."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from arbiter.client import Answer, Ask, InvalidRequest, Page, UnknownName
from arbiter.types import ExplainLevel, Reason
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop


def test_a_decision_gives_treatments_with_typed_parameters_best_first(shop: Shop) -> None:
    shop.client.update_profile("ann", set={"age": 30, "name": "Ann", "country": "CA"})
    answer = shop.client.decide("ann", "shop.banner")
    assert [(t.rule_id, t.action, t.params, t.priority, t.reason) for t in answer.treatments] == [
        ("by-name", "greet", {"text": "Hello Ann", "age": 30}, 90, Reason.WON),
        ("canadian", "show", {"banner": "maple", "tags": ["a", "b"], "size": {"w": 3, "h": 1.5}}, 80, Reason.WON),
    ]
    assert shop.engine.snapshot is not None
    assert (answer.snapshot, answer.decision, answer.defaulted) == (shop.engine.snapshot.digest, "shop.banner", False)
    assert answer.degraded == ()


def test_the_same_question_twice_differs_in_its_id_alone(shop: Shop) -> None:
    shop.client.update_profile("twin", set={"age": 30, "name": "Twin", "country": "CA"})
    first, second = (shop.client.decide("twin", "shop.banner") for _ in range(2))
    assert first.decision_id != second.decision_id
    assert first.decision_id.isascii()
    assert first.treatments == second.treatments


def test_an_unknown_subject_gets_the_default(shop: Shop) -> None:
    answer = shop.client.decide("nobody", "shop.banner")
    assert answer.defaulted
    assert [(t.rule_id, t.params, t.reason) for t in answer.treatments] == [
        ("", {"banner": "bestsellers"}, Reason.DEFAULT)
    ]


def test_a_point_without_default_may_give_nothing(shop: Shop) -> None:
    answer = shop.client.decide("nobody", "shop.silent")
    assert (answer.treatments, answer.defaulted) == ((), True)


def test_context_and_context_json_mean_the_same(shop: Shop) -> None:
    by_map = shop.client.decide("nobody", "shop.banner", context={"device": "ios"})
    by_json = shop.client.decide("nobody", "shop.banner", context_json=b'{"device": "ios", "absent": null}')
    assert [t.rule_id for t in by_map.treatments] == ["phone"]
    assert by_map.treatments == by_json.treatments


def test_a_request_may_ask_for_fewer_slots(shop: Shop) -> None:
    shop.client.update_profile("fewer", set={"age": 30, "name": "F", "country": "CA"})
    assert len(shop.client.decide("fewer", "shop.banner").treatments) == 2
    assert len(shop.client.decide("fewer", "shop.banner", slots=1).treatments) == 1


def test_a_page_is_one_answer_per_point_with_no_treatment_twice(shop: Shop) -> None:
    shop.client.update_profile("page", set={"country": "CA"})
    page = shop.client.decide_page("page", ["shop.banner", "shop.footer"], request_id="r-1")
    assert [answer.decision for answer in page.decisions] == ["shop.banner", "shop.footer"]
    assert [[t.rule_id for t in answer.treatments] for answer in page.decisions] == [["canadian"], [""]]
    assert page.decisions[0].decision_id != page.decisions[1].decision_id
    assert page.request_id == "r-1"
    assert page.snapshot == shop.client.snapshot().workers[0]


def test_a_dry_run_has_no_id_and_may_bring_its_own_clock(shop: Shop) -> None:
    shop.client.update_profile("dry", set={"country": "CA"})
    spring = datetime(2030, 4, 1, tzinfo=UTC)
    page = shop.client.decide_page("dry", ["shop.banner", "shop.footer"], dry_run=True, at=spring)
    assert [t.rule_id for t in page.decisions[1].treatments] == ["footer-spring"]
    assert page.decisions[1].valid_until == datetime(2030, 6, 1, tzinfo=UTC)
    assert [answer.decision_id for answer in page.decisions] == ["", ""]


def test_an_explanation_says_what_became_of_every_rule(shop: Shop) -> None:
    shop.client.update_profile("why", set={"age": 10, "country": "CA"})
    answer = shop.client.decide("why", "shop.banner", explain=ExplainLevel.ALL)
    found = {outcome.rule_id: outcome for outcome in answer.explanation}
    assert {rule: outcome.reason for rule, outcome in found.items()} == {
        "canadian": Reason.WON,
        "by-name": Reason.FAILED,
        "phone": Reason.UNKNOWN,
        "never": Reason.DISABLED,
    }
    assert (found["by-name"].expression, found["by-name"].values) == ("profile.age >= 18", {"profile.age": 10})
    assert found["phone"].missing == ("context.device",)
    assert "by-name is false: profile.age >= 18 where profile.age = 10" in answer.explanation_text


def test_an_explanation_can_be_narrowed(shop: Shop) -> None:
    shop.client.update_profile("narrow", set={"country": "CA"})
    winners = shop.client.decide("narrow", "shop.banner", explain=ExplainLevel.WINNERS)
    assert [outcome.rule_id for outcome in winners.explanation] == ["canadian"]
    one = shop.client.decide("narrow", "shop.banner", explain=ExplainLevel.ALL, explain_rules=["phone"])
    assert [outcome.rule_id for outcome in one.explanation] == ["phone"]


def test_explain_without_a_level_means_every_rule(shop: Shop) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    asked = decision_pb2.DecideRequest(subject_id="x", decision="shop.banner", explain=decision_pb2.ExplainOptions())
    response = stub.Decide(asked)
    assert [rule.rule_id for rule in response.explanation.rules] == ["by-name", "canadian", "phone", "never"]
    assert [rule.priority for rule in response.explanation.rules] == [90, 80, 70, 60]


def test_a_batch_answers_in_order_and_a_bad_request_fails_alone(shop: Shop) -> None:
    shop.client.update_profile("batch", set={"country": "CA"})
    batch = shop.client.decide_batch(
        [
            Ask(subject_id="batch", decision="shop.banner", request_id="a"),
            Ask(subject_id="", decision="shop.banner"),
            Ask(subject_id="batch", decision="shop.bannr"),
            Ask(subject_id="batch", decisions=("shop.footer", "shop.banner")),
            Ask(subject_id="batch", decision="shop.banner", explain=ExplainLevel.ALL, explain_rules=("nope",)),
            Ask(subject_id="nobody", decision="shop.footer", request_id="z"),
        ]
    )
    first, empty, unknown, page, rule, last = batch.results
    assert isinstance(first, Answer)
    assert ([t.rule_id for t in first.treatments], first.request_id) == (["canadian"], "a")
    assert isinstance(empty, InvalidRequest)
    assert empty.field == "requests[1].subject_id"
    assert isinstance(unknown, UnknownName)
    assert unknown.field == "requests[2].decision"
    assert "did you mean `shop.banner`?" in unknown.message
    assert isinstance(page, Page)
    assert [[t.rule_id for t in a.treatments] for a in page.decisions] == [["footer-canadian"], [""]]
    assert isinstance(rule, InvalidRequest)
    assert rule.field == "requests[4].explain.rules[0]"
    assert isinstance(last, Answer)
    assert (last.defaulted, last.request_id) == (True, "z")
    assert {a.snapshot for a in (first, page, last)} == {batch.snapshot}


def test_an_empty_batch_is_answered(shop: Shop) -> None:
    batch = shop.client.decide_batch([])
    assert (batch.results, batch.snapshot) == ((), shop.client.snapshot().workers[0])


def test_batches_side_by_side_keep_to_themselves(shop: Shop) -> None:
    for number in range(8):
        shop.client.update_profile(f"side-{number}", set={"age": 20 + number, "name": f"S{number}"})

    def ask(number: int) -> list[object]:
        batch = shop.client.decide_batch([Ask(subject_id=f"side-{number}", decision="shop.banner")] * 50)
        return [[t.params for t in result.treatments] for result in batch.results if isinstance(result, Answer)]

    with ThreadPoolExecutor(8) as pool:
        for number, texts in enumerate(pool.map(ask, range(8))):
            assert texts == [[{"text": f"Hello S{number}", "age": 20 + number}]] * 50


def test_no_batch_is_mixed_while_rules_change(open_shop: OpenShop) -> None:
    shop = open_shop()
    rules = (shop.rules / "shop.yaml").read_text("utf-8")
    digests = set()
    with ThreadPoolExecutor(4) as pool:
        for turn in range(4):
            asked = [Ask(subject_id="nobody", decision=name) for name in ("shop.banner", "shop.footer")] * 50
            batches = [pool.submit(shop.client.decide_batch, asked) for _ in range(8)]
            # Both defaults change together: an answer with one old and one new was mixed.
            word = f"turn{turn}"
            shop.write(
                rules.replace("banner: bestsellers", f"banner: {word}").replace(
                    "banner: plain", f"banner: {word}-footer"
                )
            )
            assert shop.client.reload().last_reload is not None
            for batch in (each.result() for each in batches):
                digests.add(batch.snapshot)
                seen = {a.treatments[0].params["banner"] for a in batch.results if isinstance(a, Answer)}
                assert len(seen) == 2
                assert seen == {"bestsellers", "plain"} or len({name.partition("-")[0] for name in seen}) == 1
    assert len(digests) >= 2


def test_a_decision_after_an_answered_write_sees_it(shop: Shop) -> None:
    for age in range(18, 48):
        shop.client.update_profile("fresh", set={"age": age, "name": "F"})
        assert shop.client.decide("fresh", "shop.banner").treatments[0].params["age"] == age


def test_decisions_are_counted_by_point(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.client.decide("a", "shop.banner")
    shop.client.decide_page("a", ["shop.banner", "shop.footer"])
    assert dict(shop.counters.decisions) == {"shop.banner": 2, "shop.footer": 1}
    assert dict(shop.counters.defaulted) == {"shop.banner": 2, "shop.footer": 1}


def test_an_explanation_writes_values_as_people_do_and_says_once_what_is_missing(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.write(
        """
decisions: {d: {}}
rules:
  - {id: early, decision: d, when: 'profile.seen > now', then: {action: show}}
  - {id: vip, decision: d, when: profile.vip == true, then: {action: show}}
  - {id: hello, decision: d, then: {action: show, params: {text: "Hi ${profile.name}"}}}
"""
    )
    shop.admin.reload()
    shop.client.update_profile("ann", set={"vip": False, "seen": datetime(2026, 1, 1, tzinfo=UTC)})
    at = datetime(2026, 2, 1, tzinfo=UTC)
    answer = shop.client.decide("ann", "d", explain=ExplainLevel.ALL, dry_run=True, at=at)
    assert sorted(answer.explanation_text.splitlines()) == [
        "early is false: profile.seen > now where profile.seen = 2026-01-01T00:00:00Z, now = 2026-02-01T00:00:00Z",
        "hello could not be rendered: param `text`: `profile.name` has no value",
        "vip is false: profile.vip == true where profile.vip = false",
    ]
