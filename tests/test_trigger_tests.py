"""Tests of triggers, as `arbiter test` runs them: what they correlate by is what the engine finds, and what they cover.

What they say word by word stands in cases/ruletests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests import Coverage, Runner, read_tests
from arbiter.ruletests.coverage import Reach, percent
from arbiter.ruletests.ways import Ways
from arbiter.snapshot import Snapshot
from arbiter.triggers.cage import Cage
from tests import forked

if TYPE_CHECKING:
    from pathlib import Path

shapes = st.lists(
    st.lists(st.lists(st.integers(0, 2), max_size=2, unique=True).map(tuple), min_size=2, max_size=4).map(tuple),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.data())
def test_what_is_found_by_trying_is_what_the_engine_finds(drawn: list[Any], data: st.DataObject) -> None:
    asked = {
        number: [
            data.draw(st.lists(st.tuples(*[st.integers(1, 2) for _ in held]), min_size=1, max_size=3)) for held in shape
        ]
        for number, shape in enumerate(drawn)
    }
    cage = Cage(drawn)
    try:
        assert Ways(drawn).complete(asked) == cage.complete(asked)
    finally:
        cage.close()


RULES = """
schema: {events: {view: {}, cart: {}, home: {}}, profile: {n: int}}
decisions: {home: }
rules:
  - {id: shown, decision: home, then: {action: show}}
triggers:
  - {id: seen, after: {event: view}, then: {increment: {n: 1}}}
  - {id: kept-out, after: {event: view}, when: profile.n > 100, then: {unset: n}}
  - {id: far, sequence: [{event: view}, {event: cart}], then: {unset: n}}
  - {id: off, after: {event: view}, enabled: false, then: {unset: n}}
"""
TESTS = """
defaults: {now: 2026-06-01T12:00:00Z, decision: home}
tests:
  - {name: it fires, events: [{type: view, at: 1d ago}], expect: {firings: [seen]}}
  - {name: it decides, expect: {treatments: [shown]}}
"""


def test_coverage_counts_triggers() -> None:
    ruleset, found = load_ruleset({"a.yaml": RULES.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    snapshot = Snapshot(ruleset, {})
    tests, mistakes = read_tests({"a.test.yaml": TESTS.encode()}, ruleset, {})
    assert not mistakes
    counted, runner = Coverage(ruleset.rules, ruleset.triggers), Runner(snapshot)
    assert {each.reach for each in counted.rules()} == {Reach.UNASKED}
    for test in tests:
        result = runner.run(test, explained=True)
        assert result.passed
        counted.add(result)
    reached = {each.rule_id: each.reach for each in counted.rules()}
    assert reached == {"shown": Reach.WON, "seen": Reach.WON, "kept-out": Reach.ELIGIBLE, "far": Reach.JUDGED}
    assert percent(counted.rules()) == 50.0


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text(RULES, "utf-8")
    (folder / "a.test.yaml").write_text(TESTS, "utf-8")
    return folder


def test_the_command_tells_of_triggers(rules: Path) -> None:
    done = forked.arbiter("test", rules, "--coverage")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 rule won in a test, 1 of 3 triggers fired, 50.0 %" in done.stdout
    assert "complete, never fired" in done.stdout
    told = json.loads(forked.arbiter("test", rules, "--coverage", "--json").stdout)
    assert told["coverage"]["percent"] == 50.0
    assert {each["trigger"]: each["reach"] for each in told["coverage"]["triggers"]} == {
        "seen": "won", "kept-out": "eligible", "far": "judged"
    }  # fmt: skip
    (rules / "a.test.yaml").write_text(TESTS.replace("[seen]", "[kept-out]"), "utf-8")
    done = forked.arbiter("test", rules)
    assert done.returncode == 1
    assert "because  kept-out was passed over at" in done.stdout
    told = json.loads(forked.arbiter("test", rules, "--json").stdout)
    (mismatch,) = told["tests"][0]["mismatches"]
    assert mismatch["triggers"][0]["trigger"] == "kept-out"
