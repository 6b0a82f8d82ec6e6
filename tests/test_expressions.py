"""The compiled forms, the slow evaluator and cel-cpp agree on what expressions mean, beyond what test_oracle draws.

Of each expression and subject: the truth form says yes exactly when cel-cpp says true, its negation exactly when
cel-cpp says false; the value form and the slow evaluator give cel-cpp's value, or fail where it fails.
"""

from __future__ import annotations

import linecache
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.expr import cel, ops
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.compile import event_filter, truth_function, value_function
from arbiter.expr.evaluate import evaluate, judge
from arbiter.expr.tree import AnyNode, Expression
from arbiter.expr.view import Symbols, View

SCOPE = Scope(roots={"profile": None, "context": None, "features": {}, "segments": {}})
NOW = datetime(2026, 6, 1, 12, 30, 15, 250_000, tzinfo=UTC)
CLOCK = 1_780_317_015_250_000
ORACLE = cel.Environment({"profile": "dyn", "context": "dyn", "now": "timestamp"})
FAILED = object()

PEOPLE: list[dict[str, Any]] = [
    {},
    {"i": 7, "j": 2, "x": 2.5, "s": "Ann Lee", "l": [1, 2, 3], "m": {"k": "v", "n": {"deep": 1}}, "b": True},
    {"i": -7, "j": 0, "x": -0.5, "s": "", "l": [], "m": {}, "b": False},
    {"i": 2**63 - 1, "j": -1, "x": 1e300, "s": "ÄÖü\n", "l": ["a", 1, 1.0, True], "m": {"n": 3}, "b": "no"},
    {"i": 2.0, "j": "2", "x": 3, "s": 5, "l": [[1], [2, 3], []], "m": [1], "b": 1},
    {"i": True, "s": b"Ann", "l": [{"k": 1}, {"k": 2}, {"z": 3}], "m": {"k": [1, 2]}},
]

SOURCES = """
math.greatest(profile.i, profile.j) == 7
math.least(1, 2, 3) == 1
math.abs(profile.i) == 7
math.ceil(double(profile.x)) == 3.0 || math.floor(double(profile.x)) == -1.0
math.round(2.5) == 3.0
profile.s.lowerAscii() == "ann lee"
profile.s.upperAscii() == "ANN LEE"
profile.s.split(" ").size() == 2
profile.s.split(" ")[1] == "Lee"
profile.s.replace("Ann", "Bob") == "Bob Lee"
profile.s.substring(0, 3) == "Ann"
profile.s.indexOf("L") == 4
profile.s.charAt(0) == "A"
profile.s.trim() == profile.s
["a", "b"].join("-") == "a-b"
profile.s.matches("^A.*e$")
profile.s.size() == 7 || size(profile.s) == 4
size(profile.l) == 3
size(profile.m) == 2
string(profile.i) == "7"
string(profile.x) == "2.5"
int(profile.x) == 2
double(profile.i) == 7.0
int("12") == 12
bool("true")
double("x") == 1.0
type(profile.i) == type(1)
timestamp("2026-01-01T00:00:00Z").getFullYear() == 2026
now.getFullYear() == 2026 && now.getMonth() == 5 && now.getDate() == 1 && now.getDayOfMonth() == 0
now.getDayOfWeek() == 1 && now.getDayOfYear() == 151
now.getHours() == 12 && now.getMinutes() == 30 && now.getSeconds() == 15 && now.getMilliseconds() == 250
now.getHours("Europe/Berlin") == 14
now.getHours("Nowhere/Town") == 14
now - timestamp("2026-06-01T00:00:00Z") > duration("12h")
now + duration("1h") > now
duration("90m").getHours() == 1
duration("1h") + duration("30m") == duration("90m")
duration("1h") < duration("61m")
timestamp("2026-06-01T12:30:15.25Z") == now
has(profile.m.n.deep)
has(profile.m.n)
has(profile.m.n.deep.er)
!has(profile.m.k)
has(profile.m) && has(profile.m.k) && profile.m.k == "v"
profile.m.n.deep == 1
profile.m["n"]["deep"] == 1
"k" in profile.m
profile.m == {"k": "v", "n": {"deep": 1}}
{"a": 1, "b": [profile.i]}.b[0] == 7
{"a": 1}.a == 1
{1: "x"}[1] == "x"
{profile.s: 1}.size() == 1
{profile.i: 1, 7: 2}.size() == 2
{"a": 1, "a": 2}.size() == 1
{1.5: 2}.size() == 1
profile.l == [1, 2, 3]
profile.l == [1.0, 2, 3]
profile.l != []
profile.l + [4] == [1, 2, 3, 4]
profile.l[profile.j] == 3
profile.l[0] == 1 || profile.l[5] == 1
profile.l.exists(x, x == 2)
profile.l.exists(x, x > 2)
profile.l.all(x, x > 0)
profile.l.exists_one(x, x == 1)
profile.l.map(x, x * 2) == [2, 4, 6]
profile.l.map(x, x > 1, x * 2) == [4, 6]
profile.l.map(x, x > 1, x) == [2, 3]
profile.l.filter(x, x > 1) == [2, 3]
profile.l.filter(x, x > 1).map(x, x + 1).exists(x, x == 4)
profile.l.exists(x, profile.l.exists(y, x < y && y == 3))
profile.l.exists(x, profile.l.exists(x, x == 3) && x == 1)
[1, 2].map(x, [3, 4].map(x, x + 1).size() + x) == [3, 4]
[1, 2].map(x, [x].map(x, x + 1)[0]) == [2, 3]
[[1, 2], [3]].all(x, x.exists(y, y > 0))
profile.l.exists(x, x.size() == 2)
profile.l.exists(x, has(x.k) && x.k == 2)
profile.l.exists(x, x.k == 1)
profile.l.all(x, x.k == 1)
profile.l.exists(profile, profile == 2)
profile.l.map(now, now) == profile.l
profile.m.exists(k, k == "k")
profile.m.all(k, k in ["k", "n"])
profile.m.exists(k, profile.m[k] == "v")
profile.b ? profile.i == 7 : profile.j == 0
!(profile.b ? profile.i == 7 : profile.j == 0)
(profile.b ? profile.i : profile.j) == 7
profile.i > 0 ? (profile.j > 0 ? true : false) : profile.x < 0.0
profile.b && (profile.i > 1 || profile.j > 1)
(profile.b && profile.i > 1) == true
(profile.b || profile.i > 1) == (profile.j == 0)
[profile.b && profile.i > 1, true].exists(x, x)
!profile.b == true
profile.i / profile.j == 3
profile.i % profile.j == 1
-profile.i == 7
profile.i - profile.i == 0
profile.i * profile.i == 49
profile.i + profile.i > 0
profile.s + "!" == "Ann Lee!"
profile.s < "B"
profile.s.contains("nn") && profile.s.startsWith("A") && profile.s.endsWith("e")
profile.x >= profile.i || profile.x < profile.i
profile.i == profile.x
profile.i in [7.0, "x"]
profile.x in profile.l
profile.s in ["", "Ann Lee"]
!(profile.i in profile.l)
profile.b == true
profile.b != false
dyn(profile.i) == 7
b"a" + b"b" == b"ab"
b"a" < b"b"
bytes("a") == b"a"
false < true
[1, 2] == [1, 2, 3]
"a" in {"a": 1}
'it"s' == "it\\"s"
r"\\d" == "\\\\d"
"\\u00e9" == "é"
-9223372036854775808 < profile.i
1.5e3 == 1500.0
0x1F == 31
""".strip().splitlines()


def tree_of(source: str) -> AnyNode:
    checked = read_expression(source, SCOPE)
    assert checked.root is not None, (source, checked.mistakes)
    return checked.root


def by_cel(source: str, profile: dict[str, Any]) -> Any:
    try:
        return ORACLE.program(source).evaluate({"profile": profile, "context": {}, "now": NOW})
    except cel.CelFailure:
        return FAILED


def compare(source: str, profile: dict[str, Any]) -> None:
    root = tree_of(source)
    view = View(profile, {}, {}, CLOCK)
    expected = by_cel(source, profile)
    try:
        slow = evaluate(root, view, Symbols())
    except ops.Unknown:
        slow = FAILED
    try:
        fast = value_function(root, Symbols(), "case")(view)
    except ops.FAILURES:
        fast = FAILED
    assert (slow, type(slow)) == (expected, type(expected))
    assert (fast, type(fast)) == (expected, type(expected))
    truth = expected if isinstance(expected, bool) else None
    assert judge(root, view, Symbols()).value is truth
    assert truth_function([(root, True)], Symbols(), "case")(view) is (truth is True)
    assert truth_function([(root, False)], Symbols(), "case")(view) is (truth is False)


@pytest.mark.parametrize("source", SOURCES)
def test_an_expression_means_what_cel_cpp_says(source: str) -> None:
    for profile in PEOPLE:
        compare(source, profile)


lists = st.lists(st.one_of(st.integers(-2, 3), st.sampled_from(["a", True])), max_size=3)
profiles = st.fixed_dictionaries(
    {}, optional={"l": lists, "k": st.lists(lists, max_size=2), "i": st.integers(-2, 3), "b": st.booleans()}
)


def folds(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    over = st.sampled_from(["profile.l", "profile.k", "[1, 2]", "x", "y", "profile.l.filter(y, y != 2)"])
    kind = st.sampled_from(["exists", "all", "exists_one"])
    return st.one_of(
        st.builds("{}.{}({}, {})".format, over, kind, st.sampled_from(["x", "y"]), inner),
        st.builds("{}.filter({}, {}).size() > 0".format, over, st.sampled_from(["x", "y"]), inner),
        st.builds("{}.map({}, {}) == [true]".format, over, st.sampled_from(["x", "y"]), inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("(!{})".format, inner),
        st.builds("(({}) == profile.b)".format, inner),
    )


leaves = st.sampled_from(
    ["x == 1", "x < y", "profile.i > x", "profile.b", "x in y", "y == [1]", "size(x) > 0", "true", "profile.i == 2"]
)
bodies = st.recursive(leaves, folds, max_leaves=5)


@settings(max_examples=250, derandomize=True, suppress_health_check=list(HealthCheck))
@given(bodies, st.lists(profiles, min_size=4, max_size=4))
def test_nested_folds_and_shadowed_variables(body: str, people: list[dict[str, Any]]) -> None:
    source = f"[1, 2].exists(x, [[1], 2].exists(y, {body}))"
    if read_expression(source, SCOPE).root is None:
        return
    for profile in people:
        compare(source, profile)


def test_a_segment_is_its_condition_in_every_form() -> None:
    symbols = Symbols(segments={"a": tree_of("profile.i > 1"), "b": tree_of("!profile.b || profile.i == 0")})
    scope = Scope(roots={**SCOPE.roots, "segments": {"a": "bool", "b": "bool"}})
    for source, twin in [
        ("segments.a", "profile.i > 1"),
        ("!segments.a && segments.b", "!(profile.i > 1) && (!profile.b || profile.i == 0)"),
        ("segments.a == segments.b", "(profile.i > 1) == (!profile.b || profile.i == 0)"),
        ("[1].all(x, segments.a)", "[1].all(x, profile.i > 1)"),
        ("segments.a ? segments.b : segments.a", "(profile.i > 1) ? (!profile.b || profile.i == 0) : (profile.i > 1)"),
    ]:
        root = read_expression(source, scope).root
        assert root is not None
        for profile in PEOPLE:
            view = View(profile, {}, {}, CLOCK)
            expected = judge(tree_of(twin), view, Symbols()).value
            assert judge(root, view, symbols).value is expected
            assert truth_function([(root, True)], symbols, "case")(view) is (expected is True)
            assert truth_function([(root, False)], symbols, "case")(view) is (expected is False)


def test_what_decided_is_named_with_its_values() -> None:
    view = View({"age": 17, "country": "US"}, {}, {}, CLOCK)
    for source, text, values, missing in [
        ("profile.age >= 18 && profile.country == 'US'", "profile.age >= 18", {"profile.age": 17}, ()),
        ("profile.gone > 1 && profile.age > 17", "profile.age > 17", {"profile.age": 17}, ()),
        ("profile.gone > 1 && profile.age > 1", "profile.gone > 1", {}, ("profile.gone",)),
        ("profile.gone > profile.age", "profile.gone > profile.age", {"profile.age": 17}, ("profile.gone",)),
        ("!(profile.age == 17 || profile.gone)", "profile.age == 17", {"profile.age": 17}, ()),
    ]:
        verdict = judge(tree_of(source), view, Symbols())
        assert (source[slice(*verdict.span)], verdict.values, verdict.missing) == (text, values, missing)


def test_arithmetic_stays_inside_64_bits_and_times_inside_the_calendar() -> None:
    view = View({"i": 2**63 - 1, "m": -(2**63), "t": datetime(9999, 12, 31, tzinfo=UTC)}, {}, {}, CLOCK)
    for source in [
        "profile.i + 1",
        "profile.m - 1",
        "profile.i * 2",
        "-profile.m",
        "profile.m / -1",
        "profile.i % 0",
        "profile.t + duration('48h')",
        "profile.t - profile.i",
    ]:
        root = tree_of(source)
        with pytest.raises(ops.Unknown):
            evaluate(root, view, Symbols())
        with pytest.raises(ops.FAILURES):
            value_function(root, Symbols(), "case")(view)
    assert evaluate(tree_of("profile.t - timestamp('9999-12-30T00:00:00Z')"), view, Symbols()) == timedelta(days=1)


def test_whole_numbers_may_stand_where_cel_cpp_takes_only_doubles() -> None:
    view = View({"i": 3, "x": 2.5, "b": True}, {}, {}, CLOCK)
    for source, twin in [
        ("math.floor(profile.i) == 3", "math.floor(3.0) == 3"),
        ("math.ceil(profile.i + profile.x) == 6", "math.ceil(5.5) == 6"),
        ("math.round(3) == 3", "math.round(3.0) == 3"),
        ("!math.isNaN(profile.i)", "!math.isNaN(3.0)"),
        ("(profile.b ? 1 : 2.5) == 1", "(true ? 1.0 : 2.5) == 1"),
        ("math.greatest(profile.i, 2.5) == 3", "math.greatest(3.0, 2.5) == 3"),
    ]:
        assert ORACLE.program(twin).evaluate({}) is True
        assert judge(tree_of(source), view, Symbols()).value is True
        assert truth_function([(tree_of(source), True)], Symbols(), "case")(view)


def test_generated_code_shows_in_tracebacks() -> None:
    function = value_function(tree_of("1 / profile.i"), Symbols(), "value of some-rule")
    with pytest.raises(KeyError) as caught:
        function(View({}, {}, {}, 0))
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert "some-rule" in frame.filename
    assert "v.profile['i']" in linecache.getline(frame.filename, frame.lineno or 0)


def test_a_where_of_a_feature_is_true_or_not() -> None:
    scope = Scope(roots={"event": None})
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("event.amount > 10", {"amount": 11}, True),
        ("event.amount > 10", {"amount": "11"}, False),
        ("event.amount > 10", {}, False),
        ("!(event.amount > 10)", {}, False),
        ("has(event.amount) && event.kind in ['a', 'b']", {"amount": 1, "kind": "a"}, True),
        ("event.tags.exists(t, t == 'x')", {"tags": ["y", "x"]}, True),
    ]
    for source, properties, expected in cases:
        checked = read_expression(source, scope, expect="bool")
        assert checked.root is not None, checked.mistakes
        accepts = event_filter(Expression(source, checked.root, checked.type, "a.yaml:1:1", checked.names))
        assert accepts is not None
        assert accepts(properties) is expected, source
    assert event_filter(None) is None
