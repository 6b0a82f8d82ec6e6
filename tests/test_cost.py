"""No expression takes long: what is refused when files are read, and what is unknown at run time.

Nothing here looks at a clock. With an engine that goes back, or without the meter, the patterns and lists below would
not be done this year.
"""

from __future__ import annotations

from typing import Any

import pytest

from arbiter.expr import limits, ops
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.compile import event_filter, truth_function, value_function
from arbiter.expr.evaluate import evaluate, judge
from arbiter.expr.limits import ALLOWANCE, PATTERN_SIZE, STEPS, meter, pattern_size
from arbiter.expr.tree import AnyNode, Expression
from arbiter.expr.view import Symbols, View

SCOPE = Scope(roots={"profile": None, "context": None, "event": None, "features": {}, "segments": {"s": "bool"}})
LONG = list(range(1000))


def tree_of(source: str) -> AnyNode:
    checked = read_expression(source, SCOPE)
    assert checked.root is not None, checked.mistakes
    return checked.root


def value(source: str, context: dict[str, Any], symbols: Symbols | None = None) -> Any:
    """The value by both evaluators, which must agree; `Unknown` as its text."""
    found: list[Any] = []
    symbols = symbols or Symbols()
    view, root = View({}, context, {}, 0), tree_of(source)
    for slow in (True, False):
        try:
            found.append(evaluate(root, view, symbols) if slow else value_function(root, symbols, "case")(view))
        except ops.FAILURES as failure:
            found.append(f"unknown: {failure}")
    assert found[0] == found[1]
    return found[0]


CATASTROPHIC = [
    "(a+)+$", "([a-zA-Z]+)*$", "(a|aa)+$", "(a|a?)+$", "(.*a){12}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a*)*b",
    "(x+x+)+y", "((a{0,5}){0,5}){0,5}b", "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaab",
]  # fmt: skip


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_patterns_that_go_back_elsewhere_are_answered(pattern: str) -> None:
    text = "a" * 2000 + "!"
    assert value(f'context.text.matches("{pattern}")', {"text": text}) in {True, False}
    assert value("context.text.matches(context.pattern)", {"text": text, "pattern": pattern}) in {True, False}


def test_matching_counts_states_times_characters() -> None:
    def steps(length: int) -> int:
        meter.start(STEPS)
        try:
            limits.spend_match("a" * length, "(a|b)*a(a|b){20}c")
            return STEPS - meter.left - limits.DELEGATED
        finally:
            meter.stop()

    assert steps(6_000) == 2 * steps(3_000) > 0


def test_a_text_too_long_for_its_pattern_is_unknown() -> None:
    pattern = "(a|b)*a(a|b){300}c"
    found = value(f'context.text.matches("{pattern}")', {"text": "ab" * 30_000})
    assert found == "unknown: this takes more than the 100,000 steps that are allowed"
    assert value(f'context.text.matches("{pattern}")', {"text": "ab" * 100}) is False


@pytest.mark.parametrize(
    "pattern", ["(a{1000}){2}", "((a{40}){40}){40}", r"\\pL{100}", "[a-z]{900}", "(?:(?:x{9}){9}){99}"]
)
def test_patterns_that_grow_are_refused_when_they_are_read(pattern: str) -> None:
    (mistake,) = read_expression(f'profile.a.matches("{pattern}")', SCOPE).mistakes
    assert mistake.message.startswith("this pattern comes to some ")
    assert value("context.text.matches(context.pattern)", {"text": "a", "pattern": pattern.replace("\\\\", "\\")}) == (
        "unknown: a pattern has at most 1,000 characters and 2,000 states"
    )


def test_long_patterns_are_refused() -> None:
    (mistake,) = read_expression(f'profile.a.matches("{"a" * 1001}")', SCOPE).mistakes
    assert mistake.message == "this pattern has 1,001 characters; at most 1,000 are read"


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}", 5),
        ("a{2,}", 3),
        ("(ab){10}", 40),
        (r"\d+", 2),
        (r"\{3\}", 3),
        ("a{", 2),
    ],
)
def test_the_size_of_a_pattern(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


@pytest.mark.parametrize(
    "pattern",
    [r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$", r"^\+?[0-9 ()-]{6,20}$", "(?i)^(summer|winter)-[0-9]{4}$", r"^\p{Lu}\p{L}+$"],
)
def test_patterns_that_people_write_are_far_from_the_bounds(pattern: str) -> None:
    assert pattern_size(pattern) < PATTERN_SIZE / 2


TWICE = ".map(x, [x, x])" * 20


@pytest.mark.parametrize("macro", ["exists", "all", "exists_one", "filter", "map"])
def test_lists_over_lists_stop_at_the_bound(macro: str) -> None:
    inner = "all" if macro == "all" else "exists"
    source = f"context.a.{macro}(x, context.a.{inner}(y, x + y {'!=' if macro == 'all' else '=='} -1))"
    assert value(source, {"a": LONG[:50]}) in (True, False, [], [False] * 50)
    assert "more than the 100,000 steps" in str(value(source, {"a": LONG}))


@pytest.mark.parametrize(
    "source",
    [
        "context.a.exists(x, !(x in context.a))",
        "context.a.map(x, context.a).exists(x, x == context.b)",
        "[context.t].map(x, x + x)" + ".map(x, x + x)" * 25 + ".size() > 0",
        "context.t" + '.replace("a", "aaaaaaaaaa")' * 12 + " == ''",
        "[context.a]" + ".map(x, x + x)" * 25 + ".size() > 0",
        f"[[context.a]{TWICE}, 1][0] == [context.a]{TWICE}",
        f"\"%s\".format([[context.a]{TWICE}]) == ''",
        'context.a.map(x, context.t).join(context.t) == ""',
        'context.a.exists(x, context.t.contains("ab"))',
        'context.a.exists(x, context.t.matches("ab"))',
        "context.a.exists(x, string(x) == 'a')",
    ],
)  # fmt: skip
def test_what_grows_stops_at_the_bound(source: str) -> None:
    context = {"a": LONG, "b": [*LONG[:-1], -1], "t": "a" * 60_000}
    assert "steps that are allowed" in str(value(source, context))


def test_ordinary_lists_are_far_from_the_bound() -> None:
    symbols = Symbols(segments={"s": tree_of("context.a.exists(x, x == 999)")})
    assert value("context.a.exists(x, x == 999)", {"a": LONG}) is True
    assert value("context.a.filter(x, x % 2 == 0).map(x, x * 3).size()", {"a": LONG}) == 500
    assert value("context.b.all(x, segments.s || x < 0)", {"a": LONG, "b": LONG[:10]}, symbols) is True


def test_each_test_of_a_condition_is_counted_on_its_own_and_all_of_a_request_together() -> None:
    test = tree_of("context.a.exists(x, context.b.exists(y, x + y == -1))")
    view = View({}, {"a": LONG[:100], "b": LONG[:150]}, {}, 0)
    asked = truth_function([(test, False)], Symbols(), "case")
    taken = ALLOWANCE
    answers: list[bool] = []
    while view.allowance > 0 and len(answers) < 1000:
        answers.append(asked(view))
        assert view.allowance < taken
        taken = view.allowance
    answers.append(asked(view))
    # Each alone is within the bound; all together are not, and then nothing that is metered is known.
    assert answers[:20] == [True] * 20
    assert answers[-1] is False
    assert truth_function([(test, True)], Symbols(), "case")(view) is False
    # Looking on is counted anew.
    assert judge(test, view, Symbols()).value is False


def test_an_explanation_says_that_it_takes_too_long() -> None:
    test = tree_of("context.a.exists(x, context.a.exists(y, x + y == -1))")
    verdict = judge(test, View({}, {"a": LONG}, {}, 0), Symbols())
    assert verdict.value is None
    assert verdict.why == "this takes more than the 100,000 steps that are allowed"


def test_conditions_on_events_are_bounded_too() -> None:
    source = "event.a.exists(x, event.a.exists(y, x + y == -1)) || event.ok"
    holds = event_filter(Expression(source, tree_of(source), "bool", "f:1:1", ()))
    assert holds is not None
    assert not holds({"a": LONG, "ok": False})
    assert holds({"a": LONG, "ok": True})


def test_nothing_is_counted_between_evaluations() -> None:
    for _ in range(3):
        assert ops.eq([LONG] * 1000, [LONG] * 1000)


def test_macros_stand_three_deep_at_most() -> None:
    assert not read_expression("[1].all(a, [2].all(b, [3].all(c, c > 0)))", SCOPE).mistakes
    assert not read_expression("[1].map(a, a).map(b, b).map(c, c).map(d, d).size() > 0", SCOPE).mistakes
    (mistake,) = read_expression("[1].all(a, [2].all(b, [3].all(c, [4].all(d, d > 0))))", SCOPE).mistakes
    assert mistake.message == "macros stand 4 deep in each other here; at most 3 do"


def test_a_ternary_in_a_ternary_is_written_once() -> None:
    source = "(" * 28 + "profile.a" + " ? profile.b : profile.c)" * 28
    assert not truth_function([(tree_of(source), True)], Symbols(), "case")(View({}, {}, {}, 0))
