"""The columns of a table: what conditions test, and where outputs go.

Law: reads ``inputs`` and ``outputs``; cells are read elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of, under
from arbiter.authoring.nodes import Mapping, Node, Scalar, as_text, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.expr.tree import Name
from arbiter.ruleset.declarations import article
from arbiter.ruleset.rules import TableInput
from arbiter.ruleset.tables.cells import COMPARED, Cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.report import Report
    from arbiter.ruleset.expressions import Expressions

MAX_COLUMNS: Final = 64
PARAMS: Final = "params."
TARGETS: Final = ("action", "priority", "value", "enabled", "active.from", "active.until")


class InputColumn(msgspec.Struct, frozen=True):
    """A condition column; `cells` reads its cells."""

    key: Scalar
    about: TableInput
    cells: Cells


class OutputColumn(msgspec.Struct, frozen=True):
    """An output column and the key of a rule that its cells are the value of: one of `TARGETS`, or ``params.NAME``."""

    key: Scalar
    target: str

    @property
    def param(self) -> str:
        """The parameter that it gives, empty when it gives something else."""
        return self.target.removeprefix(PARAMS) if self.target.startswith(PARAMS) else ""


class Columns(msgspec.Struct, frozen=True):
    """All columns, by name. `whole` is False when one was refused."""

    inputs: dict[str, InputColumn]
    outputs: dict[str, OutputColumn]
    whole: bool


def read_columns(
    block: Block, expressions: Expressions, report: Report, lowest: Mapped[tuple[str, ...], int]
) -> Columns:
    """The columns that a table's block describes."""
    names: dict[str, Scalar] = {}
    columns = Columns({}, {}, whole=True)
    whole = True
    for name, key, node, path in _named(block, "inputs", "write `[profile.plan, features.orders]`"):
        column = (
            _input(name, key, node, expressions, report, lowest, path) if _fresh(name, key, names, report) else None
        )
        if column is None:
            whole = False
        else:
            columns.inputs[name] = column
    taken: dict[str, Scalar] = {}
    for name, key, node, path in _named(block, "outputs", "write `[offer, percent]`"):
        target = _target(name, node, report, path) if _fresh(name, key, names, report) else None
        if target is not None and target in taken:
            report.at(node, f"two columns give `{target}`", "remove one of the two", path)
            target = None
        if target is None:
            whole = False
        else:
            taken[target] = key
            columns.outputs[name] = OutputColumn(key, target)
    if len(names) > MAX_COLUMNS:
        report.at(
            block.key("inputs"), f"a table has at most {MAX_COLUMNS} columns, this one {len(names)}", path=block.path
        )
    return msgspec.structs.replace(columns, whole=whole and block.has("inputs") and block.has("outputs"))


def _named(block: Block, key: str, hint: str) -> Iterator[tuple[str, Scalar, Node, str]]:
    """Name, key, value and path of each column: of a list, an item is all of it."""
    node = block.get(key)
    path = under(block.path, key)
    if isinstance(node, Mapping):
        for name, entry in node.entries.items():
            if entry.node is not None:
                yield name.strip(), entry.key, entry.node, under(path, name)
        return
    for where, item in block.items(key, hint):
        if isinstance(item, Scalar) and item.value is not None:
            yield item.text.strip(), item, item, where
        else:
            block.report.at(item, f"a column is a name, this is {kind_of(item)}", hint, where)


def _fresh(name: str, key: Scalar, names: dict[str, Scalar], report: Report) -> bool:
    first = names.setdefault(name, key)
    if first is not key:
        message = f"two columns are called `{shorten(name)}`; the other place is {report.place_of(first)}"
        report.at(key, message, "give one another name: `{name: expression}`, `{name: params.name}`")
    elif name.startswith("#") or not name:
        report.at(key, f"a column cannot be called `{shorten(name)}`", "names with `#` are those of notes in CSV files")
        return False
    return first is key


def _input(
    name: str,
    key: Scalar,
    node: Node,
    expressions: Expressions,
    report: Report,
    lowest: Mapped[tuple[str, ...], int],
    path: str,
) -> InputColumn | None:
    expression = expressions.read(node, "a column", path)
    if expression is None:
        return None
    if expression.type not in COMPARED and expression.type != "dyn":
        message = f"`{expression.source}` is {article(expression.type)}, and cells compare single values"
        report.at(
            node, message, f'make it a question: `"vip" in {expression.source}`, answered by true and false', path
        )
        return None
    values: tuple[Any, ...] = ()
    least = None
    if isinstance(expression.root, Name):
        values, least = expressions.allowed(expression.root.path), lowest.get(expression.root.path)
    return InputColumn(key, TableInput(name, expression, values, least), Cells(expression, expressions, report))


def _target(name: str, node: Node, report: Report, path: str) -> str | None:
    """The key of a rule that a column gives, None when it can give none. By itself a name is that of a parameter."""
    text = as_text(node)
    if text is None:
        report.at(node, f"a column gives a key of a rule, this is {kind_of(node)}", f"one of {one_of(TARGETS)}", path)
        return None
    if text in TARGETS or (text.startswith(PARAMS) and text != PARAMS):
        return text
    if isinstance(node, Scalar) and name == node.text.strip():
        return f"{PARAMS}{name}"
    hint = did_you_mean(text, TARGETS) or f"write `{PARAMS}{text}`, or one of {one_of(TARGETS)}"
    report.at(node, f"a column cannot give `{shorten(text)}`", hint, path)
    return None
