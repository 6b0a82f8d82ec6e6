"""Whatever stands in a table: diagnostics, or rules; never an exception, and never long."""

from __future__ import annotations

import csv
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbiter.ruleset.load import load_ruleset

RULES = b"""
schema: {profile: {text: string, number: int, open: bool, at: timestamp}}
actions: {a: {params: {n: {type: int, optional: true}}}}
decisions: {d: }
rules:
  - id: t
    decision: d
    hit_policy: %s
    table: t.csv
    inputs: {text: profile.text, number: profile.number, at: profile.at, any: context.any}
    outputs: {n: params.n, what: action, on: enabled, worth: value, from: active.from}
"""
HEADER = ["text", "number", "at", "any", "n", "what", "on", "worth", "from"]
PIECES = [
    "-", "free", '"', "'", ",", "..", "[", "]", "(", ")", "not(", "${", "}", "<", ">=", "!=", "=", "1", "-1", "2.5",
    "1e999", "9" * 30, "true", "null", "2026-11-01T00:00:00Z", "timestamp(", "b", "\\", " ", "\n", "é",
    "profile.number", "&&", "a", "%", "0x1f", "u", "[1..2)", "> 5", "\ufeff", "\u2028",
]  # fmt: skip
cells = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
policies = st.sampled_from([b"unique", b"first", b"any"])
quick = settings(max_examples=150, derandomize=True)


def load(policy: bytes, content: bytes) -> None:
    ruleset, found = load_ruleset({"r.yaml": RULES % policy, "t.csv": content}, {})
    assert (ruleset is None) == bool(found)
    for each in found:
        assert each.file in {"r.yaml", "t.csv"}
        lines = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert each.file == "r.yaml" or each.line <= len(lines) + 1
        assert each.render()


@quick
@given(policies, st.lists(st.lists(cells, min_size=9, max_size=9), min_size=1, max_size=4))
def test_whatever_stands_in_cells(policy: bytes, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows])
    load(policy, text.getvalue().encode())


@quick
@given(
    policies, st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=30).map(lambda p: "".join(p).encode())
)
@example(b"first", b'"')
@example(b"first", b"\r\r\n\n\r")
@example(b"first", b'text,number\r"a\r\n""b",2\r\n"')
def test_whatever_a_file_holds(policy: bytes, content: bytes) -> None:
    load(policy, content)
    load(policy, ",".join(HEADER).encode() + b"\n" + content)


def test_a_cell_that_a_pattern_could_stall_on_does_not() -> None:
    for hostile in (
        "(" * 5_000,
        "'" * 5_000,
        "[" + "a." * 4_000,
        ".." * 4_000,
        "not(" * 2_000,
        "a, " * 5_000,
        "1" * 9_000,
    ):
        text = io.StringIO()
        csv.writer(text).writerows([HEADER, [hostile, "-", "-", hostile, "1", "a", "true", "1", ""]])
        load(b"first", text.getvalue().encode())
