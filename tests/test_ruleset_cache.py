"""What is remembered between loads changes nothing but the time: every load is compared with one that begins anew."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.ruleset.cache import Beside, Cache
from arbiter.ruleset.load import load_ruleset

if TYPE_CHECKING:
    from arbiter.errors import Diagnostic
    from arbiter.ruleset.rules import Ruleset

GOOD_AT_LEAST, REFUSED_AT_LEAST = 200, 300
Files = dict[str, list[str]]
Models = dict[str, dict[str, str]]

BASE = {
    "a.yaml": [
        "schema: {profile: {age: int, country: {type: string, values: [US, CA]}}, events: {buy: {amount: int}}}"
    ],
    "b.yaml": ["decisions: {home: {slots: 2}, side: }"],
    "c.yaml": ["rules:", "  - {id: r1, decision: home, when: profile.age > 1, then: {action: show}}"],
    "d/e.yml": ["rules:", '  - {id: r2, decision: side, when: profile.country == "US", then: {action: show}}'],
}
CONDITIONS = (
    "profile.age > {n}", 'profile.country == "US"', 'profile.country == "XX"', "segments.s1", "features.f1 > {n}",
    "models.m.p > 0.{n}", "profile.typo == {n}", "profile.age >", "profile.age + {n}",
)  # fmt: skip
RULE = "  - {{id: r{n}, decision: {point}, when: '{when}', then: {{action: {action}}}}}"
rules = st.builds(
    lambda n, point, when, action: RULE.format(n=n, point=point, when=when.format(n=n).replace("'", ""), action=action),
    st.integers(1, 5),
    st.sampled_from(["home", "home", "side", "hom"]),
    st.sampled_from([CONDITIONS[0], CONDITIONS[1], *CONDITIONS]),
    st.sampled_from(["show", "show", "hide"]),
)
DECLARATIONS = (
    "segments: {s1: profile.age > 3}", "segments: {s1: profile.age > 4}", "segments: {s1: segments.s1}",
    "features: {f1: {count: buy, window: 7d}}", "features: {f1: {last: buy.amount}}", "features: {f1: {count: bye}}",
    "actions: {show: }", "actions: {show: {params: {x: string}}}", "decisions: {other: }", "decisions: {home: }",
    "schema: {context: {device: string}}", "schema: {profile: {typo: int}}", "schema: {profile: {age: double}}",
    "rules: {", "rules: 5", "nonsense: 1", "a: *b", "\t- x", "# a line more", "---",
)  # fmt: skip
lines = st.one_of(rules, rules, st.sampled_from(DECLARATIONS))
paths = st.sampled_from([*BASE, "f.yaml"])
places = st.integers(0, 5)
edits = st.one_of(
    st.tuples(st.just("insert"), paths, places, lines),
    st.tuples(st.just("insert"), st.sampled_from(["c.yaml", "d/e.yml"]), st.just(5), rules),
    st.tuples(st.just("replace"), paths, places, lines),
    st.tuples(st.just("remove"), paths, places, st.just("")),
    st.tuples(st.just("move"), paths, places, paths),
    st.tuples(st.just("rename"), paths, places, paths),
    st.tuples(st.just("undo"), paths, places, st.just("")),
    st.tuples(st.just("models"), paths, places, st.just("")),
)
outcomes: Counter[str] = Counter()


def edited(files: Files, kind: str, path: str, at: int, what: str) -> Files:
    found = {name: list(content) for name, content in files.items()}
    content = found.setdefault(path, [])
    if kind == "insert":
        content.insert(at, what)
    elif kind in {"replace", "remove", "move"} and content:
        line = content.pop(at % len(content))
        if kind == "replace":
            content.insert(at, what)
        elif kind == "move":
            found.setdefault(what, []).append(line)
    elif kind == "rename":
        found[what] = found.pop(path)
    return found


def load(
    files: Files, models: Models, cache: Cache | None = None, folder: str = ""
) -> tuple[Ruleset | None, list[Diagnostic]]:
    contents = {path: "\n".join(content).encode() for path, content in files.items()}
    return load_ruleset(contents, models, folder=folder, cache=cache)


@settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(edits, min_size=1, max_size=12))
def check_edits(steps: list[tuple[str, str, int, str]]) -> None:
    cache = Cache()
    files = good = BASE
    models: Models = {"m": {"p": "double"}}
    for kind, path, at, what in steps:
        if kind == "models":
            models = {} if models else {"m": {"p": "double"}}
        else:
            files = edited(good if at % 2 else files, kind, path, at, what)
        folder = "shop" if at == 4 else ""
        remembered, found = load(files, models, cache, folder)
        anew, expected = load(files, models, folder=folder)
        assert found == expected
        assert msgspec.msgpack.encode(remembered) == msgspec.msgpack.encode(anew)
        good = files if remembered is not None else good
        outcomes["good" if remembered is not None else "refused"] += 1


def test_a_load_that_remembers_gives_what_one_that_begins_anew_gives() -> None:
    outcomes.clear()
    check_edits()
    assert outcomes["good"] >= GOOD_AT_LEAST
    assert outcomes["refused"] >= REFUSED_AT_LEAST


def rules_of(ruleset: Ruleset | None) -> dict[str, int]:
    assert ruleset is not None
    return {rule.id: id(rule) for rule in ruleset.rules}


def test_rules_of_files_that_did_not_change_are_the_same_objects() -> None:
    cache = Cache()
    before, _ = load(BASE, {}, cache)
    after, _ = load(edited(BASE, "insert", "c.yaml", 0, "# a line more"), {}, cache)
    assert rules_of(before)["r1"] != rules_of(after)["r1"]
    assert rules_of(before)["r2"] == rules_of(after)["r2"]


def test_what_a_rule_means_by_other_files_is_read_again() -> None:
    cache = Cache()
    before, _ = load(BASE, {}, cache)
    wider = edited(BASE, "insert", "b.yaml", 1, "schema: {profile: {more: int}}")
    after, _ = load(wider, {}, cache)
    assert rules_of(before).keys() == rules_of(after).keys()
    assert set(rules_of(before).values()).isdisjoint(rules_of(after).values())


def test_a_file_that_was_broken_for_a_while_costs_the_others_nothing() -> None:
    cache = Cache()
    before, _ = load(BASE, {}, cache)
    for broken in ("rules: {", "rules: [", "rules: '"):
        assert load(edited(BASE, "insert", "b.yaml", 0, broken), {}, cache)[0] is None
    mended, _ = load(BASE, {}, cache)
    assert rules_of(before) == rules_of(mended)


def test_only_the_last_load_and_the_last_good_one_are_remembered() -> None:
    cache = Cache()
    for number in range(10):
        load(edited(BASE, "insert", "c.yaml", 0, f"# {number}"), {}, cache)
        load(edited(BASE, "insert", "c.yaml", 0, "rules: {" + str(number)), {}, cache)
    for remembered in (cache.sections, cache.rules):
        assert len(remembered._last) == len(remembered._good) == len(BASE)
        assert not remembered._used


def test_files_beside_are_noted_when_they_are_asked_for() -> None:
    beside = Beside({"t.csv": b"a", "u.csv": b"b"})
    assert (beside.get("t.csv"), beside.get("gone.csv")) == (b"a", None)
    assert Beside({"t.csv": b"a"}).unchanged(beside.read)
    assert not Beside({"t.csv": b"x"}).unchanged(beside.read)
    assert not Beside({}).unchanged(beside.read)
    assert not Beside({"t.csv": b"a", "gone.csv": b""}).unchanged(beside.read)


def test_the_names_of_files_beside_are_noted_when_they_are_asked_for() -> None:
    beside = Beside({"t.csv": b"a", "\udcff.csv": b""})
    assert beside.names() == ["t.csv", "\udcff.csv"]
    assert Beside({"\udcff.csv": b"", "t.csv": b"other"}).unchanged(beside.read)
    assert not Beside({"t.csv": b"a"}).unchanged(beside.read)


def test_what_models_give_and_take_is_part_of_what_rules_mean() -> None:
    cache = Cache()
    rule = "  - {id: r3, decision: home, when: models.m.c == 'lost', then: {action: show}}"
    files = {path: "\n".join(content).encode() for path, content in edited(BASE, "insert", "c.yaml", 9, rule).items()}
    labels = {"m": {"c": ["kept", "gone"]}}
    inputs = {"m": [("profile", "never_declared")]}
    for known in ({}, {"labels": labels}, {"inputs": inputs}, {}):
        models = {"m": {"c": "string"}}
        found = load_ruleset(files, models, known.get("labels"), known.get("inputs"), cache=cache)[1]  # type: ignore[arg-type] # one of two
        assert [each.path for each in found] == ["rules[1].when"] * bool(known)
