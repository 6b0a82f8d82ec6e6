"""CEL's public conformance tests, through cel-cpp and our two evaluators; the counts stand in docs/conformance.md.

Every case is answered as expected, or refused when a rule set is read, or stands in the page's list of differences.
The cases are data from outside: `CEL_CONFORMANCE` names their folder, else `shared/conformance/cel` beside the
repository is looked into.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from arbiter.expr import cel
from arbiter.expr.compile import value_function
from arbiter.expr.cost import CONTROL
from arbiter.expr.evaluate import evaluate
from arbiter.expr.functions import COSTLY, NATIVE
from arbiter.expr.ops import FAILURES, Unknown
from arbiter.expr.syntax import Unreadable, children, convert, walk, with_children
from arbiter.expr.tree import AnyNode, Call, Const, ListOf, MapOf, Name
from arbiter.expr.view import Symbols, View

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(os.environ.get("CEL_CONFORMANCE") or ROOT.parent / "shared" / "conformance" / "cel")
PAGE = ROOT / "docs" / "conformance.md"
ROW = re.compile(r"^\| \W*(\w+)\W* \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
REFUSED = re.compile(r"^\| ([a-z][^|]+) \| (\d+) \|$", re.MULTILINE)
DIFFERENCE = re.compile(r"^\| `(\w+)/([^`]+)` \|", re.MULTILINE)
ERROR = object()
EMPTY = View({}, {}, {}, 0)

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="CEL's conformance tests are not beside this checkout")


def plain(typed: dict[str, Any]) -> Any:
    """The Python value of a typed one; what no rule can hold (a type, a duration of nanoseconds) is its text."""
    ((kind, value),) = typed.items()
    match kind:
        case "int" | "uint":
            return int(value)
        case "double":
            return float(value)
        case "bytes":
            return base64.b64decode(value)
        case "list":
            return [plain(item) for item in value]
        case "map":
            return {plain(k): plain(v) for k, v in value}
    return value


def literal(typed: dict[str, Any]) -> AnyNode:
    """A bound value as the literal that an author could write in its place; raises Unreadable where there is none."""
    ((kind, value),) = typed.items()
    match kind:
        case "list":
            return ListOf(tuple(literal(item) for item in value))
        case "map":
            return MapOf(tuple((literal(k), literal(v)) for k, v in value))
        case "null" | "bool" | "string" | "int" | "double" | "bytes":
            return Const(kind, plain(typed))
    raise Unreadable((0, 1), f"a {kind} cannot be written")


def bound(node: AnyNode, values: dict[str, AnyNode]) -> AnyNode:
    """The tree with its names replaced by what is bound to them; raises Unreadable for a name that is not bound."""
    match node:
        case Name(path=(name,)) if name in values:
            return values[name]
        case Name():
            raise Unreadable(node.span, "an unknown name")
    return with_children(node, lambda inner: bound(inner, values))


def same(value: Any, expected: Any) -> bool:
    if value is ERROR or expected is ERROR:
        return value is expected
    if isinstance(expected, float) and isinstance(value, float):
        return value == expected or (math.isnan(value) and math.isnan(expected))
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, dict) and isinstance(value, dict):
        return len(value) == len(expected) and all(k in value and same(value[k], v) for k, v in expected.items())
    return type(value) is type(expected) and bool(value == expected)


def expected_of(case: dict[str, Any]) -> Any:
    return ERROR if "error" in case["expect"] else plain(case["expect"]["value"])


def by_cel(case: dict[str, Any]) -> Any:
    variables = dict.fromkeys(case["bindings"], "dyn")
    try:
        program = cel.Environment(variables).program(case["expr"])
        return program.evaluate({name: plain(value) for name, value in case["bindings"].items()})
    except cel.CelFailure:
        return ERROR


def outcome(case: dict[str, Any]) -> str:
    """``same``, ``handed`` (the same, and cel-cpp computed part of it), ``refused`` or ``differs``, of the slow
    evaluator and the compiled form together.
    """
    expected = expected_of(case)
    try:
        parsed = cel.Environment(dict.fromkeys(case["bindings"], "dyn")).parse(case["expr"])
        root = bound(convert(parsed, case["expr"]), {n: literal(v) for n, v in case["bindings"].items()})
    except cel.CelFailure:
        return "same" if expected is ERROR else "differs"
    except Unreadable:
        return "refused"
    try:
        slow = evaluate(root, EMPTY, Symbols())
    except Unknown:
        slow = ERROR
    try:
        fast = value_function(root, Symbols(), "conformance")(EMPTY)
    except FAILURES:
        fast = ERROR
    assert same(slow, fast), (case["expr"], slow, fast)
    if not same(slow, expected):
        return "differs"
    return "handed" if any(map(is_handed, walk(root))) else "same"


REASONS = {
    "unsigned": "unsigned numbers",
    "unknown name": "names that no rule has: types as values, variables of the suite, two-variable macros",
    "microseconds": "times finer than a microsecond",
    "is not a": "constants without a value: times out of range, conversions of what is converted already",
    "cannot both": "maps whose keys Python holds equal",
    "cannot be written": "a bound value that no rule can hold",
}


def reason_of(case: dict[str, Any]) -> str:
    """Why a refused case is."""
    try:
        parsed = cel.Environment(dict.fromkeys(case["bindings"], "dyn")).parse(case["expr"])
        bound(convert(parsed, case["expr"]), {n: literal(v) for n, v in case["bindings"].items()})
    except Unreadable as refusal:
        return next(reason for part, reason in REASONS.items() if part in str(refusal))
    raise AssertionError(case)


def is_handed(node: AnyNode) -> bool:
    return isinstance(node, Call) and (node.function in COSTLY or node.function not in NATIVE.keys() | CONTROL)


def cases() -> list[tuple[str, dict[str, Any]]]:
    return [(file.stem, case) for file in sorted(CASES.glob("*.json")) for case in json.loads(file.read_text("utf-8"))]


@needs_cases
def test_the_page_counts_what_cel_s_own_tests_say() -> None:
    parts = ("same", "handed", "refused", "differs")
    counted: dict[str, Counter[str]] = {}
    differs = set()
    unanswered = []
    reasons: Counter[str] = Counter()
    for file, case in cases():
        result, by_cpp = outcome(case), same(by_cel(case), expected_of(case))
        for counts in (counted.setdefault(file, Counter()), counted.setdefault("all", Counter())):
            counts[result] += 1
            counts["cel"] += by_cpp
        if result == "refused":
            reasons[reason_of(case)] += 1
        if result == "differs":
            differs.add((file, case["expr"].replace("|", "\\|").replace("\n", " ")))
        if not by_cpp and result in {"same", "handed"}:
            unanswered.append(case["expr"])
    page = PAGE.read_text("utf-8")
    told = {row[1]: tuple(map(int, row.groups()[1:])) for row in ROW.finditer(page)}
    assert told == {
        file: (sum(counts[p] for p in parts), counts["cel"], *(counts[p] for p in parts))
        for file, counts in counted.items()
    }
    assert {(m[1], m[2]) for m in DIFFERENCE.finditer(page)} == differs
    assert {m[1]: int(m[2]) for m in REFUSED.finditer(page)} == reasons
    # Where cel-cpp's Python face fails the suite and we do not, it is for the names of types.
    assert all(each.startswith("type(") for each in unanswered)


def test_walking_meets_every_node_once() -> None:
    source = "[x, x + 1].map(y, y > x, {'a': y}.a)"
    root = convert(cel.Environment({"x": "dyn"}).parse(source), source)
    assert len(walk(root)) == 1 + sum(len(walk(child)) for child in children(root))
