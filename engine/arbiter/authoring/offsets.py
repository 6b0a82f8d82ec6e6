"""From a position in what a scalar says to the position in the file where it was written.

Law: reads the raw text of one scalar again. Folding, indentation, doubled quotes and escapes only ever change blanks or
stand for one character each, so the other characters appear in the same order in both: they are matched one by one.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.authoring.nodes import Scalar

_PROPERTIES = re.compile(r"(?:[!&]\S*\s+)*")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|\r\n|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "\t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "v": "\v", "f": "\f"}
_ESCAPED |= {"e": "\x1b", " ": " ", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}
_WRITTEN_OUT = frozenset({"", '"', "'"})
_BLANKS = " \t\r\n"
_LONGEST = 200_000


def raw_span(scalar: Scalar, start: int, end: int) -> tuple[int, int]:
    """The range in the file of a half-open range of the scalar's text; the whole scalar if it cannot be told, or is
    very long.
    """
    spans = _spans(scalar) if scalar.end - scalar.start <= _LONGEST else None
    if spans is None:
        return scalar.start, scalar.end
    if not spans:
        return scalar.start, scalar.end
    if start >= len(spans):
        last = spans[-1][1]
        return last, last + 1
    return spans[start][0], max(spans[min(max(end, start + 1), len(spans)) - 1][1], spans[start][1])


def raw_start(scalar: Scalar, start: int) -> int:
    """The offset in the file at which a character of the scalar's text was written."""
    # The common cases, without the work: what was written is what is meant, at most with quotes around it.
    quotes = 1 if scalar.style in {'"', "'"} else 0
    as_long = start < len(scalar.text) and scalar.end - scalar.start == len(scalar.text) + 2 * quotes
    if scalar.style in _WRITTEN_OUT and as_long and scalar.source.text.startswith(scalar.text, scalar.start + quotes):
        return scalar.start + quotes + start
    return raw_span(scalar, start, start + 1)[0]


@functools.lru_cache(maxsize=4)  # one text may hold many expressions
def _spans(scalar: Scalar) -> list[tuple[int, int]] | None:
    """For every character of the text, where it stands in the file; None when the two do not match up."""
    units = list(_units(scalar))
    spans: list[tuple[int, int]] = []
    cursor = 0
    for character in scalar.text:
        if character not in _BLANKS:
            while cursor < len(units) and units[cursor][0] != character and units[cursor][0] in _BLANKS:
                cursor += 1
            if cursor >= len(units) or units[cursor][0] != character:
                return None
        if cursor < len(units) and units[cursor][0] in character + _BLANKS:
            spans.append(units[cursor][1:])
            cursor += 1
        else:  # a blank that folding made, or the last line break of a block
            here = units[cursor - 1][2] if units and cursor else scalar.end
            spans.append((here, here))
    return spans


def _units(scalar: Scalar) -> Iterator[tuple[str, int, int]]:
    """The characters that the raw text stands for, each with its range; blanks as they are written."""
    text, end = scalar.source.text, scalar.end
    properties = _PROPERTIES.match(text, scalar.start, end) if not scalar.style.startswith(",") else None
    at = properties.end() if properties else scalar.start
    if scalar.style == ",":
        pass
    elif scalar.style in {"|", ">"}:
        at = text.find("\n", at, end) + 1 or end
    elif scalar.style:
        at, end = at + 1, end - 1
    while at < end:
        character, width = text[at], 1
        if (scalar.style == "'" and character == "'") or (scalar.style == ',"' and character == '"'):
            width = 2
        elif scalar.style == '"' and character == "\\" and (escape := _ESCAPE.match(text, at, end)):
            width = escape.end() - at
            code = escape[1] or escape[2] or escape[3]
            character = chr(int(code, 16)) if code else _ESCAPED.get(escape[0][1:], escape[0][1:])
            if character in {"\n", "\r", "\r\n"} and escape[0][1:] != "n" and escape[0][1:] != "r":
                at += width
                continue
        yield character, at, at + width
        at += width
