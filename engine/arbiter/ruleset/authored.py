"""One entry of ``rules``: condition, priority, action, and when and for whom it is on.

Law: reads nodes into a `Rule`, checking every key. What other rules say is not its business: it notes the ids that it
meets, and whoever knows all files sees to it that they are unique.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, kind_of
from arbiter.authoring.scalars import INT64, shorten
from arbiter.errors import did_you_mean
from arbiter.expr.syntax import conjuncts
from arbiter.ruleset.caps.read import read_cap
from arbiter.ruleset.dates import read_active
from arbiter.ruleset.effects import read_effect
from arbiter.ruleset.keys import read_purposes, read_tags, read_when
from arbiter.ruleset.rules import Rollout, Rule
from arbiter.ruleset.tables.read import KEYS as TABLE_KEYS

if TYPE_CHECKING:
    from collections.abc import Collection

    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.expressions import Expressions
    from arbiter.ruleset.tables.read import TableReader
    from arbiter.ruleset.templates import Params

KEYS: Final = (
    "id",
    "decision",
    "priority",
    "when",
    "then",
    "value",
    "group",
    "requires_consent",
    "rollout",
    "active",
    "cap",
    "tags",
    "enabled",
)
BY: Final = ("profile", "account", "context")
PERCENT: Final = 100


class RuleReader(msgspec.Struct):
    """Reads the rules of one file. `decisions` are the declared decision points, None when they cannot be known.

    Tables are `tables`' to read, and other files with them. `ids` are the rules' own, with their paths.
    """

    report: Report
    declared: Declared
    expressions: Expressions
    params: Params
    decisions: Collection[str] | None
    tables: TableReader
    ids: list[tuple[Scalar, str]] = []

    def read(self, node: Node, path: str) -> list[Rule]:
        """One rule, or those that the rows of a decision table are; none when something in it was refused."""
        report = self.report
        if not isinstance(node, Mapping):
            report.at(
                node, f"a rule must be a mapping, this is {kind_of(node)}", "write `{id: ..., decision: ...}`", path
            )
            return []
        table = any(key in node.entries for key in TABLE_KEYS)
        what, keys = ("a decision table", KEYS + TABLE_KEYS) if table else ("a rule", KEYS)
        block = Block(node, report, what=what, path=path, keys=keys)
        block.require("id", f"{'every table' if table else 'every rule'} has an id of its own, `win-back-offer` say")
        at = node.entries["id"].node if block.has("id") else None
        block.require("decision", "say at which decision point it competes", at=at if isinstance(at, Scalar) else None)
        identifier = self._id(block)
        if table:
            return self.tables.read(block, identifier, self._rule)
        block.require("then", "say what it does", at=at if isinstance(at, Scalar) else None)
        rule = self._rule(block, identifier)
        return [rule] if rule is not None else []

    def _rule(self, block: Block, identifier: Scalar | None) -> Rule | None:
        """All of a rule but its id, which is a table's where the rule is a row."""
        path = block.path
        decision = self._decision(block)
        priority = block.integer("priority", INT64[0], INT64[-1])
        when = read_when(block, self.expressions)
        then_node = block.get("then")
        then = (
            read_effect(then_node, f"{path}.then", self.report, self.params, self.declared.actions)
            if then_node is not None
            else None
        )
        value_node = block.get("value")
        value = (
            self.expressions.read(value_node, "`value`", f"{path}.value", expect="number")
            if value_node is not None
            else None
        )
        group = block.identifier("group")
        requires = read_purposes(block, "requires_consent", self.declared)
        rollout = self._rollout(block, identifier)
        active = read_active(block, self.declared)
        cap = read_cap(block, self.declared)
        tags = read_tags(block)
        enabled = block.boolean("enabled")
        if identifier is None or decision is None or then is None:
            return None
        return Rule(
            id=identifier.text,
            decision=decision,
            priority=priority or 0,
            when=when,
            then=then,
            value=value,
            group=group.text if group is not None else "",
            rollout=rollout,
            active=active,
            tags=tags,
            enabled=enabled is not False,
            position=identifier.source.position(identifier.start),
            specificity=sum(len(conjuncts(expression.root)) for expression in when),
            requires_consent=requires,
            cap=cap,
        )

    def _id(self, block: Block) -> Scalar | None:
        scalar = block.identifier("id")
        if scalar is None:
            return None
        self.ids.append((scalar, f"{block.path}.id"))
        return scalar

    def _decision(self, block: Block) -> str | None:
        scalar = block.identifier("decision")
        if scalar is None or self.decisions is None or scalar.text in self.decisions:
            return scalar.text if scalar is not None else None
        known = sorted(self.decisions)
        hint = did_you_mean(scalar.text, known) or (
            f"declared are {one_of(known[:8])}" if known else "declare it under `decisions`"
        )
        block.refuse(scalar, f"unknown decision `{scalar.text}`", hint, "decision")
        return None

    def _rollout(self, block: Block, identifier: Scalar | None) -> Rollout | None:
        node = block.mapping("rollout", "write `{percent: 20}`")
        if node is None:
            return None
        inner = Block(node, self.report, what="`rollout`", path=f"{block.path}.rollout", keys=("percent", "by", "salt"))
        inner.require("percent", "for how many subjects in a hundred is it on?")
        percent = inner.number("percent")
        if percent is not None and not 0 <= percent[0] <= PERCENT:
            inner.refuse(percent[1], "`percent` must be from 0 to 100", key="percent")
        by = inner.text("by")
        if by is not None:
            self._check_by(inner, by)
        salt = inner.identifier("salt")
        fallback = identifier.text if identifier is not None else ""
        return Rollout(
            percent[0] if percent is not None else 0.0,
            by.text if by is not None else "subject",
            salt.text if salt is not None else fallback,
        )

    def _check_by(self, block: Block, by: Scalar) -> None:
        root, _, name = by.text.partition(".")
        if by.text == "subject":
            return
        if root not in BY or not name:
            near = did_you_mean(by.text, ("subject", *(f"{each}.{name}" for each in BY if name)))
            hint = near or "write `subject`, `profile.name`, `account.name` or `context.name`"
            block.refuse(by, f"a rollout cannot go by `{shorten(by.text)}`", hint, "by")
            return
        found = self.expressions.scope.resolve((root, name))
        if isinstance(found, tuple):
            self.report.inside(by, len(root) + 1, len(by.text), *found, f"{block.path}.by")
