"""One row as the block of a rule: what the table says of all rows, and what the row's own cells say.

Law: puts nodes together, and looks at no more of them than their places ask for. Cells of CSV files become what YAML
would have read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.authoring.blocks import Block, under
from arbiter.authoring.nodes import Entry, Mapping, Node, Scalar, is_nothing
from arbiter.authoring.scalars import NotANumber, core_value
from arbiter.ruleset.tables.cells import ANY

if TYPE_CHECKING:
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared, Typed
    from arbiter.ruleset.tables.columns import Columns, OutputColumn
    from arbiter.ruleset.tables.rows import Row

KEYS = ("table", "hit_policy", "inputs", "outputs", "rows", "gaps")


class Entries:
    """Writes the rows of one table out. `block` is the table's own."""

    def __init__(self, block: Block, columns: Columns, report: Report, declared: Declared) -> None:
        self._block = block
        self._columns = columns
        self._report = report
        self._actions = declared.actions or {}
        self._then = block.get("then")
        self._common = {key: entry for key, entry in block.node.entries.items() if key not in KEYS}

    def of(self, row: Row) -> Mapping | None:
        """The row as a rule's block; None when a cell that must be there is empty."""
        node, then = self._block.node, self._then
        entries = dict(self._common)
        given: dict[str, Entry] = {}
        for name, column in self._columns.outputs.items():
            cell = row.cells.get(name)
            if cell is not None and not _is_empty(cell):
                given[column.target] = Entry(column.key, self._value(cell, column, given, under(row.path, name)))
        if not self._all_there(row, given):
            return None
        for key in ("priority", "value", "enabled"):
            if key in given:
                entries[key] = given[key]
        dates = {key: given[f"active.{key}"] for key in ("from", "until") if f"active.{key}" in given}
        if any(column.target.startswith("active.") for column in self._columns.outputs.values()):
            self._date(entries, dates)
        if then is None or isinstance(then, Mapping):
            entries["then"] = self._effect(then, given)
        return _mapping(node, entries, partial=node.partial)

    def _date(self, entries: dict[str, Entry], dates: dict[str, Entry]) -> None:
        """Put a row's dates to what the table says of all: their zone, say."""
        common = entries.pop("active", None)
        said = common.node if common is not None else None
        whole = (said.entries if isinstance(said, Mapping) else {}) | dates
        if whole.keys() & {"from", "until"}:
            key = common.key if common is not None else next(iter(dates.values())).key
            entries["active"] = Entry(key, _mapping(said or self._block.node, whole))

    def _effect(self, then: Mapping | None, given: dict[str, Entry]) -> Entry:
        block = self._block
        inner = dict(then.entries) if then is not None else {}
        if "action" in given:
            inner["action"] = given["action"]
        params = inner["params"].node if "params" in inner else None
        of_row = {c.param: given[c.target] for c in self._columns.outputs.values() if c.param and c.target in given}
        if params is None or isinstance(params, Mapping):
            constants = params.entries if params is not None else {}
            key = inner["params"].key if "params" in inner else block.key("outputs") if block.has("outputs") else None
            if key is not None:
                inner["params"] = Entry(key, _mapping(params or block.node, constants | of_row))
        place = block.key("then") if block.has("then") else next(iter(block.node.entries.values())).key
        return Entry(place, _mapping(then or block.node, inner, partial=then is not None and then.partial))

    def _all_there(self, row: Row, given: dict[str, Entry]) -> bool:
        """Whether no cell is empty that gives what the action cannot do without."""
        action, params = self._action(given)
        whole = True
        for name, column in self._columns.outputs.items():
            cell = row.cells.get(name)
            if column.target in given or (cell is None and name in row.cells):
                continue
            typed = params.get(column.param) if params and column.param else None
            if column.target == "action" or (typed is not None and not typed.optional):
                need = (
                    f"the action `{action}` needs the parameter `{column.param}`" if typed else "a row needs an action"
                )
                self._report.at(cell or row.node, f"{need}, and this cell is empty" if cell else need, path=row.path)
                whole = False
        return whole

    def _action(self, given: dict[str, Entry]) -> tuple[str, Mapped[str, Typed] | None]:
        entry = given.get("action") or (self._then.entries.get("action") if isinstance(self._then, Mapping) else None)
        name = entry.node.text if entry is not None and isinstance(entry.node, Scalar) else ""
        return name, self._actions.get(name)

    def _value(self, cell: Node, column: OutputColumn, given: dict[str, Entry], path: str) -> Node | None:
        """A cell of a CSV file as YAML would have it: text in quotes or of a text's column is text, else it may be a
        number or a boolean.
        """
        if not isinstance(cell, Scalar) or not cell.style.startswith(","):
            return cell
        text = cell.text
        quoted = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]
        if quoted:
            return msgspec.structs.replace(cell, value=text[1:-1], text=text[1:-1])
        params = self._action(given)[1]
        typed = params.get(column.param) if params and column.param else None
        if column.target in {"action", "active.from", "active.until"} or (typed is not None and typed.type == "string"):
            return cell
        try:
            value = core_value(text)
        except NotANumber as problem:
            self._report.at(cell, str(problem), path=path)
            return None
        return cell if value is None else msgspec.structs.replace(cell, value=value)


def _is_empty(cell: Node) -> bool:
    return is_nothing(cell) or (isinstance(cell, Scalar) and cell.text == ANY)


def _mapping(like: Node, entries: dict[str, Entry], *, partial: bool = False) -> Mapping:
    return Mapping(like.source, like.start, like.end, entries, partial)
