"""Tables as files and as rules: where cells stand, what rows become, and that a changed CSV file is a change."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.decision.explain import explain
from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.ruleset.load import Cache, load_ruleset
from arbiter.ruleset.rules import Rollout, Ruleset
from arbiter.ruleset.tables.analysis import TooMany, find_gap, shown
from arbiter.ruleset.tables.columns import MAX_COLUMNS
from arbiter.ruleset.tables.rows import MAX_ROWS
from arbiter.ruleset.terms import Active, Plain
from arbiter.runtime.loader import Loader
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, ExplainLevel, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.errors import Diagnostic

POINT = "decisions: {d: {order: [priority, value]}}\n"
SHEET = (
    POINT
    + """rules:
  - {id: t, decision: d, hit_policy: first, table: t.csv, inputs: {plan: profile.plan}, outputs: [n], then: {action: a}}
"""
)


def read(files: dict[str, str | bytes], cache: Cache | None = None) -> tuple[Ruleset | None, list[Diagnostic]]:
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return load_ruleset(contents, {}, cache=cache)


def load(files: dict[str, str | bytes], cache: Cache | None = None) -> Ruleset:
    ruleset, found = read(files, cache)
    assert ruleset is not None, "\n".join(each.render() for each in found)
    return ruleset


def inline(*rows: list[Any], **more: Any) -> str:
    block = {
        "id": "t", "decision": "d", "inputs": ["profile.plan", "profile.age"], "outputs": ["n"],
        "then": {"action": "a"}, "rows": list(rows),
    } | more  # fmt: skip
    return POINT + json.dumps({"rules": [block]})[1:-1].replace('"rules"', "rules")


def decide(snapshot: Snapshot, **profile: Any) -> list[str]:
    decision = Walk(snapshot.point("d"), View(profile, {}, {}, 0), "someone").advance()
    assert isinstance(decision, Decision)
    return [each.rule_id for each in decision.treatments]


def gap(ruleset: Ruleset) -> str | None:
    found = find_gap(ruleset.tables[0], ruleset.rules)
    return None if found is None else shown(found)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_know_their_lines_whatever_ends_them(mark: bytes, end: str) -> None:
    lines = ["plan,n", 'free,"over', 'two"', "", ' pro ,"a ""b"""']
    ruleset = load({"x/r.yaml": SHEET, "x/t.csv": mark + end.join(lines).encode()})
    assert [(rule.id, rule.position) for rule in ruleset.rules] == [("t#1", "x/t.csv:2:1"), ("t#2", "x/t.csv:5:2")]
    assert [rule.when[0].position for rule in ruleset.rules] == ["x/t.csv:2:1", "x/t.csv:5:2"]
    assert ruleset.rules[1].then.params["n"] == Plain('a "b"')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "t.csv: the table is empty"),
        (b"plan,n\n", "t.csv:1:1: the table has no rows"),
        (b"plan,n\n\xff,1", "t.csv:2:1: the file is not UTF-8 from here on"),
        (b"plan,n\na\0,1", "t.csv:2:2: the character U+0000 cannot stand in a table"),
        (b'plan,n\n"a,1', "t.csv:2:1: from here on this is not CSV"),
        (b"plan\tn\na\t1", "t.csv:1:5: tabs separate the columns"),
        (b"plan,n,\na,1,x", "t.csv:1:8: this column has no name"),
        (b"plan,n,n\na,1,2", "t.csv:1:8: two columns are called `n`"),
        (b"plan,n\na,99999999999999999999", "t.csv:2:3: `99999999999999999999` does not fit in a 64-bit integer"),
        (b"plan,n\n" + b"a" * 200_000 + b",1", "t.csv:2:1: from here on this is not CSV"),
    ],
)
def test_a_csv_file_that_cannot_be_read_says_where(content: bytes, said: str) -> None:
    ruleset, found = read({"r.yaml": SHEET, "t.csv": content})
    assert ruleset is None
    assert found[0].render().startswith(said)


def test_columns_that_are_empty_or_notes_are_left_out() -> None:
    ruleset = load({"r.yaml": SHEET, "t.csv": "#who,n,plan,\nme,1,free,\nyou,2,-,\n"})
    assert [rule.then.params for rule in ruleset.rules] == [{"n": Plain(1)}, {"n": Plain(2)}]
    assert [len(rule.when) for rule in ruleset.rules] == [1, 0]


def test_a_csv_file_that_no_table_names_is_not_looked_at() -> None:
    assert load({"r.yaml": POINT, "t.csv": b"\xff\0"}).rules == ()


def test_a_row_has_what_its_table_says_of_all_rows() -> None:
    common = {
        "priority": 7, "when": "profile.here", "rollout": {"percent": 50}, "tags": ["x"],
        "active": {"until": "2026-11-01T00:00:00Z"}, "value": "profile.age * 2",
    }  # fmt: skip
    first, second = load({"r.yaml": inline(["a", "-", 1], ["b", "-", 2], **common)}).rules
    assert (first.id, first.table, first.row, first.group, first.priority) == ("t#1", "t", 1, "t", 7)
    assert [e.source for e in second.when] == ["profile.here", 'profile.plan == "b"']
    assert first.rollout == second.rollout == Rollout(50.0, "subject", "t")
    assert first.specificity == second.specificity == 3
    assert isinstance(second.active, Active)
    assert second.tags == ("x",)
    assert second.value is not None


def test_a_group_of_its_own_lets_a_table_compete_with_other_rules() -> None:
    assert load({"r.yaml": inline(["a", "-", 1], group="offers")}).rules[0].group == "offers"


def test_the_first_row_wins_whatever_the_rows_are_worth() -> None:
    rows = [["-", "> 5", 1, "1.0"], ["-", "> 6", 2, "profile.age * 1.0"], ["-", "> 7", 3, "0.5"]]
    ruleset = load({"r.yaml": inline(*rows, hit_policy="first", outputs=["n", "value"])})
    snapshot = Snapshot(ruleset, {})
    assert decide(snapshot, plan="x", age=9) == ["t#1"]
    view = View({"plan": "x", "age": 7}, {}, {}, 0)
    told = explain(snapshot.point("d"), view, "someone", 0, (), dict, ExplainLevel.ALL)
    assert {o.rule_id: (o.reason, o.lost_to) for o in told} == {
        "t#1": (Reason.WON, ""), "t#2": (Reason.LOST_GROUP, "t#1"), "t#3": (Reason.FAILED, ""),
    }  # fmt: skip


def test_one_row_of_a_table_wins_though_there_are_more_slots() -> None:
    text = inline(["-", "> 5", 1], ["-", "> 6", 2], hit_policy="first").replace("{order", "{slots: 3, order")
    assert decide(Snapshot(load({"r.yaml": text}), {}), plan="x", age=9) == ["t#1"]


def test_a_row_that_is_switched_off_matches_nothing() -> None:
    rows = [["-", "> 5", 1, False], ["-", "> 5", 2, True]]
    snapshot = Snapshot(load({"r.yaml": inline(*rows, outputs=["n", "enabled"])}), {})
    assert decide(snapshot, plan="x", age=9) == ["t#2"]


def test_rows_at_different_times_do_not_overlap() -> None:
    rows = [["a", "-", 1, None, "2026-11-01T00:00:00Z"], ["a", "-", 2, "2026-11-01T00:00:00Z", None]]
    ruleset = load({"r.yaml": inline(*rows, outputs=["n", "active.from", "active.until"])})
    assert [rule.active for rule in ruleset.rules] == [
        Active(None, 1_793_491_200_000_000), Active(1_793_491_200_000_000, None),
    ]  # fmt: skip


def test_a_gap_is_asked_only_within_what_stands_before_the_table() -> None:
    rows = [["a", "> 5", 1], ["not(a)", "> 5", 2]]
    declared = "schema: {profile: {plan: string, age: int}}\n"
    assert gap(load({"r.yaml": declared + inline(*rows)})) == 'profile.plan = "a", profile.age = 5'
    assert gap(load({"r.yaml": declared + inline(*rows, when="profile.age > 5")})) is None
    assert gap(load({"r.yaml": declared + inline(*rows, when="profile.age >= 5")})) is not None
    dated = {"when": "profile.age > 5", "active": {"from": "2026-11-01T00:00:00Z"}}
    assert gap(load({"r.yaml": declared + inline(*rows, **dated)})) is None


def test_a_count_is_never_below_nothing() -> None:
    rows = [["0", "-", 1], ["> 0", "-", 2]]
    text = "features: {orders: {count: buy}}\n" + inline(*rows, inputs=["features.orders", "profile.x"])
    assert gap(load({"r.yaml": text})) is None


def test_a_column_may_be_any_expression_and_a_cell_any_condition() -> None:
    rows = [["true", "1", 1], ["false", "${profile.age > 3 && profile.age < 5}", 2], ["false", "not(4)", 3]]
    inputs = ["'vip' in profile.tags", "profile.age % 3"]
    ruleset = load({"r.yaml": inline(*rows, inputs=inputs, hit_policy="first")})
    assert [e.source for e in ruleset.rules[2].when] == ["!('vip' in profile.tags)", "(profile.age % 3) != 4"]
    snapshot = Snapshot(ruleset, {})
    assert decide(snapshot, tags=["vip"], age=4) == ["t#1"]
    assert decide(snapshot, tags=[], age=4) == ["t#2"]
    assert decide(snapshot, tags=[], age=9) == ["t#3"]
    assert decide(snapshot, age=9) == []


def test_times_durations_and_texts_with_escapes_are_constants_too() -> None:
    rows = [
        ["> 2026-11-01T00:00:00Z", "-", 1],
        ['timestamp("2026-11-01T00:00:00Z")', "-", 2],
        ["[2026-10-01T00:00:00Z..2026-11-01T00:00:00Z)", "> duration('36h')", 3],
        ["-", "'it\\'s', \"a,b\"", 4],
        ["-", "b'x'", 5],
    ]
    inputs = ["profile.joined", "profile.x"]
    ruleset = load({"r.yaml": inline(*rows, inputs=inputs, hit_policy="first")})
    assert [e.source for rule in ruleset.rules for e in rule.when] == [
        'profile.joined > timestamp("2026-11-01T00:00:00Z")',
        'profile.joined == timestamp("2026-11-01T00:00:00Z")',
        'profile.joined >= timestamp("2026-10-01T00:00:00Z") && profile.joined < timestamp("2026-11-01T00:00:00Z")',
        "profile.x > duration('36h')",
        "profile.x in ['it\\'s', \"a,b\"]",
        "profile.x == b'x'",
    ]


def test_a_table_has_limits() -> None:
    rows = [["-", str(n), n] for n in range(MAX_ROWS + 1)]
    _, (found,) = read({"r.yaml": inline(*rows)})
    assert found.message == f"a table has at most {MAX_ROWS:,} rows, this one {MAX_ROWS + 1:,}"
    wide = [f"profile.a{n}" for n in range(MAX_COLUMNS)]
    _, (found,) = read({"r.yaml": inline(["-"] * MAX_COLUMNS + [1], inputs=wide)})
    assert found.message == f"a table has at most {MAX_COLUMNS} columns, this one {MAX_COLUMNS + 1}"
    _, (found,) = read({"r.yaml": inline(["-", "-", 1], id="x" * 251)})
    assert found.message == "the id of a table has at most 250 characters"


def test_a_large_table_without_a_gap_is_seen_to_have_none() -> None:
    edges = [*range(0, 320, 10)]
    cells = [f"< {edges[0]}", *(f"[{a}..{b})" for a, b in itertools.pairwise(edges)), f">= {edges[-1]}"]
    rows = [[x, y, 1] for x in cells for y in cells]
    assert len(rows) > 1_000
    declared, inputs = "schema: {profile: {x: int, y: int}}\n", ["profile.x", "profile.y"]
    assert gap(load({"r.yaml": declared + inline(*rows, inputs=inputs)})) is None
    holed = inline(*rows[:500], *rows[501:], inputs=inputs)
    assert gap(load({"r.yaml": declared + holed})) == "profile.x = 140, profile.y = 40"


def test_what_cannot_be_searched_is_not_guessed() -> None:
    conditions = [[f"${{profile.a{n} > profile.b{n}}}", "-", n] for n in range(300)]
    ruleset = load({"r.yaml": inline(*conditions, hit_policy="first")})
    with pytest.raises(TooMany):
        find_gap(ruleset.tables[0], ruleset.rules)


def test_a_changed_csv_file_is_read_again_and_the_rest_is_remembered() -> None:
    cache = Cache()
    other = "rules: [{id: other, decision: d, then: {action: a}}]"
    files: dict[str, str | bytes] = {"r.yaml": SHEET, "t.csv": "plan,n\nfree,1\n", "o.yaml": other}
    before = load(files, cache)
    again = load(files, cache)
    assert all(a is b for a, b in zip(before.rules, again.rules, strict=True))
    after = load(files | {"t.csv": "plan,n\nfree,2\n"}, cache)
    assert after.rules[0] is before.rules[0]
    assert after.rules[1].then.params == {"n": Plain(2)}
    assert read({"r.yaml": SHEET, "o.yaml": other}, cache)[0] is None
    assert load(files, cache).rules[1].then.params == {"n": Plain(1)}


def test_a_running_loader_sees_a_changed_csv_file(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    (rules / "tables").mkdir(parents=True)
    (rules / "r.yaml").write_text(SHEET.replace("t.csv", "tables/t.csv"))
    (rules / "tables" / "t.csv").write_text("plan,n\nfree,1\n")
    loader = Loader(rules, None, None)
    built = loader.load().built
    assert built is not None
    assert [file.path for file in built.files] == ["rules/r.yaml", "rules/tables/t.csv"]
    assert loader.look() is None
    (rules / "tables" / "t.csv").write_text("plan,n\nfree,2\n>>,3\n")
    attempt = loader.look()
    assert attempt is not None
    assert attempt.built is None
    assert attempt.diagnostics[0].render().startswith("rules/tables/t.csv:3:2: ")
    (rules / "tables" / "t.csv").write_text("plan,n\nfree,2\n")
    attempt = loader.look()
    assert attempt is not None
    assert attempt.built is not None
    assert attempt.built.snapshot.digest != built.snapshot.digest
    assert loader.validate({"r.yaml": SHEET.encode(), "t.csv": b"plan,n\nfree,1\n"}) == []
    assert [each.message for each in loader.validate({"r.yaml": SHEET.encode()})] == [
        "there is no file `t.csv` among the rule files"
    ]
