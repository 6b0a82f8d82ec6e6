"""Explanations: every rule of the decision point once, with what decided, where it stands, and words for people."""

from __future__ import annotations

from typing import Any

from arbiter.decision.explain import explain
from arbiter.expr.view import View
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from arbiter.types import ExplainLevel, Reason, RuleOutcome, Treatment

NOW = 1_780_272_000_000_000
RULES = """
features:
  orders: {count: order}
  days: {since: order, unit: d}
segments:
  adult: profile.age >= 18
  buyer: features.orders > 2
  adult_buyer: segments.adult && segments.buyer
decisions: {d: {slots: 1, order: [priority, value, recency]}}
rules:
  - id: nested
    decision: d
    when: segments.adult_buyer
    then: {action: show}
  - id: lapsed
    decision: d
    when: ["true", features.days > 60.5 && profile.age > 3]
    then: {action: show}
  - id: rendered
    decision: d
    priority: 5
    value: 2
    then: {action: show, params: {fine: "${profile.age}", list: ["x", {text: "Hi ${profile.name}, ${profile.age}"}]}}
  - id: winner
    decision: d
    priority: 4
    value: 1.5
    when: profile.age > 1
    then: {action: show, params: {n: 1}}
  - id: second
    decision: d
    priority: 4
    value: profile.gone
    then: {action: show, params: {n: 2}}
"""


def explained(profile: dict[str, Any], features: dict[str, Any], **more: Any) -> dict[str, RuleOutcome]:
    ruleset, found = load_ruleset({"store/a.yaml": RULES.encode()}, {})
    assert ruleset is not None, [d.render() for d in found]
    snapshot = Snapshot(ruleset, {})
    by_key = {snapshot.symbols.features[name].key: value for name, value in features.items()}
    view = View(profile, {}, by_key, NOW)
    level = more.get("level", ExplainLevel.ALL)
    delivered = more.get("delivered", ())
    outcomes = explain(snapshot.point("d"), view, "s", 0, delivered, lambda: {"profile.age": NOW}, level)
    assert len({o.rule_id for o in outcomes}) == len(outcomes)
    return {o.rule_id: o for o in outcomes}


def test_a_false_segment_says_what_decided_inside_it_however_deep() -> None:
    outcome = explained({"age": 30}, {"orders": 1})["nested"]
    assert (outcome.reason, outcome.expression) == (Reason.FAILED, "segments.adult_buyer")
    assert outcome.values == {"segments.adult_buyer": False}
    assert outcome.detail == "segment adult_buyer: segments.buyer = false; segment buyer: features.orders = 1"


def test_an_unknown_segment_says_what_is_missing_inside_it() -> None:
    outcome = explained({}, {"orders": 5})["nested"]
    assert (outcome.reason, outcome.missing) == (Reason.UNKNOWN, ("profile.age",))
    assert outcome.detail == "segment adult_buyer: profile.age is missing"


def test_the_age_of_an_event_is_told_in_its_unit() -> None:
    outcome = explained({"age": 30}, {"days": NOW - 86_400_000_000 * 30})["lapsed"]
    assert (outcome.expression, outcome.values) == ("features.days > 60.5", {"features.days": 30.0})


def test_a_rule_stands_where_it_was_written() -> None:
    places = {rule_id: o.position for rule_id, o in explained({}, {}).items()}
    lines = RULES.splitlines()
    for rule_id, position in places.items():
        file, line, column = position.split(":")
        assert file == "store/a.yaml"
        assert lines[int(line) - 1][int(column) - 1 :] == rule_id


def test_a_parameter_that_cannot_be_rendered_is_named() -> None:
    outcome = explained({"age": 30}, {})["rendered"]
    assert (outcome.reason, outcome.expression) == (Reason.RENDER_FAILED, "profile.name")
    assert (outcome.missing, outcome.detail) == (("profile.name",), "param `list`: `profile.name` has no value")
    outcome = explained({"age": 30, "name": ["Ann"]}, {})["rendered"]
    assert outcome.detail == "param `list`: list cannot stand inside a text"


def test_winners_and_losers_tell_their_keys() -> None:
    outcomes = explained({"age": 30}, {})
    assert outcomes["winner"].detail == "priority 4, value 1.5, recency 2026-06-01T00:00:00Z"
    second = outcomes["second"]
    assert (second.reason, second.lost_to, second.lost_on) == (Reason.LOST_SLOT, "winner", "value")
    assert second.detail == "priority 4, value unknown, recency unknown"


def test_what_an_earlier_decision_of_the_page_gave_is_a_duplicate_of_no_rule_here() -> None:
    outcome = explained({"age": 30}, {}, delivered=(Treatment("earlier", "show", {"n": 1}),))["winner"]
    assert (outcome.reason, outcome.lost_to, outcome.lost_on) == (Reason.DUPLICATE, "", "")


def test_levels_let_more_and_more_through() -> None:
    seen = [set(explained({"age": 30}, {}, level=level)) for level in ExplainLevel]
    assert seen == [
        set(),
        {"winner"},
        {"winner", "second", "rendered"},
        {"winner", "second", "rendered", "nested", "lapsed"},
    ]
