"""From the bytes of a CSV file to rows of cells that know where they stand.

Law: RFC 4180 as the standard library reads it, UTF-8 with or without a byte order mark, commas only. What cells mean is
not known here. A cell is a `Scalar`: its text has no blanks around it, and an empty one has no value.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.documents import Form, decode
from arbiter.authoring.nodes import Scalar

if TYPE_CHECKING:
    from arbiter.authoring.report import Report
    from arbiter.authoring.source import Source

SUFFIX: Final = ".csv"
TABLE_FILE: Final = Form("a table", 16 << 20, "split it into several tables", escapes=False)
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Sheet(msgspec.Struct, frozen=True):
    """A file: the first row names columns."""

    header: tuple[Scalar, ...]
    rows: tuple[tuple[Scalar, ...], ...]


def read_sheet(file: str, content: bytes, report: Report) -> Sheet | None:
    """The file's rows, empty lines left out; None when it cannot be read to its end."""
    source = decode(file, content, TABLE_FILE, report)
    if source is None:
        return None
    if not source.text.strip():
        report.whole(file, "the table is empty", "its first line names the columns")
        return None
    rows = _rows(source, report)
    if rows is None or not _separated(rows[0], report):
        return None
    return Sheet(rows[0], tuple(rows[1:]))


def _rows(source: Source, report: Report) -> list[tuple[Scalar, ...]] | None:
    """Rows with their places: the reader tells what fields say, and from that follows how many characters each took."""
    found: list[tuple[Scalar, ...]] = []
    at = 0
    reader = csv.reader(io.StringIO(source.text, newline=""), strict=True)
    try:
        for fields in reader:
            cells = []
            for field in fields:
                quoted = source.text.startswith('"', at)
                end = at + len(field) + (2 + field.count('"') if quoted else 0)
                cells.append(_cell(source, at, end, field, quoted=quoted))
                at = end + 1  # behind the comma or at most one character into the end of the line
            at = _line_end(source.text, at - 1 if fields else at)
            if any(cell.text for cell in cells):
                found.append(tuple(cells))
    except csv.Error:
        hint = 'a quote inside a quoted cell is written twice, and a quoted cell ends with `",` or with the line'
        report.add(source, at, at + 1, "from here on this is not CSV", hint)
        return None
    return found


def _line_end(text: str, at: int) -> int:
    """The start of the next line, from the end of this one."""
    return at + (2 if text.startswith("\r\n", at) else 1)


def _cell(source: Source, start: int, end: int, field: str, *, quoted: bool) -> Scalar:
    text = field.strip()
    if not quoted:
        start += len(field) - len(field.lstrip())
        end = start + len(text)
    return Scalar(source, start, end, text or None, text, ',"' if quoted else ",")


def _separated(header: tuple[Scalar, ...], report: Report) -> bool:
    """Whether commas separate the columns."""
    first = header[0]
    for separator, name in _SEPARATORS.items():
        if len(header) == 1 and separator in first.text:
            place = first.text.index(separator)
            message = f"{name} separate the columns, and only commas can"
            report.inside(first, place, place + 1, message, "save the file as CSV with commas")
            return False
    return True
