"""A decision table among the rules: from its block, and the CSV file that it may name, to one rule a row.

Law: puts each row together as a rule's block would say it, and has it read as one: whatever a rule may have, a row may
have, and mistakes are told alike. What rows mean together is asked of `analysis`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import msgspec

from arbiter.authoring.blocks import Block, one_of, under
from arbiter.authoring.nodes import Mapping, Scalar
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.rules import DYNAMIC_KEYS, DecisionTable, HitPolicy, Rule
from arbiter.ruleset.tables.analysis import overlaps, shown
from arbiter.ruleset.tables.columns import read_columns
from arbiter.ruleset.tables.entries import KEYS, Entries
from arbiter.ruleset.tables.outcomes import outcome_of
from arbiter.ruleset.tables.rows import RowReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.cache import Beside
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.expressions import Expressions
    from arbiter.ruleset.rules import OrderKey
    from arbiter.ruleset.tables.columns import Columns
    from arbiter.ruleset.tables.rows import Row

    ReadRule = Callable[[Block, Scalar | None], Rule | None]

__all__ = ["KEYS", "POLICIES", "TableReader"]

POLICIES: Final[tuple[HitPolicy, ...]] = get_args(HitPolicy)
GAPS: Final = ("allowed", "reported")
LONGEST_ID: Final = 250  # so that those of rows have at most 256 characters


class TableReader(msgspec.Struct):
    """Reads the tables of one file. Other files are read through `beside` alone, which notes them. `orders` has the
    order keys of each sound decision point, `lowest` the least number that a name can be.
    """

    report: Report
    declared: Declared
    expressions: Expressions
    beside: Beside
    orders: Mapped[str, tuple[OrderKey, ...]]
    lowest: Mapped[tuple[str, ...], int]
    tables: list[DecisionTable] = []

    def read(self, block: Block, identifier: Scalar | None, rule: ReadRule) -> list[Rule]:
        """The rules that the table's rows are; `rule` reads one from its block, but for its id."""
        if identifier is not None and len(identifier.text) > LONGEST_ID:
            block.refuse(identifier, f"the id of a table has at most {LONGEST_ID} characters", key="id")
            identifier = None
        for key in ("inputs", "outputs"):
            block.require(key, "name the columns: `[profile.plan]`, `[offer]`", at=identifier)
        columns = read_columns(block, self.expressions, self.report, self.lowest)
        if columns.whole and "action" not in {column.target for column in columns.outputs.values()}:
            block.require("then", "say what its rows do: `then: {action: show_offer}`", at=identifier)
        policy = self._policy(block, columns)
        gaps_allowed = self._gaps(block)
        self._check_repeats(block, columns)
        rows = RowReader(block, columns, self.report, self.beside).read(identifier)
        made = self._rules(block, columns, rows, identifier, rule)
        if identifier is None or policy is None or not columns.whole or not made:
            return [each for _, each, _ in made]
        table = DecisionTable(
            id=identifier.text,
            decision=made[0][1].decision,
            hit_policy=policy,
            inputs=tuple(column.about for column in columns.inputs.values()),
            guard=made[0][2],
            gaps_allowed=gaps_allowed,
            position=identifier.source.position(identifier.start),
        )
        self.tables.append(table)
        self._check_overlaps(table, [row for row, _, _ in made], [each for _, each, _ in made])
        self._check_order(block, table)
        return [each for _, each, _ in made]

    def _rules(
        self, block: Block, columns: Columns, rows: list[Row], identifier: Scalar | None, rule: ReadRule
    ) -> list[tuple[Row, Rule, tuple[Expression, ...]]]:
        """The rows with the rules that they are, and the condition that stands before each of them."""
        entries = Entries(block, columns, self.report, self.declared)
        made: list[tuple[Row, Rule, tuple[Expression, ...]]] = []
        for row in rows:
            conditions = [
                columns.inputs[name].cells.read(cell, under(row.path, name))
                for name, cell in row.cells.items()
                if name in columns.inputs and cell is not None
            ]
            node = entries.of(row)
            if node is None:
                continue
            found = rule(Block(node, self.report, what="a row", path=row.path, keys=node.entries), identifier)
            if found is None or identifier is None or None in conditions or None in row.cells.values():
                continue
            of_cells = tuple(each for condition in conditions if condition for each in condition)
            whole = msgspec.structs.replace(
                found,
                id=f"{identifier.text}#{row.number}",
                when=(*found.when, *of_cells),
                group=found.group or identifier.text,
                position=row.node.source.position(row.node.start),
                specificity=found.specificity + len(columns.inputs),
                table=identifier.text,
                row=row.number,
            )
            made.append((row, whole, found.when))
        return made

    def _policy(self, block: Block, columns: Columns) -> HitPolicy | None:
        said = block.text("hit_policy") if block.has("hit_policy") else None
        if said is None:
            return None if block.has("hit_policy") else "unique"
        policy = next((each for each in POLICIES if each == said.text), None)
        if policy is None:
            hint = did_you_mean(said.text, POLICIES) or f"one of {one_of(POLICIES)}"
            block.refuse(said, f"there is no hit policy `{shorten(said.text)}`", hint, "hit_policy")
        by_priority = next((c for c in columns.outputs.values() if c.target == "priority"), None)
        if policy == "priority" and by_priority is None and columns.whole:
            message = "by `priority` the row with the highest one wins, and no column gives it"
            block.refuse(said, message, "add `priority` to `outputs`", "hit_policy")
        if policy == "first" and by_priority is not None:
            hint = "say `priority` once for the table, or write `hit_policy: priority`"
            self.report.at(by_priority.key, "by `first` the order of rows decides, not priorities", hint, block.path)
        return policy

    def _gaps(self, block: Block) -> bool:
        said = block.text("gaps")
        if said is not None and said.text not in GAPS:
            hint = did_you_mean(said.text, GAPS) or f"one of {one_of(GAPS)}"
            block.refuse(said, f"`gaps` cannot be `{shorten(said.text)}`", hint, "gaps")
        return said is not None and said.text == "allowed"

    def _check_order(self, block: Block, table: DecisionTable) -> None:
        """By `priority` rows go by priority only if the decision's order looks at it before it looks at the subject."""
        order = self.orders.get(table.decision)
        said = block.get("hit_policy")
        if table.hit_policy != "priority" or order is None or said is None:
            return
        if "priority" not in order or DYNAMIC_KEYS.intersection(order[: order.index("priority")]):
            message = (
                f"`{table.decision}` orders rules by [{', '.join(order)}], so priorities would not decide between rows"
            )
            block.refuse(said, message, "begin its `order` with `priority`, or write `hit_policy: first`", "hit_policy")

    def _check_repeats(self, block: Block, columns: Columns) -> None:
        """A column for what the table says of all its rows."""
        then = block.get("then")
        constants: list[str] = []
        if isinstance(then, Mapping):
            constants += ["action"] if "action" in then.entries else []
            params = then.entries["params"].node if "params" in then.entries else None
            constants += [f"params.{name}" for name in params.entries] if isinstance(params, Mapping) else []
        active = block.get("active")
        constants += [f"active.{name}" for name in active.entries] if isinstance(active, Mapping) else []
        constants += [key for key in ("priority", "value", "enabled") if block.has(key)]
        for column in columns.outputs.values():
            if column.target in constants:
                message = f"`{column.target}` is said for all rows and by a column"
                self.report.at(column.key, message, "remove one of the two", block.path)

    def _check_overlaps(self, table: DecisionTable, rows: list[Row], rules: list[Rule]) -> None:
        if table.hit_policy not in {"unique", "any"}:
            return
        outcomes = [outcome_of(rule) for rule in rules] if table.hit_policy == "any" else []
        differ = (lambda a, b: outcomes[a] != outcomes[b]) if outcomes else None
        for each in overlaps(table, rules, differ):
            first, second = rows[each.first], rows[each.second]
            place = self.report.place_of(first.node)
            rule = "gives something else" if outcomes else "`hit_policy: unique` allows no two"
            message = (
                f"row {rules[each.second].row} can match together with row {rules[each.first].row} ({place}), "
                f"and {rule}"
            )
            hint = f"both match {shown(each.example)}; `hit_policy: first` would let the upper row win"
            self.report.at(second.node, message, hint, second.path)
