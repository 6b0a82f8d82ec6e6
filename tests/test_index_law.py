"""The index law: the bit of a literal is set for a value exactly when the literal is true of it.

The law is held against the operators themselves, value by value, over every kind of literal and value, and at the
edges: neighbours of doubles, ints past 2^53, strings around a NUL, times a microsecond apart, True beside 1 and 1.0.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbiter.expr import ops
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.view import FeatureRead, Symbols, View
from arbiter.ruleset.branches import Branch, Literal, branches_of
from arbiter.ruleset.index import Index

if TYPE_CHECKING:
    from arbiter.expr.tree import AnyNode

PATH = ("profile", "x")
DAY = 86_400_000_000
BIG = 2**52
TIME = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = {"lt": ops.lt, "le": ops.le, "gt": ops.gt, "ge": ops.ge}

near = st.sampled_from([0, 1, -1, 2, 7, BIG, -BIG])
numbers = st.one_of(
    near,
    near.map(float),
    near.map(lambda n: math.nextafter(n, math.inf)),
    near.map(lambda n: math.nextafter(n, -math.inf)),
    st.sampled_from([-0.0, 5e-324, -5e-324, 0.5, 1e300]),
)
texts = st.sampled_from(["", "\0", "a", "a\0", "a\0\0", "aa", "a!", "b", "é", "\U0010ffff"])
binaries = st.sampled_from([b"", b"\0", b"a", b"a\0", b"aa", b"\xff"])
times = st.integers(-2, 2).map(lambda n: TIME + timedelta(microseconds=n))
constants = st.one_of(st.booleans(), numbers, texts, binaries, times)
# A subject may hold what no literal in the index can: huge numbers, lists, maps.
huge = st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63), BIG + 1, -BIG - 1, float(BIG + 1), 1.7e308])
values = st.one_of(constants, huge, st.lists(constants, max_size=2), st.dictionaries(texts, constants, max_size=1))

literals = st.one_of(
    st.builds(
        lambda test, found: Literal(PATH, test, tuple(found)),
        st.sampled_from(["eq", "ne"]),
        st.lists(constants, max_size=3),
    ),
    st.builds(
        lambda test, constant: Literal(PATH, test, (constant,)),
        st.sampled_from(sorted(ORDERS)),
        constants.filter(lambda c: not isinstance(c, bool)),
    ),
    st.sampled_from([Literal(PATH, "has"), Literal(PATH, "absent")]),
)


def holds(literal: Literal, value: Any) -> bool:
    """Whether a literal is true of a value, by the operators; `...` stands for missing."""
    if value is ...:
        return literal.test == "absent"
    match literal.test:
        case "has":
            return True
        case "absent":
            return False
        case "eq":
            return any(ops.eq(value, each) for each in literal.values)
        case "ne":
            return not any(ops.eq(value, each) for each in literal.values)
    try:
        return ORDERS[literal.test](value, literal.values[0])
    except ops.Unknown:
        return False


def view_of(value: Any) -> View:
    return View({} if value is ... else {"x": value}, {}, {}, 0)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.lists(literals, max_size=3), min_size=1, max_size=6), st.lists(values, max_size=8))
@example([[Literal(PATH, "eq", (1,))], [Literal(PATH, "eq", (True,))]], [1, True, 1.0])
@example([[Literal(PATH, "le", ("a",))], [Literal(PATH, "gt", ("a",))]], ["a", "a\0", "b"])
@example([[Literal(PATH, "gt", (1,)), Literal(PATH, "le", (1,))]], [1, math.nextafter(1, 2)])
@example([[Literal(PATH, "le", (BIG,))], [Literal(PATH, "gt", (BIG,))]], [BIG, BIG + 1, 2**53, 2**53 + 1, 2**63 - 1])
def test_a_bit_is_set_exactly_when_all_its_literals_are_true(bits: list[list[Literal]], people: list[Any]) -> None:
    index = Index([Branch(tuple(branch), ()) for branch in bits], Symbols(), "law")
    for value in [..., *people]:
        mask = index.match(view_of(value))
        expected = [all(holds(literal, value) for literal in branch) for branch in bits]
        assert [bool(mask >> bit & 1) for bit in range(len(bits))] == expected, value
        assert mask >> len(bits) == 0


@given(st.lists(values, min_size=3, max_size=3), st.lists(st.lists(literals, max_size=2), min_size=3, max_size=3))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_masks_of_several_attributes_are_anded(person: list[Any], tests: list[list[Literal]]) -> None:
    paths = [("profile", "x"), ("context", "x"), ("features", "x")]
    literals_of = [
        tuple(Literal(path, lit.test, lit.values) for lit in part) for path, part in zip(paths, tests, strict=True)
    ]
    symbols = Symbols({"x": FeatureRead("KEY")})
    whole = Branch(tuple(lit for part in literals_of for lit in part), ())
    index = Index([whole, *(Branch(part, ()) for part in literals_of)], symbols, "several")
    view = View({"x": person[0]}, {"x": person[1]}, {"KEY": person[2]}, 0)
    each = [all(holds(lit, value) for lit in part) for value, part in zip(person, tests, strict=True)]
    mask = index.match(view)
    assert [bool(mask >> bit & 1) for bit in range(4)] == [all(each), *each]


def test_the_age_of_an_event_is_indexed_in_its_unit() -> None:
    path = ("features", "age")
    symbols = Symbols({"age": FeatureRead("KEY", DAY)})
    index = Index([Branch((Literal(path, "gt", (60,)),), ()), Branch((Literal(path, "absent"),), ())], symbols, "ages")
    now = 100 * DAY
    assert index.match(View({}, {}, {"KEY": now - 60 * DAY}, now)) == 0
    assert index.match(View({}, {}, {"KEY": now - 60 * DAY - 1}, now)) == 1
    assert index.match(View({}, {}, {}, now)) == 2


def test_a_literal_that_no_key_can_hold_exactly_stays_out_of_the_index() -> None:
    scope = Scope(roots={"profile": None, "context": None, "features": {}, "segments": {}})
    for source, indexed in [
        ("profile.x == 4503599627370496", True),
        ("profile.x == 4503599627370497", False),
        ("profile.x > 9007199254740993", False),
        ("profile.x < 1e300", False),
        ("profile.x in [1, 9007199254740993]", False),
        ("profile.x in [1, 2, 'a']", True),
        ("profile.x == duration('1h')", False),
        ("profile.x == timestamp('2026-01-01T00:00:00Z')", True),
        ("profile.x == profile.y", False),
        ("profile.x < true", False),
        ("profile.x == true", True),
        ("3 < profile.x", True),
    ]:
        checked = read_expression(source, scope)
        assert checked.root is not None, checked.mistakes
        (branch,) = branches_of([checked.root], Symbols())
        assert bool(branch.literals) is indexed, source
        assert bool(branch.checks) is not indexed, source


def test_many_rules_share_one_look_at_an_attribute() -> None:
    branches = [Branch((Literal(PATH, "gt", (n,)),), ()) for n in range(2000)]
    index = Index(branches, Symbols(), "many")
    assert len(index.attributes) == 1
    for value in (-1, 0, 0.5, 1, 1000, 1999.5, 5000):
        expected = sum(1 << n for n in range(2000) if value > n)
        assert index.match(view_of(value)) == expected


def test_segments_of_segments_are_written_out_once() -> None:
    scope = Scope(roots={"profile": None, "context": None, "features": {}, "segments": None})

    def tree(source: str) -> AnyNode:
        root = read_expression(source, scope).root
        assert root is not None
        return root

    doubling = {f"s{n}": tree(f"segments.s{n - 1} && segments.s{n - 1}") for n in range(1, 40)}
    symbols = Symbols(segments={"s0": tree("profile.x == 1 && profile.y + 1 > 1"), **doubling})
    (branch,) = branches_of([tree("segments.s39 && profile.x == true")], symbols)
    assert [(lit.test, lit.values) for lit in branch.literals] == [("eq", (1,)), ("eq", (True,))]
    assert len(branch.checks) == 1
