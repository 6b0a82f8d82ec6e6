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
MATCHED = {Reason.WON, Reason.LOST_GROUP, Reason.LOST_SLOT, Reason.DUPLICATE, Reason.RENDER_FAILED}


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
    table: str = ""


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
    table=st.sampled_from(["", "", "", "t", "u"]),
)
# The rows of one table share its group: that of `u` is shared with other rules.
GROUPS_OF_TABLES = {"t": "t", "u": "g"}
rule_lists = st.lists(drawn, max_size=9, unique_by=lambda r: r.id)
orders = st.lists(st.sampled_from(KEYS), max_size=4, unique=True)


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
    tables = {r.id: r.table for r in rules if r.table}
    as_rows = [
        msgspec.structs.replace(rule, table=table, row=row_of(rule.id), group=GROUPS_OF_TABLES[table])
        if (table := tables.get(rule.id))
        else rule
        for rule in ruleset.rules
    ]
    return Snapshot(msgspec.structs.replace(ruleset, rules=tuple(as_rows)), {})


def row_of(rule_id: str) -> int:
    """The number of a rule in its table: not in the order of the ids."""
    return int(rule_id[1:]) * 7919 % 1009 + 1


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
    return [*(keys[name] for name in order), rule.table or rule.id, row_of(rule.id) if rule.table else 0]


def group_of(rule: Drawn) -> str:
    return GROUPS_OF_TABLES.get(rule.table, rule.group)


def competing(rules: list[Drawn], order: list[str]) -> list[Drawn]:
    """The rules that are compared: of a table's rows that are equal up to the first dynamic key only the first is."""
    eligible = [r for r in rules if r.enabled and r.matches]
    dynamic = next((n for n, key in enumerate(order) if key in {"value", "recency"}), None)
    if dynamic is None:
        return eligible
    first: dict[Any, Drawn] = {}
    for rule in sorted(eligible, key=lambda r: row_of(r.id)):
        place = (rule.table, *sort_key(rule, order[:dynamic])[:dynamic]) if rule.table else rule.id
        first.setdefault(place, rule)
    return list(first.values())


def brute_force(rules: list[Drawn], order: list[str], slots: int, delivered: set[int]) -> dict[str, Reason]:
    """What becomes of each rule, the slow and obvious way; winners first, in their order."""
    outcomes: dict[str, Reason] = {}
    given_params, groups, winners = set(delivered), set(), 0
    for rule in sorted(competing(rules, order), key=lambda r: sort_key(r, order)):
        if winners == slots:
            outcomes[rule.id] = Reason.LOST_SLOT
        elif group_of(rule) and group_of(rule) in groups:
            outcomes[rule.id] = Reason.LOST_GROUP
        elif not rule.renders:
            outcomes[rule.id] = Reason.RENDER_FAILED
        elif rule.param in given_params:
            outcomes[rule.id] = Reason.DUPLICATE
        else:
            outcomes[rule.id] = Reason.WON
            given_params.add(rule.param)
            groups.add(group_of(rule))
            winners += 1
    for rule in rules:
        if not rule.enabled:
            outcomes[rule.id] = Reason.DISABLED
        elif not rule.matches:
            outcomes[rule.id] = Reason.UNKNOWN if rule.matches is None else Reason.FAILED
        else:
            outcomes.setdefault(rule.id, Reason.LOST_GROUP)  # a row behind the first
    return outcomes


@settings(max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))
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
    losers = explain(snapshot.point("d"), view, "someone", 0, delivered, lambda: changes, ExplainLevel.LOSERS)
    assert losers == tuple(o for o in explained if o.reason in MATCHED)
    two = tuple(r.id for r in rules[:2])
    of_two = explain(snapshot.point("d"), view, "someone", 0, delivered, lambda: changes, ExplainLevel.ALL, two)
    assert of_two == tuple(o for o in explained if not two or o.rule_id in two)
    if "value" in order:
        values = {r.id: r.value for r in rules}
        assert all(t.value == values[t.rule_id] for t in decision.treatments)


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders, st.integers(1, 3), st.randoms(use_true_random=False), st.integers(1, 3))
def test_neither_files_nor_the_order_in_them_matter(
    rules: list[Drawn], order: list[str], slots: int, random: Any, files: int
) -> None:
    shuffled = list(rules)
    random.shuffle(shuffled)
    one, other = load(rules, order, slots), load(shuffled, order, slots, files)
    assert decide(one, rules) == decide(other, rules)


@settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists.filter(bool), orders, st.integers(1, 3))
def test_a_rule_that_loses_changes_no_winner(rules: list[Drawn], order: list[str], slots: int) -> None:
    """Each rule in turn is the one that was added: a plain rule anywhere, a row at the end of its table."""
    all_in = decide(load(rules, order, slots), rules).treatments
    won = {t.rule_id for t in all_in}
    for added in rules:
        behind = [r for r in rules if r.table and r.table == added.table and row_of(r.id) > row_of(added.id)]
        if added.id not in won and not behind:
            rest = [r for r in rules if r is not added]
            assert decide(load(rest, order, slots), rest).treatments == all_in


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists.filter(bool), orders, st.integers(1, 3))
def test_a_table_of_which_no_row_wins_changes_no_winner(rules: list[Drawn], order: list[str], slots: int) -> None:
    all_in = decide(load(rules, order, slots), rules).treatments
    won = {r.table for r in rules if r.id in {t.rule_id for t in all_in}}
    for table in {r.table for r in rules} - won - {""}:
        rest = [r for r in rules if r.table != table]
        assert decide(load(rest, order, slots), rest).treatments == all_in


free = st.lists(drawn, min_size=2, max_size=5, unique_by=lambda r: r.id).map(
    lambda rules: [
        msgspec.structs.replace(r, matches=True, renders=True, enabled=True, group="", param=n, table="")
        for n, r in enumerate(rules)
    ]
)


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(free, orders)
def test_the_order_of_rules_is_total(rules: list[Drawn], order: list[str]) -> None:
    """Of any two rules one beats the other, whoever else is there, and who beats whom never runs in a circle."""
    ranked = [t.rule_id for t in decide(load(rules, order, len(rules)), rules).treatments]
    assert sorted(ranked) == sorted(r.id for r in rules)
    by_id = {r.id: r for r in rules}
    for place, better in enumerate(ranked):
        for worse in ranked[place + 1 :]:
            two = [by_id[worse], by_id[better]]
            assert [t.rule_id for t in decide(load(two, order, 1), two).treatments] == [better]


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders)
def test_fewer_slots_give_the_best_of_more(rules: list[Drawn], order: list[str]) -> None:
    most = decide(load(rules, order, 9), rules).treatments
    for slots in (1, 2, 3):
        assert decide(load(rules, order, slots), rules).treatments == most[:slots]


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_lists, orders, st.integers(1, 4))
def test_winners_respect_slots_groups_and_one_another(rules: list[Drawn], order: list[str], slots: int) -> None:
    by_id = {r.id: r for r in rules}
    winners = [by_id[t.rule_id] for t in decide(load(rules, order, slots), rules).treatments]
    assert len(winners) <= slots
    groups = [group_of(r) for r in winners if group_of(r)]
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
