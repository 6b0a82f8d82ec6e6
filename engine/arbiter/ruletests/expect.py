"""What a test expects.

Law: reads nodes into `Expected`, held against what the rule set has names for; compares nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, as_text, kind_of
from arbiter.errors import did_you_mean
from arbiter.ruletests.firings import KEYS as FORESEEN
from arbiter.ruletests.spec import Expected, Named, WantedReason, WantedTreatment
from arbiter.ruletests.values import REFUSED, Values, is_known
from arbiter.types import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.ruletests.given import Names

KEYS: Final = ("treatments", "includes", "absent", "defaulted", "reasons")
TREATMENT_KEYS: Final = ("rule", "action", "params", "some_params", "value", "priority")
REASON_KEYS: Final = ("reason", "lost_to", "lost_on", "expression", "missing")
# What may become of a rule. The default is no rule, and nothing is switched off in a test.
REASONS: Final = {reason.name: reason for reason in Reason if reason.name not in {"DEFAULT", "OVERRIDDEN"}}
# The words of the API and of `arbiter explain`, where they differ.
_OTHER_WORDS: Final = {"LOST": "LOST_SLOT", "GROUP": "LOST_GROUP", "ROLLOUT": "ROLLED_OUT_OF"}


def read_expectations(block: Block, decisions: tuple[str, ...], names: Names) -> tuple[Expected, ...] | None:
    """What is expected of each decision, in order; None when something was refused."""
    hint = f"it may have {one_of((*KEYS, *FORESEEN))}"
    node = block.mapping("expect", hint)
    if node is None or not decisions:
        return None if node is None else ()
    if not block.has("decisions"):
        return _one(node, f"{block.path}.expect", decisions[0], names, block, FORESEEN)
    path = f"{block.path}.expect"
    known = (*decisions, *FORESEEN)
    Block(node, block.report, what="`expect` of a page, which has a key for each decision", path=path, keys=known)
    parts: list[Expected] = []
    for name in decisions:
        entry = node.entries.get(name)
        if entry is None:
            parts.append(Expected(node))
        elif isinstance(entry.node, Mapping):
            parts += _one(entry.node, f"{path}.{name}", name, names, block) or ()
        elif entry.node is not None:
            block.report.at(entry.node, f"`{name}` must be a mapping, this is {kind_of(entry.node)}", hint, path)
    return tuple(parts) if len(parts) == len(decisions) else None


def _one(
    node: Mapping, path: str, decision: str, names: Names, outer: Block, more: tuple[str, ...] = ()
) -> tuple[Expected] | None:
    block = Block(node, outer.report, what="`expect`", path=path, keys=(*KEYS, *more))
    if not node.entries:
        block.refuse(node, "`expect` is empty, so nothing is tested", f"it may have {one_of((*KEYS, *more))}")
        return None
    reader = _Expectations(block, decision, names)
    treatments = reader.treatments("treatments")
    return (
        Expected(
            node=block.key("treatments") if block.has("treatments") else node,
            treatments=treatments if block.has("treatments") else None,
            includes=reader.treatments("includes"),
            absent=tuple(reader.absent()),
            defaulted=block.boolean("defaulted"),
            defaulted_node=block.get("defaulted"),
            reasons=tuple(reader.reasons()),
        ),
    )


class _Expectations(msgspec.Struct):
    """Reads what is expected of one decision."""

    block: Block
    decision: str
    names: Names

    def _rule(self, node: Node, path: str) -> str | None:
        """The id of a rule of this decision."""
        report = self.block.report
        text = as_text(node)
        if text is None:
            report.at(node, f"a rule's id must stand here, this is {kind_of(node)}", path=path)
            return None
        other = self.names.rules.get(text)
        if other is not None and other != self.decision:
            hint = f"this test asks `{self.decision}`"
            report.at(node, f"the rule `{text}` belongs to the decision `{other}`", hint, path)
            return None
        known = self.names.decisions[self.decision]
        return text if is_known(text, known, "rule", node, report, path) else None

    def treatments(self, key: str) -> tuple[WantedTreatment, ...]:
        hint = "write `[RULE-ID]`, or `[{rule: RULE-ID, params: {...}}]`"
        found: list[WantedTreatment] = []
        for path, item in self.block.items(key, hint):
            if isinstance(item, Scalar):
                rule = self._rule(item, path)
                found += [] if rule is None else [WantedTreatment(item, rule)]
            elif isinstance(item, Mapping):
                wanted = self._treatment(item, path)
                found += [] if wanted is None else [wanted]
            else:
                self.block.report.at(item, "a treatment is a rule's id or a mapping, this is a list", hint, path)
        return tuple(found)

    def _treatment(self, node: Mapping, path: str) -> WantedTreatment | None:
        block = Block(node, self.block.report, what="a treatment", path=path, keys=TREATMENT_KEYS)
        if not block.has("rule") and not block.require("action", "name its `rule`, or the `action` of the default"):
            return None
        rule_node = block.get("rule")
        rule = "" if rule_node is None else self._rule(rule_node, f"{path}.rule")
        action = block.text("action")
        if block.has("params") and block.has("some_params"):
            block.refuse(block.key("some_params"), "`params` are all of them, so `some_params` adds nothing")
        some = block.has("some_params")
        params = block.mapping("some_params" if some else "params", "write `{name: value}`")
        given: dict[str, Any] = {}
        for name, entry in params.entries.items() if params is not None else ():
            value = self._plain(entry.node, f"{path}.params.{name}")
            if value is not REFUSED:
                given[name] = value
        value = block.number("value")
        if rule is None:
            return None
        return WantedTreatment(
            node=node if rule_node is None else rule_node,
            rule=rule,
            action=None if action is None else action.text,
            params=None if params is None else given,
            nodes={n: e.node for n, e in node.entries.items() if e.node is not None},
            param_nodes={} if params is None else {n: e.node for n, e in params.entries.items() if e.node is not None},
            whole=not some,
            value=None if value is None else value[0],
            priority=block.integer("priority", -(2**63), 2**63 - 1),
        )

    def _plain(self, node: Node | None, path: str) -> Any:
        return REFUSED if node is None else Values(self.block.report, 0).plain(node, path)

    def absent(self) -> Iterator[Named]:
        """Rules that must not win."""
        for path, item in self.block.items("absent", "write `[RULE-ID]`"):
            rule = self._rule(item, path)
            if rule is not None:
                yield Named(item, rule)

    def reasons(self) -> Iterator[WantedReason]:
        """What is to become of rules."""
        mapping = self.block.mapping("reasons", "write `{RULE-ID: FAILED}`")
        for name, entry in mapping.entries.items() if mapping is not None else ():
            path = f"{self.block.path}.reasons.{name}"
            rule = self._rule(entry.key, path)
            node = entry.node
            if node is None or rule is None:
                continue
            if isinstance(node, Scalar):
                reason = self._reason(node, path)
                if reason is not None:
                    yield WantedReason(node, rule, reason)
            elif isinstance(node, Mapping):
                yield from self._detailed(node, rule, path)
            else:
                hint = "write `{reason: LOST_SLOT, lost_to: RULE-ID}`"
                self.block.report.at(node, "a reason is a word or a mapping, this is a list", hint, path)

    def _detailed(self, node: Mapping, rule: str, path: str) -> Iterator[WantedReason]:
        block = Block(node, self.block.report, what="a reason", path=path, keys=REASON_KEYS)
        word = block.get("reason") if block.require("reason", f"one of {one_of(REASONS)}") else None
        reason = None if word is None else self._reason(word, f"{path}.reason")
        winner = block.get("lost_to")
        lost_to = None if winner is None else self._rule(winner, f"{path}.lost_to")
        lost_on, expression = block.text("lost_on"), block.text("expression")
        missing = [as_text(item) or "" for _, item in block.items("missing", "write `[profile.age]`")]
        if reason is not None and word is not None:
            yield WantedReason(
                node=word,
                rule=rule,
                reason=reason,
                lost_to=lost_to,
                lost_on=None if lost_on is None else lost_on.text,
                expression=None if expression is None else expression.text,
                missing=tuple(missing) if block.has("missing") else None,
            )

    def _reason(self, node: Node, path: str) -> Reason | None:
        word = as_text(node)
        if word in REASONS:
            return REASONS[word]
        shown = f"`{word}`" if word is not None else kind_of(node)
        upper = (word or "").upper()
        better = upper if upper in REASONS else _OTHER_WORDS.get(upper, "")
        hint = f"write `{better}`" if better else did_you_mean(upper, REASONS) or f"one of {one_of(REASONS)}"
        self.block.report.at(node, f"unknown reason {shown}", hint, path)
        return None
