"""Arbitration against a brute force: sort all eligible rules by the declared order, then fill slots one by one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.decision.explain import explain
from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, ExplainLevel, Reason, Treatment

KEYS = ["priority", "value", "recency", "specificity"]
CLOCK = 1_780_272_000_000_000


class Drawn(msgspec.Struct, frozen=True):
    """One rule: what it is, and how it stands with the one subject of the test."""

    id: str
    priority: int
    matches: bool | None
    conjuncts: int
    value: float | None
    changed: int | None
    group: str
    param: int
    renders: bool
    enabled: bool


drawn = st.builds(
    Drawn,
    id=st.integers(0, 999).map("r{:03}".format),
    priority=st.integers(0, 2),
    matches=st.sampled_from([True, True, True, False, None]),
    conjuncts=st.integers(1, 3),
    value=st.sampled_from([None, 0.0, 1.0, 1.5, -2.0]),
    changed=st.sampled_from([None, 1, 2, 3]),
    group=st.sampled_from(["", "", "g", "h"]),
    param=st.integers(0, 6),
    renders=st.sampled_from([True, True, True, False]),
    enabled=st.sampled_from([True, True, True, True, False]),
)
rule_lists = st.lists(drawn, max_size=9, unique_by=lambda r: r.id)
orders = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)


def authored(rule: Drawn) -> dict[str, Any]:
    conditions = [f"profile.m_{rule.id} == 1", *["profile.always == 1"] * (rule.conjuncts - 1)]
    params: dict[str, Any] = {"n": rule.param} if rule.renders else {"n": "${profile.never}"}
    return {
        "id": rule.id, "decision": "d", "priority": rule.priority, "when": conditions, "enabled": rule.enabled,
        "value": f"profile.v_{rule.id}", "then": {"action": "show", "params": params},
    } | ({"group": rule.group} if rule.group else {})  # fmt: skip


def load(rules: list[Drawn], order: list[str], slots: int, files: int = 1) -> Snapshot:
    """The snapshot of these rules, dealt out to some files."""
    texts: list[dict[str, Any]] = [{"rules": [authored(r) for r in rules[n::files]]} for n in range(files)]
    texts[0]["decisions"] = {"d": {"slots": slots, "order": order}}
    # JSON is YAML.
    ruleset, found = load_ruleset({f"{n}.yaml": json.dumps(t).encode() for n, t in enumerate(texts)}, {})
    assert ruleset is not None, [d.render() for d in found]
    return Snapshot(ruleset, {})


def subject(rules: list[Drawn]) -> tuple[View, dict[str, int]]:
    profile: dict[str, Any] = {"always": 1}
    changes = {}
    for rule in rules:
        if rule.matches is not None:
            profile[f"m_{rule.id}"] = int(rule.matches)
        if rule.value is not None:
            profile[f"v_{rule.id}"] = rule.value
        if rule.changed is not None:
            changes[f"profile.m_{rule.id}"] = rule.changed
    return View(profile, {}, {}, CLOCK), changes


def decide(snapshot: Snapshot, rules: list[Drawn], delivered: tuple[Treatment, ...] = ()) -> Decision:
    view, changes = subject(rules)
    decision = Walk(snapshot.point("d"), view, "someone", 0, delivered, None, lambda: changes).advance()
    assert isinstance(decision, Decision)
    return decision


def sort_key(rule: Drawn, order: list[str]) -> list[Any]:
    infinite = float("inf")
    keys: dict[str, Any] = {
        "priority": -rule.priority,
        "value": infinite if rule.value is None else -rule.value,
        "recency": infinite if rule.changed is None else -rule.changed,
        "specificity": -rule.conjuncts,
    }
    return [*(keys[name] for name in order), rule.id]


def brute_force(rules: list[Drawn], order: list[str], slots: int, delivered: set[int]) -> dict[str, Reason]:
    """What becomes of each rule, the slow and obvious way; winners first, in their order."""
    outcomes: dict[str, Reason] = {}
    given_params, groups, winners = set(delivered), set(), 0
    for rule in sorted((r for r in rules if r.enabled and r.matches), key=lambda r: sort_key(r, order)):
        if winners == slots:
            outcomes[rule.id] = Reason.LOST_SLOT
        elif rule.group and rule.group in groups:
            outcomes[rule.id] = Reason.LOST_GROUP
        elif not rule.renders:
            outcomes[rule.id] = Reason.RENDER_FAILED
        elif rule.param in given_params:
            outcomes[rule.id] = Reason.DUPLICATE
        else:
            outcomes[rule.id] = Reason.WON
            given_params.add(rule.param)
            groups.add(rule.group)
            winners += 1
    for rule in rules:
        if not rule.enabled:
            outcomes[rule.id] = Reason.DISABLED
        elif not rule.matches:
            outcomes[rule.id] = Reason.UNKNOWN if rule.matches is None else Reason.FAILED
    return outcomes


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders, st.integers(1, 4), st.sets(st.integers(0, 6), max_size=1))
def test_the_walk_and_the_explanation_equal_the_brute_force(
    rules: list[Drawn], order: list[str], slots: int, before: set[int]
) -> None:
    snapshot = load(rules, order, slots)
    delivered = tuple(Treatment("earlier", "show", {"n": n}) for n in before)
    expected = brute_force(rules, order, slots, before)
    decision = decide(snapshot, rules, delivered)
    winners = [rule_id for rule_id, reason in expected.items() if reason is Reason.WON]
    assert [t.rule_id for t in decision.treatments] == winners
    assert decision.defaulted is not bool(winners)
    view, changes = subject(rules)
    explained = explain(snapshot.point("d"), view, "someone", 0, delivered, lambda: changes, ExplainLevel.ALL)
    assert {o.rule_id: o.reason for o in explained} == expected
    assert len(explained) == len(rules)
    assert [o.rule_id for o in explained if o.reason is Reason.WON] == winners
    if "value" in order:
        values = {r.id: r.value for r in rules}
        assert all(t.value == values[t.rule_id] for t in decision.treatments)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders, st.integers(1, 3), st.randoms(use_true_random=False), st.integers(1, 3))
def test_neither_files_nor_the_order_in_them_matter(
    rules: list[Drawn], order: list[str], slots: int, random: Any, files: int
) -> None:
    shuffled = list(rules)
    random.shuffle(shuffled)
    one, other = load(rules, order, slots), load(shuffled, order, slots, files)
    assert decide(one, rules) == decide(other, rules)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists.filter(bool), orders, st.integers(1, 3))
def test_a_rule_that_loses_changes_no_winner(rules: list[Drawn], order: list[str], slots: int) -> None:
    more = decide(load(rules, order, slots), rules)
    newcomer, rest = rules[-1], rules[:-1]
    if newcomer.id not in {t.rule_id for t in more.treatments}:
        assert decide(load(rest, order, slots), rest).treatments == more.treatments


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders, st.integers(1, 4))
def test_winners_respect_slots_groups_and_one_another(rules: list[Drawn], order: list[str], slots: int) -> None:
    by_id = {r.id: r for r in rules}
    winners = [by_id[t.rule_id] for t in decide(load(rules, order, slots), rules).treatments]
    assert len(winners) <= slots
    groups = [r.group for r in winners if r.group]
    assert len(groups) == len(set(groups))
    assert len({r.param for r in winners}) == len(winners)
    keys = [sort_key(r, order) for r in winners]
    assert keys == sorted(keys)


def test_each_loser_knows_its_winner_and_the_key() -> None:
    base = Drawn("r0", 1, True, 1, 1.0, 1, "", 0, True, True)
    order = ["priority", "value", "recency", "specificity"]
    better: dict[str, dict[str, Any]] = {
        "priority": {"priority": 2},
        "value": {"value": 1.5},
        "recency": {"changed": 2},
        "specificity": {"conjuncts": 2},
        "rule_id": {},
    }
    for key, change in better.items():
        winner = msgspec.structs.replace(base, id="a", param=1, **change)
        loser = msgspec.structs.replace(base, id="b")
        snapshot = load([loser, winner], order, 1)
        view, changes = subject([loser, winner])
        explained = explain(snapshot.point("d"), view, "x", 0, (), changes.copy, ExplainLevel.ALL)
        assert [(o.rule_id, o.reason, o.lost_to, o.lost_on) for o in explained] == [
            ("a", Reason.WON, "", ""),
            ("b", Reason.LOST_SLOT, "a", key),
        ]


def test_the_clock_changes_an_answer_only_at_its_valid_until() -> None:
    text = b"""
decisions: {d: {}}
rules:
  - {id: a, decision: d, priority: 2, active: {from: 2026-06-02T00:00:00Z, until: 2026-06-03T00:00:00Z},
     then: {action: show, params: {n: 1}}}
  - {id: b, decision: d, priority: 1, active: {until: 2026-06-04T00:00:00Z}, then: {action: show, params: {n: 2}}}
"""
    ruleset, _ = load_ruleset({"a.yaml": text}, {})
    assert ruleset is not None
    point = Snapshot(ruleset, {}).point("d")
    clock, seen = CLOCK, []
    while True:
        decision = Walk(point, View({}, {}, {}, clock), "x").advance()
        assert isinstance(decision, Decision)
        seen.append([t.rule_id for t in decision.treatments])
        if decision.valid_until is None:
            break
        just_before = Walk(point, View({}, {}, {}, decision.valid_until - 1), "x").advance()
        assert isinstance(just_before, Decision)
        assert just_before.treatments == decision.treatments
        clock = decision.valid_until
    assert seen == [["b"], ["a"], ["b"], []]
