"""Where the rows of a table come from: written in the rule file, or from a CSV file beside it.

Law: finds the file and gives each column's cell to each row; what cells mean is not looked at.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.tables.sheet import SUFFIX, Sheet, read_sheet

if TYPE_CHECKING:
    from arbiter.authoring.report import Report
    from arbiter.ruleset.cache import Beside
    from arbiter.ruleset.tables.columns import Columns

MAX_ROWS: Final = 2_000  # what overlaps and gaps cost grows with the square


class Row(msgspec.Struct, frozen=True):
    """One row: the node to point at and its cells by column; None was refused. `path` is its place in the document,
    `number` counts from 1, refused rows too.
    """

    node: Node
    cells: dict[str, Node | None]
    path: str
    number: int


class RowReader:
    """Reads the rows of one table, whose columns are `columns`."""

    def __init__(self, block: Block, columns: Columns, report: Report, beside: Beside) -> None:
        self._block = block
        self._whole = columns.whole
        self._names = [*columns.inputs, *columns.outputs]
        self._report = report
        self._beside = beside

    def read(self, identifier: Scalar | None) -> list[Row]:
        """The rows, those that cannot be told apart into cells left out, and reported."""
        block = self._block
        if block.has("table") and block.has("rows"):
            hint = "`table` names a CSV file, `rows` are written here"
            block.refuse(block.key("rows"), "a table has `table` or `rows`, not both", hint, "rows")
        if block.has("table"):
            rows = self._of_file()
        elif block.has("rows"):
            items = enumerate(block.items("rows", "write `- [cell, cell]` for each row"), 1)
            rows = [row for number, (path, item) in items if (row := self._inline(item, path, number)) is not None]
            node = block.get("rows")
            if isinstance(node, Sequence) and not node.items:
                block.refuse(block.key("rows"), "the table has no rows", key="rows")
        else:
            block.require("rows", "or name a CSV file: `table: offers.csv`", at=identifier)
            return []
        if len(rows) > MAX_ROWS:
            message = f"a table has at most {MAX_ROWS:,} rows, this one {len(rows):,}"
            self._report.at(rows[MAX_ROWS].node, message, "split it into several tables", block.path)
        return rows[:MAX_ROWS]

    def _inline(self, item: Node, path: str, number: int) -> Row | None:
        names = self._names
        if isinstance(item, Sequence):
            if self._whole and len(item.items) == len(names):
                return Row(item, dict(zip(names, item.items, strict=True)), path, number)
            if self._whole:
                message = (
                    f"this row has {_counted(len(item.items), 'cell')}, the table {_counted(len(names), 'column')}"
                )
                self._report.at(item, message, f"they are {one_of(names)}", path)
            return None
        if not isinstance(item, Mapping):
            message = f"a row is a list of cells, this is {kind_of(item)}"
            self._report.at(item, message, f"the columns are {one_of(names)}", path)
            return None
        for name, entry in item.entries.items():
            if name not in names and self._whole:
                hint = did_you_mean(name, names) or f"there are {one_of(names)}"
                self._report.at(entry.key, f"the table has no column `{shorten(name)}`", hint, path)
        if self._whole and not item.entries.keys() <= set(names):
            return None  # what it says of the column that is meant is not known
        return Row(item, {name: entry.node for name, entry in item.entries.items()}, path, number)

    def _of_file(self) -> list[Row]:
        said = self._block.text("table", "name a CSV file: `table: offers.csv`")
        file = self._file(said) if said is not None else None
        content = self._beside.get(file) if file is not None else None
        sheet = read_sheet(file, content, self._report) if file is not None and content is not None else None
        if file is None or sheet is None:
            return []
        places = self._places(sheet, f"{file}[0]")
        if places is None:
            return []
        rows: list[Row] = []
        for number, cells in enumerate(sheet.rows, 1):
            path = f"{file}[{number}]"
            surplus = next((cell for cell in cells[len(sheet.header) :] if cell.text), None)
            if surplus is not None or len(cells) < len(sheet.header):
                message = f"this row has {_counted(len(cells), 'cell')}, the first line {len(sheet.header)}"
                hint = "a cell with a comma in it stands in double quotes" if surplus is not None else ""
                self._report.at(surplus or cells[-1], message, hint, path)
                continue
            node = Sequence(cells[0].source, cells[0].start, cells[-1].end, cells)
            rows.append(Row(node, {name: cells[place] for place, name in places.items()}, path, number))
        if not sheet.rows:
            self._report.at(sheet.header[0], "the table has no rows", "write them below the names of the columns")
        return rows

    def _places(self, sheet: Sheet, path: str) -> dict[int, str] | None:
        """The columns by their place in the file; None when one is not there."""
        places: dict[int, str] = {}
        headed = {cell.text for cell in sheet.header}
        for place, cell in enumerate(sheet.header):
            if cell.text.startswith("#") or not any(
                len(r) > place and r[place].text for r in (sheet.header, *sheet.rows)
            ):
                continue
            if cell.text in places.values():
                self._report.at(cell, f"two columns are called `{shorten(cell.text)}`", "remove one of the two", path)
            elif cell.text in self._names:
                places[place] = cell.text
            elif self._whole:
                left = [name for name in self._names if name not in headed]
                hint = did_you_mean(cell.text, left) or "begin its name with `#` if it is a note"
                message = f"the table has no column `{shorten(cell.text)}`" if cell.text else "this column has no name"
                self._report.at(cell, message, hint, path)
        lacking = [name for name in self._names if name not in places.values()]
        if lacking and self._whole:
            message = f"the file has no column {one_of(lacking)}"
            self._report.at(sheet.header[-1], message, f"it needs {one_of(self._names)}", path)
        return None if lacking else places

    def _file(self, said: Scalar) -> str | None:
        """The path of the CSV file among the rule files."""
        parts = said.text.split("/")
        folder = PurePosixPath(said.source.file).parent
        if not said.text.endswith(SUFFIX):
            self._block.refuse(said, f"`{shorten(said.text)}` is no CSV file", "its name ends in `.csv`", "table")
        elif "\\" in said.text or ":" in parts[0] or any(not part or part.startswith(".") for part in parts):
            hint = "it lies beside this file, or in a folder below: `offers.csv`, `tables/offers.csv`"
            self._block.refuse(said, f"`{shorten(said.text)}` is no path below this file's folder", hint, "table")
        elif self._beside.get(path := (folder / said.text).as_posix()) is not None:
            return path
        else:
            sheets = [PurePosixPath(known) for known in self._beside.names() if known.endswith(SUFFIX)]
            below = [known.relative_to(folder).as_posix() for known in sheets if known.is_relative_to(folder)]
            hint = did_you_mean(said.text, below) or (f"there are {one_of(below[:8])}" if below else "")
            self._block.refuse(said, f"there is no file `{shorten(path)}` among the rule files", hint, "table")
        return None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
