"""``metrics``: how outcomes are turned into one number for each decision.

Law: reads nodes into `Metric`s, and says their shape to editors. What happened, and when, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import Block, check_name
from arbiter.authoring.nodes import Mapping, kind_of
from arbiter.authoring.schemas import closed, name, named, word
from arbiter.ruleset.keys import read_duration
from arbiter.ruleset.keyschemas import duration, in_order
from arbiter.ruleset.terms import Metric

if TYPE_CHECKING:
    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.authoring.schemas import Schema
    from arbiter.ruleset.terms import Taken

KEYS: Final = ("outcome", "within", "value")
VALUES: Final[dict[str, Taken]] = {"any": "any", "count": "count", "amount": "sum"}
_EXAMPLE: Final = "write `{outcome: purchase, within: 7d}`"


def read_metric(metric: str, entry: Entry, report: Report) -> Metric | None:
    """One metric; None when it was refused. Without `value` it says whether there was an outcome."""
    path = f"metrics.{metric}"
    if entry.node is None:
        return None  # it was refused
    if not isinstance(entry.node, Mapping):
        report.at(entry.node, f"a metric must be a mapping, this is {kind_of(entry.node)}", _EXAMPLE, path)
        return None
    block = Block(entry.node, report, what="a metric", path=path, keys=KEYS)
    block.require("outcome", "which outcome? its name, as `RecordOutcomes` is told it: `outcome: purchase`")
    block.require("within", "how long after the decision does it count? `within: 7d`")
    outcome = block.text("outcome")
    if outcome is not None and not check_name(outcome, "an outcome", report, f"{path}.outcome"):
        outcome = None
    within = read_duration(block, "within")
    value = block.word("value", VALUES) if block.has("value") else "any"
    if outcome is None or within is None or value is None:
        return None
    return Metric(metric, outcome.text, within, VALUES[value], entry.key.source.position(entry.key.start))


def value_of(take: Taken) -> str:
    """What authors write for it."""
    return next(value for value, taken in VALUES.items() if taken == take)


def metrics() -> Schema:
    """The JSON Schema of the section."""
    keys = {
        "outcome": name("The name of the outcome, as `RecordOutcomes` is told it."),
        "within": duration("How long after its decision an outcome counts: `7d`. From the decision on, half-open."),
        "value": word(
            "What is made of the outcomes of a decision. `any` (the default): 1 if there is one, else 0; `count`: how "
            "many; `amount`: the sum of their values.",
            VALUES,
        ),
    }
    one = closed("A metric.", in_order(KEYS, keys), required=["outcome", "within"])
    return named("What decisions bring about: a number for each decision, made of its outcomes.", one)
