"""One cell of a condition column: from what stands in it to a condition on the column's expression.

Law: a cell means what the CEL that it is written out as means; it is read alike in YAML and in CSV. Rows, outputs and
other cells are not its business.

    -                     any value, or none               "free", "trial"       one of these
    > 5   <= 2.5   != x   compared with one constant       not("free", "trial")  none of these
    [1..10)               from 1 to below 10               ${...}                any condition
"""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence
from arbiter.authoring.scalars import INT64, shorten
from arbiter.expr.tree import Const, Expression, Name
from arbiter.ruleset.declarations import article
from arbiter.ruleset.expressions import Expressions, not_allowed
from arbiter.ruleset.tables.hints import cell_hint, kind_hint
from arbiter.ruleset.times import rfc3339
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.authoring.report import Report

ANY: Final = "-"
COMPARED: Final = frozenset({"string", "int", "double", "bool", "timestamp", "duration", "bytes"})
_TEXT = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_QUOTED = re.compile(_TEXT, re.DOTALL)
_SIMPLE = re.compile(r"\"([^\"\\]*)\"|'([^'\\]*)'")
# Quotes open where a value may begin; elsewhere they are apostrophes.
_TOKEN = re.compile(
    rf"(?:(?<=[\s,(\[<>=!rRbB.])|^)(?:{_TEXT})|(?P<open>[(\[])|(?P<close>[)\]])|(?P<comma>,)|.", re.DOTALL
)
_NOT = re.compile(r"not\s*\((.*)\)", re.DOTALL)
_COMPARISON = re.compile(r"(<=|>=|!=|==|<>|=>|=<|<|>|=)\s*")
_RANGE = re.compile(rf"([\[(])((?:{_TEXT}|[^\"'])*?)\.\.(.*)([\])])", re.DOTALL)
_LOOSE = re.compile(r"([\w:.+-]*?)\s*\.\.\s*([\w:+-][\w:.+-]*)?")
_NUMBER = re.compile(r"-?(?:(?P<int>\d+)|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?)")
_BARE = re.compile(r"[^\W\d][\w -]*")
_BARE_IN_TEXT = re.compile(r"[^\"'()\[\]{}<>=!|&$]+")
_MEANT: Final = {"<>": "!=", "=>": ">=", "=<": "<="}
_DIGITS: Final = 21  # more than any int of 64 bits has, with its sign
_NUMBERS: Final = frozenset({"int", "double"})
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class _Refused(Exception):
    """A cell, or a part of it, is no condition; the reason is in the report."""


class _Part(msgspec.Struct, frozen=True):
    """One alternative: `tests` are operators with constants, as CEL writes them; all of them hold."""

    tests: tuple[tuple[str, str], ...]


class _Literal(msgspec.Struct, frozen=True):
    kind: str
    value: Any
    text: str


class Cells:
    """Reads the cells of one column. `what` is the column's expression, as its author wrote it."""

    def __init__(self, column: Expression, expressions: Expressions, report: Report) -> None:
        self._expressions = expressions
        self._report = report
        self._type = column.type
        root = column.root
        self.what = column.source
        self._subject = column.source if isinstance(root, Name) else f"({column.source})"
        self._allowed = expressions.allowed(root.path) if isinstance(root, Name) else ()
        self._known: dict[tuple[str, bool], str] = {}

    def read(self, cell: Node, path: str) -> tuple[Expression, ...] | None:
        """The cell's condition, nothing for any value; None, and a report, when it makes no sense."""
        try:
            if isinstance(cell, Scalar) and cell.text.startswith("${") and cell.text.endswith("}"):
                found = self._expressions.part(cell, 2, len(cell.text) - 1, path, expect="bool")
            else:
                source = self._source(cell, path)
                if not source:
                    return ()
                found = self._expressions.written(source, cell.source.position(cell.start))
                if found is None:
                    self._report.at(cell, f"`{shorten(source)}` makes no sense", path=path)
        except _Refused:
            return None
        return None if found is None else (found,)

    def _source(self, cell: Node, path: str) -> str:
        """The cell written out as CEL, empty for any value."""
        if isinstance(cell, Mapping):
            self._report.at(cell, "a cell is a value or a list of values, this is a mapping", path=path)
            raise _Refused
        if isinstance(cell, Sequence):
            items = [item for item in cell.items if item is not None]
            if not items:
                self._report.at(cell, "a list without values matches nothing", "write `-` for any value", path)
                raise _Refused
            return self._joined([part for item in items for part in self._listed(item, path)])
        key = (cell.text, isinstance(cell.value, str))
        if key not in self._known:
            self._known[key] = self._scalar(cell, path)
        return self._known[key]

    def _scalar(self, cell: Scalar, path: str) -> str:
        if cell.value is None:
            self._report.at(cell, "this cell is empty", "write `-` for any value", path)
            raise _Refused
        if cell.text == ANY:
            return ""
        negated = _NOT.fullmatch(cell.text)
        start, end = negated.span(1) if negated else (0, len(cell.text))
        parts = [part for at, to in _items(cell.text, start, end) for part in self._part(cell, at, to, path)]
        if not negated and len(parts) > 1 and any(test == "!=" for part in parts for test, _ in part.tests):
            self._report.at(cell, "`!=` stands alone in a cell", "write `not(a, b)` for none of several values", path)
            raise _Refused
        return self._joined(parts, negated=negated is not None)

    def _listed(self, item: Node, path: str) -> Iterator[_Part]:
        if not isinstance(item, Scalar) or item.value is None or item.text == ANY or _NOT.fullmatch(item.text):
            self._report.at(item, "a list in a cell holds values, comparisons and ranges", path=path)
            raise _Refused
        yield from self._part(item, 0, len(item.text), path)

    def _joined(self, parts: list[_Part], *, negated: bool = False) -> str:
        subject = self._subject
        values = [literal for part in parts for test, literal in part.tests if test == "=="]
        if self._type == "bool" and len(values) == len(parts) == 1:
            return self.what if (values[0] == "true") is not negated else f"!{subject}"
        written = []
        if len(values) == 1:
            written.append(f"{subject} {'!=' if negated and len(parts) == 1 else '=='} {values[0]}")
        elif values:
            written.append(f"{subject} in [{', '.join(values)}]")
        for part in parts:
            if part.tests[0][0] != "==":
                both = " && ".join(f"{subject} {test} {literal}" for test, literal in part.tests)
                written.append(f"({both})" if len(part.tests) > 1 and len(parts) > 1 else both)
        whole = " || ".join(written)
        return f"!({whole})" if negated and not (len(values) == len(parts) == 1) else whole

    def _part(self, cell: Scalar, start: int, end: int, path: str) -> Iterator[_Part]:
        """The alternative that stands at a range of a cell's text."""
        text = cell.text
        if start == end:
            self._refuse(cell, (start, end + 1), "a value is missing here", "", path)
        if text.startswith("${", start) or _NOT.match(text, start, end) or text[start:end] == ANY:
            shown = "`-`" if text[start:end] == ANY else "`${}`" if text[start] == "$" else "`not()`"
            self._refuse(cell, (start, end), f"{shown} stands alone in a cell", "", path)
        bounds = _RANGE.fullmatch(text, start, end)
        if bounds is not None and not _SIMPLE.fullmatch(text, start, end):
            yield self._range(cell, bounds, path)
            return
        loose = _LOOSE.fullmatch(text, start, end)
        if loose is not None:
            whole = f"`[{loose[0]}]`; with `(` or `)` the end does not belong to it"
            hint = whole if loose[1] and loose[2] else f"`>= {loose[1]}`" if loose[1] else f"`<= {loose[2] or '...'}`"
            self._refuse(cell, (start, end), "a range stands in brackets", f"write {hint}", path)
        found = _COMPARISON.match(text, start, end)
        test = found[1] if found else "=="
        if test in _MEANT:
            self._refuse(cell, (start, start + 2), f"there is no `{test}`", f"write `{_MEANT[test]}`", path)
        test = "==" if test == "=" else test
        literal = self._literal(cell, found.end() if found else start, end, path)
        at = found.end() if found else start
        if test not in {"==", "!="} and literal.kind == "bool":
            self._refuse(cell, (start, end), "true and false have no order", "", path)
        if test in {"==", "!="} and self._allowed and literal.value not in self._allowed:
            message, hint = not_allowed(literal.value, self.what, self._allowed)
            self._refuse(cell, (at, end), message, cell_hint(self._type, text[at:end]) or hint, path)
        yield _Part(((test, literal.text),))

    def _range(self, cell: Scalar, bounds: re.Match[str], path: str) -> _Part:
        for group, write in (
            (2, "<= ..." if bounds[4] == "]" else "< ..."),
            (3, ">= ..." if bounds[1] == "[" else "> ..."),
        ):
            if not bounds[group].strip():
                self._refuse(cell, bounds.span(), "a range has two ends", f"write `{write}`", path)
        low, high = (self._literal(cell, *_stripped(cell.text, *bounds.span(group)), path) for group in (2, 3))
        if low.kind != high.kind and not {low.kind, high.kind} <= _NUMBERS:
            message = f"the ends of a range are of one type, these are {article(low.kind)} and {article(high.kind)}"
            self._refuse(cell, bounds.span(), message, "", path)
        if low.kind == "bool":
            self._refuse(cell, bounds.span(), "true and false have no order", "", path)
        closed = bounds[1] == "[" and bounds[4] == "]"
        if low.value > high.value or (low.value == high.value and not closed):
            self._refuse(cell, bounds.span(), "nothing lies in this range", "the lower end comes first", path)
        return _Part(((">=" if bounds[1] == "[" else ">", low.text), ("<=" if bounds[4] == "]" else "<", high.text)))

    def _literal(self, cell: Scalar, start: int, end: int, path: str) -> _Literal:
        literal = self._constant(cell, start, end, path)
        kinds = _NUMBERS if self._type in _NUMBERS else {self._type}
        if literal.kind not in (COMPARED if self._type == "dyn" else kinds):
            hint = kind_hint(self._type, literal.kind, literal.value)
            message = f"`{self.what}` is {article(self._type)}, this is {article(literal.kind)}"
            self._refuse(cell, (start, end), message, hint, path)
        return literal

    def _constant(self, cell: Scalar, start: int, end: int, path: str) -> _Literal:
        word = cell.text[start:end]
        if self._type == "string" and _BARE_IN_TEXT.fullmatch(word):
            return _Literal("string", word, _string(word))
        if not isinstance(cell.value, str) and not isinstance(cell.value, bool) and cell.value is not None:
            return _number(cell.value)  # YAML's own, 0o17 say
        simple = _SIMPLE.fullmatch(word)
        if simple is not None:
            text = simple[1] if simple[1] is not None else simple[2]
            return _Literal("string", text, _string(text))
        if word in _BOOLS:
            return _Literal("bool", _BOOLS[word], "true" if _BOOLS[word] else "false")
        number = _NUMBER.fullmatch(word)
        if number is not None and number["int"] is None and isfinite(float(word)):
            return _number(float(word))
        if number is not None and number["int"] is not None and len(word) < _DIGITS and int(word) in INT64:
            return _number(int(word))
        instant = rfc3339(word)
        if instant is not None:
            text = instant.isoformat().replace("+00:00", "Z")
            return _Literal("timestamp", to_micros(instant), f'timestamp("{text}")')
        if _BARE.fullmatch(word) and word != "null":
            return _Literal("string", word, _string(word))
        return self._written_out(cell, start, end, path)

    def _written_out(self, cell: Scalar, start: int, end: int, path: str) -> _Literal:
        """A constant as CEL writes it: ``timestamp("...")``, ``b"..."``, a text with escapes."""
        hint = cell_hint(self._type, cell.text[start:end])
        if hint:
            self._refuse(cell, (start, end), f"`{shorten(cell.text[start:end])}` is no value", hint, path)
        found = self._expressions.part(cell, start, end, path)
        if found is None:
            raise _Refused
        root = found.root
        if not isinstance(root, Const):
            hint = f"write `${{{shorten(self.what)} == {shorten(found.source)}}}`"
            self._refuse(cell, (start, end), "a cell compares with constants", hint, path)
        assert isinstance(root, Const)  # noqa: S101 - what is none was refused
        return _Literal(root.kind, root.value, found.source)

    def _refuse(self, cell: Scalar, span: tuple[int, int], message: str, hint: str, path: str) -> None:
        self._report.inside(cell, *span, message, hint, path)
        raise _Refused


def _number(value: float) -> _Literal:
    return _Literal("int" if isinstance(value, int) else "double", value, repr(value))


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - (len(inner) - len(inner.rstrip()))


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges between the commas that stand outside of quotes and brackets, without blanks around."""
    first, depth = start, 0
    for token in _TOKEN.finditer(text, start, end):
        depth += bool(token["open"]) - bool(token["close"])
        if token["comma"] and depth <= 0:
            yield _stripped(text, first, token.start())
            first = token.end()
    yield _stripped(text, first, end)
