"""The index law: the bit of a literal is set for a value exactly when the literal is true of it, however many blocks.

The law is held against the operators themselves, value by value, over every kind of literal and value, and at the
edges: neighbours of doubles, ints past 2^53, strings around a NUL, times a microsecond apart, True beside 1 and 1.0.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbiter.expr import ops
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.reads import FeatureRead
from arbiter.expr.view import Symbols, View
from arbiter.ruleset.blocks import block_of
from arbiter.ruleset.branches import NOW, Literal, branches_of
from arbiter.ruleset.index import Index, open_block, open_index
from arbiter.snapshot import finished

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    st.builds(
        lambda test, constant: Literal(PATH, test, (constant,)), st.sampled_from(["contains", "lacks"]), constants
    ),
    st.sampled_from([Literal(PATH, "has"), Literal(PATH, "absent")]),
)


def index_of(branches: Sequence[Sequence[Literal]], symbols: Symbols = Symbols(), cuts: Sequence[int] = ()) -> Index:  # noqa: B008
    """The index of these branches, in blocks that end at `cuts`."""
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(branches)}), len(branches)]
    starts = [0, *ends]
    blocks = [finished(open_block(block_of(branches[start:end]))) for start, end in zip(starts, ends, strict=False)]
    return finished(open_index(blocks, symbols, "law"))


def survivors(index: Index, view: View) -> list[bool]:
    """Bit by bit through all blocks."""
    masks = dict(index.survivors(view))
    assert all(masks.values())
    found = []
    for number, block in enumerate(index.blocks):
        mask = masks.get(number, 0)
        assert mask >> block.size == 0
        found += [bool(mask >> bit & 1) for bit in range(block.size)]
    return found


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
        case "contains" | "lacks":
            if not isinstance(value, list | dict):
                return False
            return any(ops.eq(member, literal.values[0]) for member in value) is (literal.test == "contains")
    try:
        return ORDERS[literal.test](value, literal.values[0])
    except ops.Unknown:
        return False


def view_of(value: Any) -> View:
    return View({} if value is ... else {"x": value}, {}, {}, 0)


@settings(max_examples=600, derandomize=True)
@given(
    st.lists(st.lists(literals, max_size=3), min_size=1, max_size=6),
    st.lists(values, max_size=8),
    st.lists(st.integers(1, 5), max_size=3),
)
@example([[Literal(PATH, "eq", (1,))], [Literal(PATH, "eq", (True,))]], [1, True, 1.0], [1])
@example([[Literal(PATH, "le", ("a",))], [Literal(PATH, "gt", ("a",))]], ["a", "a\0", "b"], [])
@example([[Literal(PATH, "gt", (1,)), Literal(PATH, "le", (1,))]], [1, math.nextafter(1, 2)], [])
@example([[Literal(PATH, "le", (BIG,))], [Literal(PATH, "gt", (BIG,))]], [BIG, BIG + 1, 2**53, 2**53 + 1], [1])
@example([[Literal(PATH, "contains", ("a",)), Literal(PATH, "contains", ("b",))]], [["a"], ["b", "a"], ["b"]], [])
@example([[Literal(PATH, "contains", (1,))], [Literal(PATH, "lacks", (True,))]], [[1.0], [True], [[1]], []], [1])
def test_a_bit_is_set_exactly_when_all_its_literals_are_true(
    bits: list[list[Literal]], people: list[Any], cuts: list[int]
) -> None:
    index = index_of(bits, cuts=cuts)
    for value in [..., *people]:
        expected = [all(holds(literal, value) for literal in branch) for branch in bits]
        assert survivors(index, view_of(value)) == expected, value


@given(
    st.lists(values, min_size=4, max_size=4),
    st.lists(st.lists(literals, max_size=2), min_size=4, max_size=4),
    st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=100, derandomize=True)
def test_masks_of_several_attributes_are_anded(person: list[Any], tests: list[list[Literal]], cuts: list[int]) -> None:
    paths = [("profile", "x"), ("context", "x"), ("features", "x"), ("account", "x")]
    literals_of = [
        [Literal(path, lit.test, lit.values) for lit in part] for path, part in zip(paths, tests, strict=True)
    ]
    symbols = Symbols({"x": FeatureRead("KEY")})
    index = index_of([[lit for part in literals_of for lit in part], *literals_of], symbols, cuts)
    view = View({"x": person[0]}, {"x": person[1]}, {"KEY": person[2]}, 0, {"x": person[3]})
    each = [all(holds(lit, value) for lit in part) for value, part in zip(person, tests, strict=True)]
    assert survivors(index, view) == [all(each), *each]


def test_the_age_of_an_event_is_indexed_in_its_unit() -> None:
    path = ("features", "age")
    symbols = Symbols({"age": FeatureRead("KEY", DAY)})
    index = index_of([[Literal(path, "gt", (60,))], [Literal(path, "absent")]], symbols)
    now = 100 * DAY
    assert index.match(View({}, {}, {"KEY": now - 60 * DAY}, now)) == 0
    assert index.match(View({}, {}, {"KEY": now - 60 * DAY - 1}, now)) == 1
    assert index.match(View({}, {}, {}, now)) == 2


@given(
    st.sampled_from(["", "unit", "half_life", "of"]),
    st.one_of(st.none(), st.integers(-3, 40), st.floats(-3, 40)),
    st.lists(st.tuples(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne", "has", "absent"]), st.integers(-2, 20))),
    st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=200, derandomize=True)
def test_what_is_indexed_of_a_feature_is_its_value_however_it_is_stored(
    way: str, value: float | None, tests: list[tuple[str, int]], cuts: list[int]
) -> None:
    now = 100 * DAY
    decaying = FeatureRead("KEY", half_life=DAY)
    read = {
        "": FeatureRead("KEY"),
        "unit": FeatureRead("KEY", DAY),
        "half_life": decaying,
        "of": FeatureRead("KEY", of=(FeatureRead("N"), decaying)),
    }[way]
    path = ("features", "x")
    literals_of = [Literal(path, test, () if test in {"has", "absent"} else (number,)) for test, number in tests]
    index = index_of([[literal] for literal in literals_of], Symbols({"x": read}), cuts)
    stored = {} if value is None else {"KEY": read.stored(value, now)}
    seen = read.value(stored.get("KEY"), now)
    assert seen == value if way != "unit" or value is None else abs(seen - value) < 1e-9
    expected = [holds(literal, ... if seen is None else seen) for literal in literals_of]
    assert survivors(index, View({}, {}, stored, now)) == expected
    # An hour later all but the plain one have another value, of the same stored one.
    later = read.value(stored.get("KEY"), now + DAY // 24)
    expected = [holds(literal, ... if later is None else later) for literal in literals_of]
    assert survivors(index, View({}, {}, stored, now + DAY // 24)) == expected


def test_a_ratio_by_nothing_is_missing_from_the_index() -> None:
    read = FeatureRead("KEY", of=(FeatureRead("N"), FeatureRead("D", half_life=DAY)))
    path = ("features", "x")
    index = index_of([[Literal(path, "ge", (0,))], [Literal(path, "absent")]], Symbols({"x": read}))
    assert index.match(View({}, {}, {"KEY": [3, [0.0, 0]]}, DAY)) == 2
    assert index.match(View({}, {}, {"KEY": [3, [1.0, 0]]}, DAY)) == 1
    assert index.match(View({}, {}, {}, DAY)) == 2


def test_the_clock_is_indexed_to_the_microsecond() -> None:
    last = 253_402_300_799_999_998  # the last microsecond but one of the year 9999
    edges = (0, 1, 1_767_225_600_000_000, 2**53 + 1, last)
    tests = [Literal(NOW, test, (edge,)) for edge in edges for test in ("lt", "le", "gt", "ge", "eq", "ne")]
    for cuts in ((), (7, 20)):
        index = index_of([[each] for each in tests], cuts=cuts)
        for clock in sorted({max(0, edge + step) for edge in edges for step in (-1, 0, 1)}):
            order = {"lt": int.__lt__, "le": int.__le__, "gt": int.__gt__, "ge": int.__ge__}
            order |= {"eq": int.__eq__, "ne": int.__ne__}
            expected = [order[each.test](clock, each.values[0]) for each in tests]
            assert survivors(index, View({}, {}, {}, clock)) == expected, clock


@given(texts, st.lists(values, max_size=6), st.booleans())
@settings(max_examples=100, derandomize=True)
def test_a_prefix_is_a_range_of_strings(prefix: str, people: list[Any], wanted: bool) -> None:  # noqa: FBT001
    scope = Scope(roots={"profile": None, "context": None, "features": {}, "segments": {}})
    written = json.dumps(prefix, ensure_ascii=False) if prefix.isprintable() else '"\\u0000"'
    prefix = prefix if prefix.isprintable() else "\0"
    checked = read_expression(f"{'' if wanted else '!'}profile.x.startsWith({written})", scope)
    assert checked.root is not None, checked.mistakes
    branches = branches_of([checked.root], Symbols())
    assert all(branch.literals and not branch.checks for branch in branches)
    index = index_of([branch.literals for branch in branches])
    for value in [..., *people, prefix + "\U0010ffff", prefix[:-1] + "\ud7ff", prefix[:-1] + "\ue000"]:
        expected = isinstance(value, str) and value.startswith(prefix) is wanted
        assert any(survivors(index, view_of(value))) is expected, value


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
    branches = [[Literal(PATH, "gt", (n,))] for n in range(2000)]
    for cuts in ((), (700, 1400)):
        index = index_of(branches, cuts=cuts)
        assert len(index.attributes) == 1
        for value in (-1, 0, 0.5, 1, 1000, 1999.5, 5000):
            assert survivors(index, view_of(value)) == [value > n for n in range(2000)]


def test_rows_share_the_masks_of_blocks_that_they_do_not_tell_apart() -> None:
    branches = [[Literal(PATH, "gt", (n,))] for n in range(1000)]
    (attribute,) = index_of(branches, cuts=range(100, 1000, 100)).attributes
    rows = attribute.kinds[1].spans
    assert len(rows) == 1001
    assert len({id(mask) for row in rows for mask in row}) <= 1001 + 10  # type: ignore[union-attr]


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
