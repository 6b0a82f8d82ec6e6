"""The index, the compiled forms and the slow evaluator against cel-cpp, rule by rule and in order.

cel-cpp evaluates every condition of every rule on its own; whatever it finds true, sorted by priority and id, is what
the decision core must deliver, in that order. What it answers with an error is unknown to us.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr import cel
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.compile import truth_function
from arbiter.expr.evaluate import judge
from arbiter.expr.tree import Expression
from arbiter.expr.view import Symbols, View
from arbiter.ruleset.image import Maker
from arbiter.ruleset.reads import reads_by_name
from arbiter.ruleset.rules import DecisionPoint, Effect, Feature, Rule, Ruleset, Segment
from arbiter.ruleset.segments import managed_segment
from arbiter.ruleset.terms import Plain
from arbiter.snapshot import Snapshot
from arbiter.types import ExplainLevel, Reason

EXAMPLES = 300
SUBJECTS = 10
COMPARISONS_AT_LEAST = 20_000

# What is stored of these features, and so is what time makes of it: another each.
DAY = 86_400_000_000
FEATURES = (
    Feature("heat", "decay", "e", "x", None, None, 0, "HEAT", "double", half_life=7 * DAY),
    Feature("part", "last", "e", "x", None, None, 0, "PART", "dyn"),
    Feature("rate", "ratio", "", "", None, None, 0, "RATE", "double", of=("seen", "heat"), parts=("SEEN", "HEAT")),
    Feature("seen", "since", "e", "", None, None, DAY, "SEEN", "double"),
)
READS = reads_by_name(FEATURES)
SCOPE = Scope(
    roots={
        "profile": None,
        "account": None,
        "context": None,
        "features": {feature.name: feature.type for feature in FEATURES},
        "segments": {"seg": "bool", "vip": "bool", "old": "bool"},
    }
)
TIME = datetime(2026, 1, 1, tzinfo=UTC)
# Times are variables of their own to the oracle, since cel-cpp's Python face takes none inside a map.
TIMES = {"profile.t1": "t1", "context.t2": "t2"}
ORACLE = cel.Environment(
    dict.fromkeys(("profile", "account", "context", "features", "segments"), "dyn")
    | dict.fromkeys(("now", "t1", "t2"), "timestamp")
)
NOW = 1767225600_000_000
HELD = tuple(managed_segment(name, "case:1:1") for name in ("old", "vip"))

names = st.sampled_from(["profile.a", "profile.b", "profile.c", "context.d", "profile.e", "account.f"])
strings = st.sampled_from(["", "a", "b", "ab", "US", "é", "zz"])
numbers = st.one_of(
    st.integers(-3, 4),
    st.sampled_from([0.0, 0.5, -1.5, 2.0, 3.0, 1e300, 2.0**53, 2**53 + 1, -(2**62)]),
)
scalars = st.one_of(strings, numbers, st.booleans())
values = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(st.sampled_from(["k", "a"]), scalars, max_size=2)
)
ints = st.one_of(st.integers(-3, 4), st.sampled_from([2**63 - 1, -(2**63), "1"]))
doubles = st.one_of(st.floats(-5, 5), st.just("a"))
times = st.integers(-3, 3).map(lambda d: TIME + timedelta(days=d))


def written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, datetime):
        return f'timestamp("{value.isoformat()}")'
    return repr(value)


literals = st.builds(
    "{} {} {}".format, names, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), scalars.map(written)
)
computed = st.one_of(
    st.builds(
        "features.{} {} {}".format,
        st.sampled_from(sorted(READS)),
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        st.sampled_from(["0.0", "0.5", "1.0", "2.0", "4", "-1"]),
    ),
    st.sampled_from(
        [
            "has(features.heat)", "!has(features.rate)", "has(features.seen)", "features.rate * 2.0 > features.heat",
            "features.heat + 1.0 < features.seen", "features.rate == features.part", '"a" == features.rate',
            "features.heat in [1.0, 2.0]", "features.rate > 0.0 ? features.heat > 1.0 : features.seen > 1.0",
            "features.part / 2.0 < features.rate", "!(features.rate in [0.5])", "[features.heat].exists(h, h > 0.5)",
        ]
    ),
)  # fmt: skip
flipped = st.builds("{} {} {}".format, scalars.map(written), st.sampled_from(["==", "<", ">="]), names)
members = st.builds("{} in [{}]".format, names, st.lists(scalars.map(written), max_size=4).map(", ".join))
timed = st.builds(
    "{} {} {}".format,
    st.sampled_from(["profile.t1", "context.t2", "now"]),
    st.sampled_from(["<", ">=", "=="]),
    times.map(written),
)
relative = st.builds('profile.t1 + duration("{}h") > now'.format, st.integers(-50, 50))
residual = st.sampled_from(
    [
        "profile.i + 1 > 2", "profile.x * 2.0 < 3.0", "size(profile.a) > 1", 'profile.a.startsWith("a")',
        'profile.e.exists(x, x == "a")', "profile.e.all(x, x != 2)", "profile.e.filter(x, x == 1).size() > 0",
        'profile.e.exists_one(x, x == "US")', "profile.e[0] == 1", 'profile.e.k == "a"', '"a" in profile.e',
        "profile.a == profile.b", "profile.a < profile.b", "profile.c ? profile.a > 1 : profile.b > 1",
        'profile.a.matches("^a+b?$")', "profile.i % 2 == 1", "profile.i / profile.j == 1", "-profile.a > 0",
        "profile.e.map(x, [x]) == [[1]]", 'string(profile.a) == "1"', "int(profile.b) == 2", "profile.c",
        "[1, 2].exists(i, i == profile.a)", 'profile.e == ["a", "b"]', "profile.i - profile.j > profile.x",
        "profile.x / 2.0 <= profile.i",
        "has(account.f)", "account.f == profile.a", "account.f < profile.b",
        "segments.vip", "segments.old", "!segments.vip", "segments.old == segments.vip", "segments.vip != profile.c",
        "has(profile.a)", "has(context.d)", "!has(profile.e)", "has(profile.e.k)", "true", "false",
    ]
)  # fmt: skip
expressions = st.recursive(
    st.one_of(literals, literals, flipped, members, timed, relative, residual, computed),
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=5,
)
ages = st.integers(-3, 4).map(lambda days: NOW - days * DAY)
moments = st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, -4.0, 3.3]), st.integers(0, 21).map(lambda d: NOW - d * DAY))
subjects = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("profile.a", "profile.b", "profile.c", "context.d", "profile.e", "account.f"), values)
    | {"profile.t1": times, "context.t2": times}
    # Arithmetic that mixes ints and doubles is ours alone, see RULES; these names do not mix.
    | {"profile.i": ints, "profile.j": ints, "profile.x": doubles}
    | {"features.heat": moments, "features.seen": ages, "features.part": doubles}
    | {"features.rate": st.tuples(ages, moments)}
    | {"managed.vip": st.just(True), "managed.old": st.just(True)},
)
rule_sets = st.lists(st.tuples(st.lists(expressions, max_size=3), st.integers(0, 2)), min_size=1, max_size=8)

compared: Counter[str] = Counter()


def parsed(source: str) -> Expression:
    checked = read_expression(source, SCOPE)
    assert checked.root is not None, checked.mistakes
    return Expression(source, checked.root, checked.type, "case:1:1", checked.names)


def program(source: str) -> cel.Program:
    for dotted, variable in TIMES.items():
        source = source.replace(dotted, variable)
    return ORACLE.program(source)


def by_oracle(program: cel.Program, subject: dict[str, Any]) -> bool | None:
    data: dict[str, Any] = {"profile": {}, "account": {}, "context": {}, "features": {}, "now": TIME}
    data["segments"] = {segment.name: f"managed.{segment.name}" in subject for segment in HELD}
    for dotted, value in subject.items():
        root, _, name = dotted.partition(".")
        if dotted in TIMES:
            data[TIMES[dotted]] = value
        elif root == "features":
            # By its definition, and so not by `FeatureRead`: what is worth nothing has no value.
            made = defined(name, value)
            data[root] |= {} if made is None else {name: made}
        elif root != "managed":
            data[root][name] = value
    try:
        value = program.evaluate(data)
    except cel.CelFailure:
        return None
    return value if isinstance(value, bool) else None


def defined(name: str, stored: Any) -> Any:
    """The value of a feature, written out."""
    match name:
        case "heat":
            return float(stored[0] * 2.0 ** (-((NOW - stored[1]) / (7 * DAY))))
        case "seen":
            return float((NOW - stored) / DAY)
        case "rate":
            heat = defined("heat", stored[1])
            return float((NOW - stored[0]) / DAY / heat) if heat else None
    return stored


def view_of(subject: dict[str, Any]) -> View:
    parts: dict[str, dict[str, Any]] = {"profile": {}, "account": {}, "context": {}, "features": {}, "managed": {}}
    for dotted, value in subject.items():
        root, _, name = dotted.partition(".")
        parts[root][READS[name].key if root == "features" else name] = value
    view = View(parts["profile"], parts["context"], parts["features"], NOW, parts["account"])
    view.managed = parts["managed"]
    return view


def checkable(source: str) -> bool:
    """Expressions that our checker refuses for their types (`"a" < 1` of two constants, say) are no rules."""
    return read_expression(source, SCOPE).root is not None


def test_decisions_equal_those_of_cel_cpp_rule_by_rule() -> None:
    compared.clear()
    check_a_rule_set()
    assert sum(compared.values()) >= COMPARISONS_AT_LEAST


@settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_sets, st.lists(subjects, min_size=SUBJECTS, max_size=SUBJECTS), expressions.filter(checkable))
def check_a_rule_set(drawn: list[tuple[list[str], int]], people: list[dict[str, Any]], segment: str) -> None:
    segments = (*HELD, Segment("seg", parsed(segment)))
    symbols = Symbols(READS, {each.name: each.condition.root for each in segments})
    rules = []
    for number, (conditions, priority) in enumerate(drawn):
        kept = [c for c in conditions if checkable(c)] + (["segments.seg"] if number == 0 else [])
        effect = Effect("act", {"n": Plain(number)})
        rules.append(Rule(f"r{number}", "d", priority, tuple(map(parsed, kept)), effect, position=f"r:{number}:1"))
    declared = (DecisionPoint("d", max(len(rules), 1), ("priority",), None),)
    whole = Ruleset(declared, tuple(rules), segments, FEATURES)
    point = Snapshot(whole, {}, Maker(most=1 + len(segment) % 3)).points["d"]
    programs = {
        rule.id: [program(segment if e.source == "segments.seg" else e.source) for e in rule.when] for rule in rules
    }
    for subject in people:
        view = view_of(subject)
        truths = {rule.id: [by_oracle(p, subject) for p in programs[rule.id]] for rule in rules}
        for rule in rules:
            for expression, expected in zip(rule.when, truths[rule.id], strict=True):
                assert judge(expression.root, view, symbols).value is expected, (expression.source, subject)
                compared["conditions"] += 1
        matching = [r for r in rules if all(t is True for t in truths[r.id])]
        expected_order = [r.id for r in sorted(matching, key=lambda r: (-r.priority, r.id))]
        decision = Walk(point, view, "someone").advance()
        assert not isinstance(decision, Need)
        assert [t.rule_id for t in decision.treatments] == expected_order, subject
        compared["rules"] += len(rules)
        explained = explain(point, view, "someone", 0, (), dict, ExplainLevel.ALL)
        assert [o.rule_id for o in explained if o.reason is Reason.WON] == expected_order
        assert sorted(o.rule_id for o in explained) == sorted(r.id for r in rules)
        for outcome in explained:
            states = truths[outcome.rule_id]
            if outcome.reason is Reason.FAILED:
                assert False in states
            if outcome.reason is Reason.UNKNOWN:
                assert None in states
                assert False not in states


def test_arithmetic_promotes_ints_to_doubles_where_cel_cpp_refuses() -> None:
    view = View({"i": 3, "x": 0.5}, {}, {}, 0)
    for source, twin in [
        ("profile.i * profile.x == 1.5", "3.0 * 0.5 == 1.5"),
        ("profile.x + 1 > 1", "0.5 + 1.0 > 1.0"),
        ("1 - profile.x < profile.i / 2.0", "1.0 - 0.5 < 3.0 / 2.0"),
    ]:
        assert ORACLE.program(twin).evaluate({}) is True
        assert judge(parsed(source).root, view, Symbols()).value is True
        assert truth_function([(parsed(source).root, True)], Symbols(), "case")(view)
