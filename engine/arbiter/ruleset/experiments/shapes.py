"""The JSON Schema of ``experiments``, ``layers`` and ``holdout``.

Law: shapes only, as in `ruleset.schema`, which puts these sections beside the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.authoring.scalars import IDENTIFIER, NAME
from arbiter.authoring.schemas import (
    boolean,
    closed,
    either,
    identifier,
    listed,
    named,
    number,
    optional,
    text,
    whole,
)
from arbiter.ruleset.authored import BY
from arbiter.ruleset.experiments.guardrails import guardrails
from arbiter.ruleset.experiments.read import HOLDOUT_KEYS, KEYS, LAYER_KEYS, MOST_VARIANTS, STEP_KEYS
from arbiter.ruleset.keyschemas import active, conditions, in_order
from arbiter.ruleset.times import TIMESTAMP

if TYPE_CHECKING:
    from arbiter.authoring.schemas import Schema

_HEAVIEST = 1.7976931348623157e308


def experiments() -> dict[str, Schema]:
    """The sections, by name."""
    layer = {"holdout": _share("How much of it is in none."), "salt": _salt("`layer:NAME`")}
    holdout = {"share": _share("How many of all."), "unit": _unit(), "salt": _salt("`holdout`")}
    told = "The share of subjects that are in no experiment at all. It stands in one file."
    said = "Experiments of a layer never have the same subject: each has a part of it of its own."
    return {
        "experiments": named("Who gets which variant of what, for use as `experiments.X`.", _experiment()),
        "layers": named(said, optional(closed("A layer.", in_order(LAYER_KEYS, layer))), IDENTIFIER.pattern),
        "holdout": optional(closed(told, in_order(HOLDOUT_KEYS, holdout), required=["share"])),
    }


def _share(description: str) -> Schema:
    return number(f"{description} From 0 to less than 1.", 0, 1)


def _salt(default: str) -> Schema:
    return identifier(f"What is hashed with the unit. {default} when left out; another meets others.")


def _unit() -> Schema:
    said = "What is split: `subject` (the default), `account`, `profile.X`, `account.X` or `context.X`."
    return text(said, pattern=whole(rf"subject|account|(?:{'|'.join(BY)})\.{NAME.pattern}"))


def _weights(description: str) -> Schema:
    weights = named(description, number("The weight.", 0, _HEAVIEST), IDENTIFIER.pattern)
    return weights | {"minProperties": 2, "maxProperties": MOST_VARIANTS}


def _experiment() -> Schema:
    point = identifier("A decision point.")
    moment = text("From when on, RFC 3339.", pattern=whole(TIMESTAMP.pattern))
    traffic = "The share of its layer that it has, from 0 to 1"
    step = closed("A step.", {"from": moment, "traffic": number(f"{traffic}, from then on.", 0, 1)},
                  required=list(STEP_KEYS))  # fmt: skip
    keys = {
        "decision": either("Where its variants differ: only rules of these decisions may read it.", point,
                           listed("", point, minItems=1, uniqueItems=True)),
        "layer": identifier("The layer of which it has a part. Alone when left out."),
        "offset": _share("Where its part of the layer begins."),
        "traffic": number(f"{traffic}. All of it when left out.", 0, 1),
        "ramp": listed("Its traffic by date: nothing before the first step.", step, minItems=1),
        "variants": _weights("The variants and their weights."),
        "factors": named("Several things that differ, each drawn by itself: `experiments.X.FACTOR`.",
                         _weights("The levels and their weights.")) | {"minProperties": 1},
        "when": conditions("Whom it is for. It may read no model and no experiment."),
        "unit": _unit(),
        "salt": _salt("The experiment's name"),
        "forced": named("Testers: by variant the units that get it, whatever is drawn.",
                        {"type": "array", "items": {"type": ["string", "number", "boolean"]}}, ".*"),
        "sticky": boolean("Whether who was shown a variant keeps it, whatever weights and traffic become."),
        "guardrails": guardrails(),
        "active": active("experiment"),
        "enabled": boolean("`false`: nobody is in it."),
    }  # fmt: skip
    one = {"oneOf": [{"required": ["variants"]}, {"required": ["factors"]}]}
    alone = {"not": {"required": ["ramp", "traffic"]}}
    return closed("An experiment.", in_order(KEYS, keys), required=["decision"], allOf=[one, alone])
