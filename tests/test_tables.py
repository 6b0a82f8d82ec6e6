"""Decision tables against the definition of their cells, through load, snapshot and walk, for each hit policy."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.tables.analysis import find_gap, overlaps
from arbiter.snapshot import Snapshot
from arbiter.types import Decision

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

# Every value of each column that a cell of these tests can tell apart from others, and a missing one.
VALUES: dict[str, list[Any]] = {
    "n": [-1, 0, 1, 2, 3, 4],
    "x": [-9.5, 0.0, 0.5, 1.0, 1.5, 2.0, 99.25],
    "plan": ["free", "trial", "pro"],
    "vip": [True, False],
    "any": [True, False, 0, 1, 1.5, 2, 3, "", "a", "aa", "b", "zz", []],
}
TYPES = {"n": "int", "x": "double", "plan": {"type": "string", "values": VALUES["plan"]}, "vip": "bool"}
CONSTANTS: dict[str, list[Any]] = {
    "n": [0, 1, 2, 3], "x": [0, 1, 2.0], "plan": VALUES["plan"], "vip": [True, False], "any": [True, 1, 2, "a", "b"],
}  # fmt: skip
MISSING = object()


class Cell(msgspec.Struct, frozen=True):
    """A cell as it is written, and what it says in the words of the definition."""

    text: str
    kind: str
    values: tuple[Any, ...] = ()
    low: bool = True
    high: bool = True

    def holds(self, value: Any) -> bool:
        if self.kind == "any":
            return True
        if value is MISSING:
            return False
        found = any(same(value, each) for each in self.values)
        match self.kind:
            case "in":
                return found
            case "not":
                return not found
        if isinstance(value, (bool, list)) or isinstance(value, str) != isinstance(self.values[0], str):
            return False
        first, last = self.values[0], self.values[-1]
        match self.kind:
            case "<":
                return bool(value < first)
            case "<=":
                return bool(value <= first)
            case ">":
                return bool(value > first)
            case ">=":
                return bool(value >= first)
        return (value > first or (self.low and value == first)) and (value < last or (self.high and value == last))


def same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def written(value: Any) -> str:
    return json.dumps(value)


def cells(column: str) -> st.SearchStrategy[Cell]:
    constants = CONSTANTS[column]
    one = st.sampled_from(constants)
    some = st.lists(one, min_size=1, max_size=3, unique_by=lambda v: (type(v), v))
    kinds = [
        st.just(Cell("-", "any")),
        some.map(lambda vs: Cell(", ".join(map(written, vs)), "in", tuple(vs))),
        some.map(lambda vs: Cell(f"not({', '.join(map(written, vs))})", "not", tuple(vs))),
        one.map(lambda v: Cell(f"!= {written(v)}", "not", (v,))),
    ]
    ordered = [v for v in constants if not isinstance(v, bool)]
    if ordered:
        kinds.append(
            st.builds(
                lambda test, v: Cell(f"{test} {written(v)}", test, (v,)),
                st.sampled_from(["<", "<=", ">", ">="]),
                st.sampled_from(ordered),
            )
        )
        pairs = [(a, b) for a in ordered for b in ordered if isinstance(a, str) == isinstance(b, str) and a < b]
        kinds.append(
            st.builds(
                lambda ends, low, high: Cell(
                    f"{'[' if low else '('}{written(ends[0])}..{written(ends[1])}{']' if high else ')'}",
                    "range", ends, low, high,
                ),
                st.sampled_from(pairs), st.booleans(), st.booleans(),
            )
        )  # fmt: skip
    return st.one_of(kinds)


class Table(msgspec.Struct, frozen=True):
    """A table: its columns, rows of cells, and what each row gives."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    outputs: tuple[int, ...]
    priorities: tuple[int, ...]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    rows = draw(st.lists(st.tuples(*(cells(column) for column in columns)), min_size=1, max_size=6))
    outputs = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    priorities = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    return Table(tuple(columns), tuple(rows), tuple(outputs), tuple(priorities))


def inputs(table: Table, *, with_missing: bool) -> list[dict[str, Any]]:
    choices = [[*VALUES[column], *([MISSING] if with_missing else [])] for column in table.columns]
    return [dict(zip(table.columns, each, strict=True)) for each in itertools.product(*choices)]


def matching(table: Table, given_: dict[str, Any]) -> list[int]:
    return [
        number
        for number, row in enumerate(table.rows)
        if all(cell.holds(given_[column]) for cell, column in zip(row, table.columns, strict=True))
    ]


def files(table: Table, policy: str, order: list[str], *, as_csv: bool) -> dict[str, bytes]:
    by_priority = policy == "priority"
    block: dict[str, Any] = {
        "id": "t", "decision": "d", "hit_policy": policy, "gaps": "allowed",
        "inputs": {column: f"profile.{column}" for column in table.columns},
        "outputs": ["gives", "priority"] if by_priority else ["gives"],
        "then": {"action": "show"}, "value": "profile.worth",
    }  # fmt: skip
    rows = [
        [*(cell.text for cell in row), gives, *([priority] if by_priority else [])]
        for row, gives, priority in zip(table.rows, table.outputs, table.priorities, strict=True)
    ]
    text = io.StringIO()
    if as_csv:
        csv.writer(text).writerows([[*table.columns, *block["outputs"]], *rows])
        block["table"] = "t.csv"
    else:
        block["rows"] = rows
    authored = {
        "schema": {"profile": {**TYPES, "worth": "double", "any": "int"}},
        "decisions": {"d": {"order": order}},
        "rules": [block],
    }
    # `any` has no type: it is open, as everything is where nothing is declared.
    authored["schema"]["profile"].pop("any")  # type: ignore[index]
    content = json.dumps(authored).replace("profile.any", "context.any").encode()
    return {"a.yaml": content} | ({"t.csv": text.getvalue().encode()} if as_csv else {})


def load(table: Table, policy: str, order: list[str] | None = None, *, as_csv: bool = False) -> Ruleset | None:
    ruleset, found = load_ruleset(files(table, policy, order or ["priority"], as_csv=as_csv), {})
    assert all("can match together" in each.message for each in found), [each.render() for each in found]
    return ruleset


def decide(snapshot: Snapshot, given_: dict[str, Any]) -> str:
    here = {name: value for name, value in given_.items() if value is not MISSING}
    context = {"any": here.pop("any")} if "any" in here else {}
    decision = Walk(snapshot.point("d"), View(here | {"worth": 1.0}, context, {}, 0), "someone").advance()
    assert isinstance(decision, Decision)
    return decision.treatments[0].rule_id if decision.treatments else ""


quick = settings(max_examples=50, derandomize=True)
orders = st.sampled_from([["priority"], ["specificity", "priority"], ["priority", "value", "recency"]])


@quick
@given(tables(), orders)
def test_the_first_row_that_matches_wins(table: Table, order: list[str]) -> None:
    ruleset = load(table, "first", order)
    assert ruleset is not None
    snapshot = Snapshot(ruleset, {})
    for each in inputs(table, with_missing=True):
        rows = matching(table, each)
        assert decide(snapshot, each) == (f"t#{rows[0] + 1}" if rows else ""), each


@quick
@given(tables(), orders)
def test_the_row_of_highest_priority_wins_and_of_equal_ones_the_first(table: Table, order: list[str]) -> None:
    ruleset = load(table, "priority", order)
    assert ruleset is not None
    snapshot = Snapshot(ruleset, {})
    for each in inputs(table, with_missing=True):
        rows = sorted(matching(table, each), key=lambda row: (-table.priorities[row], row))
        assert decide(snapshot, each) == (f"t#{rows[0] + 1}" if rows else ""), each


@quick
@given(tables())
def test_rows_of_unique_overlap_exactly_when_some_input_matches_two(table: Table) -> None:
    ruleset = load(table, "unique")
    people = inputs(table, with_missing=False)
    assert (ruleset is None) == any(len(matching(table, each)) > 1 for each in people)
    if ruleset is not None:
        snapshot = Snapshot(ruleset, {})
        for each in inputs(table, with_missing=True):
            rows = matching(table, each)
            assert decide(snapshot, each) == (f"t#{rows[0] + 1}" if rows else "")


@quick
@given(tables())
def test_rows_of_any_may_overlap_when_they_give_the_same(table: Table) -> None:
    ruleset = load(table, "any")
    people = inputs(table, with_missing=False)
    differ = any(len({table.outputs[row] for row in matching(table, each)}) > 1 for each in people)
    assert (ruleset is None) == differ
    if ruleset is not None:
        snapshot = Snapshot(ruleset, {})
        for each in inputs(table, with_missing=True):
            rows = matching(table, each)
            assert decide(snapshot, each) == (f"t#{rows[0] + 1}" if rows else "")


@quick
@given(tables())
def test_a_gap_is_found_exactly_when_there_is_one(table: Table) -> None:
    ruleset = load(table, "first")
    assert ruleset is not None
    found = find_gap(ruleset.tables[0], ruleset.rules)
    people = inputs(table, with_missing=False)
    assert (found is None) == all(matching(table, each) for each in people)
    for name, (_, value) in found or ():  # the example is one, whatever the other columns hold
        people = [{**each, name.partition(".")[2]: value} for each in people]
    assert found is None or not any(matching(table, each) for each in people)


@quick
@given(tables())
def test_the_example_of_an_overlap_matches_both_rows(table: Table) -> None:
    ruleset = load(table, "first")
    assert ruleset is not None
    rules = sorted(ruleset.rules, key=lambda rule: rule.row)
    pairs = set()
    for found in overlaps(ruleset.tables[0], rules):
        assert found.first < found.second
        pairs.add(found.second)
        example = {name.partition(".")[2]: value for name, (_, value) in found.example}
        for each in inputs(table, with_missing=False):
            assert {found.first, found.second} <= set(matching(table, {**each, **example}))
    doubled = [matching(table, each)[1:] for each in inputs(table, with_missing=False)]
    assert pairs == {row for rows in doubled for row in rows}


@quick
@given(tables(), st.sampled_from(["unique", "first", "priority", "any"]))
def test_a_table_is_the_same_in_yaml_and_in_csv(table: Table, policy: str) -> None:
    inline, sheet = load(table, policy), load(table, policy, as_csv=True)
    assert (inline is None) == (sheet is None)
    assume(inline is not None and sheet is not None)
    assert inline is not None
    assert sheet is not None
    for a, b in zip(inline.rules, sheet.rules, strict=True):
        assert [e.source for e in a.when] == [e.source for e in b.when]
        assert (a.id, a.then, a.priority, a.row) == (b.id, b.then, b.priority, b.row)
