"""Managed segments where decisions are made, explained and tested: in or not in, and never unknown."""

from __future__ import annotations

import pytest

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr.view import View
from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests.check import failed_tests
from arbiter.snapshot import Snapshot
from arbiter.types import ExplainLevel, Reason

RULES = """
segments: {vip: managed, guest: "!segments.vip"}
decisions: {home: {slots: 3}}
rules:
  - {id: a-vip, decision: home, when: segments.vip, then: {action: show}}
  - {id: b-guest, decision: home, when: segments.guest && profile.age > 17, then: {action: hide}}
  - {id: c-same, decision: home, when: segments.vip == segments.guest, then: {action: never}}
"""
TESTS = """
defaults: {decision: home, now: 2026-06-01T12:00:00Z, profile: {age: 20}}
tests:
  - {name: nobody is in it, expect: {treatments: [b-guest], reasons: {a-vip: FAILED, c-same: FAILED}}}
  - {name: somebody is, segments: {vip: true}, expect: {treatments: [a-vip], reasons: {b-guest: FAILED}}}
  - {name: said to be out, segments: {vip: false}, expect: {treatments: [b-guest]}}
  - {name: the other is said, segments: {guest: true, vip: true}, expect: {treatments: [a-vip, b-guest, c-same]}}
"""


def snapshot() -> Snapshot:
    ruleset, found = load_ruleset({"a.yaml": RULES.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    assert ruleset.managed == ("vip",)
    return Snapshot(ruleset, {})


@pytest.mark.parametrize(("managed", "won"), [((), ["b-guest"]), (("vip",), ["a-vip"]), (("other",), ["b-guest"])])
def test_a_decision_knows_who_is_in_it(managed: tuple[str, ...], won: list[str]) -> None:
    view = View({"age": 20}, {}, {}, 0)
    view.managed = dict.fromkeys(managed, True)
    decision = Walk(snapshot().point("home"), view, "someone").advance()
    assert not isinstance(decision, Need)
    assert [treatment.rule_id for treatment in decision.treatments] == won


def test_an_explanation_says_so() -> None:
    view = View({"age": 20}, {}, {}, 0)
    point = snapshot().point("home")
    outcomes = {each.rule_id: each for each in explain(point, view, "someone", 0, (), dict, ExplainLevel.ALL)}
    assert outcomes["a-vip"].reason is Reason.FAILED
    assert outcomes["a-vip"].values == {"segments.vip": False}
    assert outcomes["a-vip"].detail == "segment vip: the subject is not in it"
    view.managed = {"vip": True}
    outcomes = {each.rule_id: each for each in explain(point, view, "someone", 0, (), dict, ExplainLevel.ALL)}
    assert outcomes["b-guest"].detail == ("segment guest: segments.vip = true; segment vip: the subject is in it")


def test_tests_of_rules_say_who_is_in_it() -> None:
    found = failed_tests({"a.test.yaml": TESTS.encode()}, snapshot())
    assert not found, [each.render() for each in found]
