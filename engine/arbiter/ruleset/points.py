"""Decision points: how many treatments, in which order rules are ranked, and what comes back when none won.

Law: reads ``decisions`` into `DecisionPoint`s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, as_text, is_nothing, kind_of
from arbiter.errors import did_you_mean
from arbiter.ruleset.effects import read_effect
from arbiter.ruleset.rules import DecisionPoint, OrderKey
from arbiter.ruleset.templates import Params

if TYPE_CHECKING:
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Typed

ORDER_KEYS: Final[tuple[OrderKey, ...]] = get_args(OrderKey)
MAX_SLOTS: Final = 1000
KEYS: Final = ("slots", "order", "channel", "default")


def read_point(
    name: str, entry: Entry, report: Report, actions: Mapped[str, Mapped[str, Typed]] | None
) -> DecisionPoint | None:
    """One decision point; None when it was refused. Without `slots` it has one, without `order` it goes by priority."""
    path = f"decisions.{name}"
    position = entry.key.source.position(entry.key.start)
    if entry.node is None or is_nothing(entry.node):
        return DecisionPoint(name, 1, ("priority",), None, position)
    if not isinstance(entry.node, Mapping):
        report.at(
            entry.node, f"a decision must be a mapping, this is {kind_of(entry.node)}", "write `{slots: 1}`", path
        )
        return None
    block = Block(entry.node, report, what="a decision", path=path, keys=KEYS)
    slots = block.integer("slots", 1, MAX_SLOTS) if block.has("slots") else 1
    order = _order(block) if block.has("order") else ("priority",)
    channel = block.identifier("channel")
    default = block.get("default")
    effect = (
        read_effect(default, f"{path}.default", report, Params(report, None), actions) if default is not None else None
    )
    return DecisionPoint(name, slots or 1, order, effect, position, "" if channel is None else channel.text)


def _order(block: Block) -> tuple[OrderKey, ...]:
    read: list[OrderKey] = []
    for path, item in block.items("order", "write `[priority, value]`"):
        word = as_text(item)
        key = next((known for known in ORDER_KEYS if known == word), None)
        if key is None:
            shown = f"`{word}`" if word is not None else kind_of(item)
            hint = did_you_mean(word or "", ORDER_KEYS) or f"one of {one_of(ORDER_KEYS)}"
            block.report.at(item, f"rules cannot be ordered by {shown}", hint, path)
        elif key in read:
            block.report.at(item, f"`{key}` stands here for the second time", "remove one of the two", path)
        else:
            read.append(key)
    return tuple(read)
