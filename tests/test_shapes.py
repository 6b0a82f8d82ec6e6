"""Expressions that differ in their literals share one reading: each must be read as it would be alone."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.expr.check import Checked, Scope, read_expression
from arbiter.expr.scope import environments_of
from arbiter.expr.shapes import cut
from arbiter.expr.tree import Call

SHARED_AT_LEAST = 300
TYPED = Scope(
    roots={
        "profile": {"n": "int", "d": "double", "s": "string", "t": "timestamp", "l": "list", "b": "bool", "m": "map"},
        "context": None,
        "features": {},
        "segments": {"seg": "bool"},
    },
    models={"m": {"p": "double"}},
)

numbers = st.one_of(
    st.integers(0, 10**16).map(str),
    st.floats(0, 1e16).map("{:.3f}".format),
    st.sampled_from(
        ["0", "0.0", "7", "007", "1.50", "1e3", ".5", "5.", "0x1F", "5u", "9223372036854775808", "1" * 400]
    ),
)
texts = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list("aZ09 _.,;:()[]{}\"'\\/-é🙂\n#%$"))),
    max_size=8,
)
strings = st.one_of(
    texts.map('"{}"'.format),
    texts.map("'{}'".format),
    st.sampled_from(
        [
            '""',
            "''",
            '"a"',
            "'bc'",
            '"""x"""',
            'r"x"',
            'b"x"',
            '"2026-01-01T00:00:00Z"',
            '"36h"',
            '"^a+$"',
            '"("',
            '"//"',
        ]
    ),
)
ints = st.integers(0, 10**9).map(str)
doubles = st.floats(0, 1e6).map("{:.2f}".format)
words = st.text("aZ09 _.,;:/-é🙂", max_size=6).map('"{}"'.format)
KINDS = [ints, ints, doubles, words, words, numbers, strings]
names = st.sampled_from(["context.x"] * 8 + [f"profile.{n}" for n in "ndstlbm"] + ["now", "models.m.p", "profile.typo"])
FRAMES = (
    "{n} > {l}", "{n}=={l}", "{l} <= {n}", "{n} in [{l}, {l}]", "{n} == -{l}", "{n} > - {l}", "!({n} == {l})",
    "{n} + {l} * {l} >= {l}", "{n} == --{l}", "({l}) == {n}", "{n}.startsWith({l})", "{n}.endsWith( {l} ) && {n} < {l}",
    "{l} in {n}", "size({n}) > {l}", "{n}.size() == {l} || {l}.size() == {n}", "{n}[{l}] == {l}", "{n} ? {l} : {l}",
    "has({n}) && {n} != {l}", "{n}.x.y == {l}", "({n} + {l}).z == {l}", "{l}.contains({l})", "[{l}, [{l}]] == {n}",
    "now < timestamp({l})", "now - {n} > duration({l})", "{n}.matches({l})", "{n}.exists(x, x == {l})",
    "{n}.filter(x, x > {l}).size() > {l}", "{{{l}: {l}}} == {n}", "math.greatest({l}, {n}) > {l}", "{n} > {l} // {l}",
    "{n} > {l}\n  && {n} < {l}", "{n} in [{l},\n {l}] // it's", "string({l}) == {l}", "{l}", "-{l}", "{n} % {l} == {l}",
    "{n} == {l} {l}", "{n} {l}", "{n} > {l} and {n}", "foo({l})", "size({l}, {l})", "segments.seg == {l}",
    "{n} == null", "{n}/{l}", "{l}.foo", "{l} [ {l} ]", "({l}).size()", "{n}.{l}", "true == {l} || false",
    "{n} == {l}u",
)  # fmt: skip
SOUND = 16  # so many of them are mostly right
EXPECTED = st.sampled_from(["", "", "", "bool", "number"])

shared: Counter[str] = Counter()


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Expressions of one frame with other literals, some of them with a slip."""
    frame = draw(st.sampled_from(FRAMES[: draw(st.sampled_from([SOUND, len(FRAMES)]))]))
    if draw(st.integers(0, 3)) == 3:
        frame += " && " + draw(st.sampled_from(FRAMES))
    named = {"n": draw(names)}
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(frame.count("{l}"))]
    found = []
    for _ in range(4):
        filled = frame.replace("{l}", "{}").format(*(draw(kind) for kind in kinds), n=named["n"])
        if draw(st.integers(0, 19)) == 19:
            at = draw(st.integers(0, len(filled)))
            filled = filled[:at] + draw(st.sampled_from(["", '"', "(", " ", "-", "x", "//", "\\"])) + filled[at + 1 :]
        found.append(filled)
    return found


def alone(source: str, expect: str) -> Checked:
    """What an expression comes to when nothing was read before it."""
    environments = environments_of(TYPED)
    environments.known.clear()
    environments.shapes.clear()
    return read_expression(source, TYPED, expect=expect)


@settings(max_examples=700, derandomize=True, suppress_health_check=list(HealthCheck))
@given(families(), EXPECTED)
def check_a_family(sources: list[str], expect: str) -> None:
    expected = [alone(source, expect) for source in sources]
    environments = environments_of(TYPED)
    environments.known.clear()
    environments.shapes.clear()
    for source, checked in zip(sources, expected, strict=True):
        shaped = cut(source)
        shared["shapes"] += shaped is not None and (expect, *shaped.key) in environments.shapes
        again = read_expression(source, TYPED, expect=expect)
        # Encoded, since Python holds 1, 1.0 and True equal.
        assert msgspec.msgpack.encode(again) == msgspec.msgpack.encode(checked), (source, sources)


def test_sharing_a_shape_changes_nothing() -> None:
    shared.clear()
    check_a_family()
    assert shared["shapes"] >= SHARED_AT_LEAST


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("profile.d > 1", "profile.d > 1.0"),
        ('profile.s == "a"', 'profile.s == "(("'),
        ('profile.s == "a"', r'profile.s == "\""'),
        ('profile.t > timestamp("2026-01-01T00:00:00Z")', 'profile.t > timestamp("soon")'),
        ('profile.s.matches("a")', 'profile.s.matches("*")'),
        ("profile.d > -1", "profile.d > - 1"),
        ('profile.s == "a" // "b"', 'profile.s == "a" // "b'),
    ],
)
def test_what_may_not_be_shared_is_read_by_itself(first: str, second: str) -> None:
    expected = alone(second, "bool")
    alone(first, "bool")
    assert msgspec.msgpack.encode(read_expression(second, TYPED, expect="bool")) == msgspec.msgpack.encode(expected)


def test_equal_shapes_share_what_stands_before_the_first_literal() -> None:
    first, second = (read_expression(f"profile.d > {n}", TYPED).root for n in (1, 2))
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert first.args[0] is second.args[0]
