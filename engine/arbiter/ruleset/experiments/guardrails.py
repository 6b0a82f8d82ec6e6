"""``guardrails`` of an experiment: what none of its variants may do to a metric.

Law: reads nodes into `Guardrail`s, and says their shape to editors. What happened is not known here.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Sequence, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.authoring.schemas import closed, listed, name, number
from arbiter.errors import did_you_mean
from arbiter.ruleset.experiments.terms import Guardrail
from arbiter.ruleset.keyschemas import in_order

if TYPE_CHECKING:
    from collections.abc import Collection

    from arbiter.authoring.schemas import Schema

KEYS: Final = ("metric", "at_least", "at_most", "confidence")
_LEAST, _MOST = 0.5, 0.9999
_FARTHEST: Final = 1.7976931348623157e308
_EXAMPLE: Final = "write `- {metric: bought, at_least: -0.01}`"


def read_guardrails(experiment: Block, metrics: Collection[str] | None) -> tuple[Guardrail, ...]:
    """Those of an experiment, in their order. `metrics` are the declared ones, None when not known."""
    if not experiment.has("guardrails"):
        return ()
    node, found = experiment.get("guardrails"), []
    for path, item in experiment.items("guardrails", _EXAMPLE):
        if not isinstance(item, Mapping):
            experiment.report.at(item, f"a guardrail must be a mapping, this is {kind_of(item)}", _EXAMPLE, path)
            continue
        block = Block(item, experiment.report, what="a guardrail", path=path, keys=KEYS)
        guardrail = _guardrail(block, metrics)
        found += [guardrail] if guardrail is not None else []
    if isinstance(node, Sequence) and not node.items:
        experiment.refuse(node, "`guardrails` is empty", "name a metric and its bound, or leave it out", "guardrails")
    return tuple(found)


def _guardrail(block: Block, metrics: Collection[str] | None) -> Guardrail | None:
    block.require("metric", "which of `metrics` is it about?")
    metric = block.text("metric")
    if metric is not None and metrics is not None and metric.text not in metrics:
        known = sorted(metrics)
        hint = did_you_mean(metric.text, known) or (
            f"declared are {one_of(known[:8])}" if known else "declare it under `metrics`"
        )
        block.refuse(metric, f"unknown metric `{shorten(metric.text)}`", hint, "metric")
    if block.has("at_least") and block.has("at_most"):
        block.refuse(block.key("at_most"), "`at_least` and `at_most` cannot both be given",
                     "write two guardrails", "at_most")  # fmt: skip
    elif not block.has("at_most"):
        block.require("at_least", "how far from the control's figure may a variant's be? `at_least: -0.01`")
    least, most = _bound(block, "at_least"), _bound(block, "at_most")
    confidence = block.number("confidence")
    sure = 0.95 if confidence is None else confidence[0]
    if confidence is not None and not _LEAST <= sure <= _MOST:
        hint = f"write `{sure / 100:g}` for {sure:g} %" if 1 < sure < 100 else ""  # noqa: PLR2004 - per cent
        block.refuse(confidence[1], f"`confidence` must be from {_LEAST} to {_MOST}", hint, "confidence")
    if metric is None or (least is None and most is None):
        return None
    return Guardrail(metric.text, least, most, sure)


def _bound(block: Block, key: str) -> float | None:
    found = block.number(key)
    if found is not None and not isfinite(found[0]):
        block.refuse(found[1], f"`{key}` must be a finite number", "", key)
        return None
    return None if found is None else found[0]


def guardrails() -> Schema:
    """The JSON Schema of the key."""
    said = "How far a variant's figure may be {} the control's: the difference of both is {} this."
    keys = {
        "metric": name("One of `metrics`."),
        "at_least": number(said.format("below", "at least"), -_FARTHEST, _FARTHEST),
        "at_most": number(said.format("above", "at most"), -_FARTHEST, _FARTHEST),
        "confidence": number(
            "How sure it must be that a variant broke it, however often that is looked at; 0.95 when left out.",
            _LEAST, _MOST,
        ),
    }  # fmt: skip
    one = {"oneOf": [{"required": ["at_least"]}, {"required": ["at_most"]}]}
    each = closed("A guardrail.", in_order(KEYS, keys), required=["metric"], allOf=[one])
    return listed("What no variant may do to a metric: the experiment pauses itself when one does.", each, minItems=1)
