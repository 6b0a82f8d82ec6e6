"""The JSON Schema of rule files: what an editor can tell a person while they type.

Law: shapes only, drawn from the constants that the readers use; what is more than shape (names that must exist, types
of expressions) is for the readers to say. It refuses nothing that loads: a test holds the two together. The order of
keys here is the order in which ``arbiter fmt`` puts them.
"""

from __future__ import annotations

from typing import Final

from arbiter.authoring.scalars import IDENTIFIER, NAME, UNITS
from arbiter.authoring.schemas import (
    Schema,
    boolean,
    closed,
    document,
    either,
    identifier,
    integer,
    listed,
    name,
    named,
    number,
    optional,
    ref,
    text,
    whole,
    word,
)
from arbiter.ruleset import authored
from arbiter.ruleset.caps.shapes import cap, shared
from arbiter.ruleset.consent import KEYS as CONSENT_KEYS
from arbiter.ruleset.declarations import (
    LISTABLE,
    MERGES,
    MOST_ITEMS,
    OF_ATTRIBUTE,
    OF_PARAMETER,
    OF_PROFILE,
    OF_STORED,
    PURPOSES,
)
from arbiter.ruleset.effects import KEYS as EFFECT_KEYS
from arbiter.ruleset.experiments.shapes import experiments
from arbiter.ruleset.features import AGGREGATES, OF_EITHER, OF_EVENTS
from arbiter.ruleset.groups import groups
from arbiter.ruleset.keyschemas import DURATION, active, conditions, expression, in_order, purposes, tags
from arbiter.ruleset.metrics import metrics
from arbiter.ruleset.patterns.shapes import trigger
from arbiter.ruleset.points import KEYS as POINT_KEYS
from arbiter.ruleset.points import MAX_SLOTS, ORDER_KEYS
from arbiter.ruleset.tables.columns import MAX_COLUMNS
from arbiter.ruleset.tables.read import GAPS, POLICIES
from arbiter.ruleset.tables.read import KEYS as TABLE_KEYS
from arbiter.ruleset.tables.rows import MAX_ROWS
from arbiter.types import type_names

FOLDED: Final = frozenset(
    {
        "then",
        "default",
        "params",
        "rollout",
        "active",
        "cap",
        "variants",
        "forced",
        "order",
        "tags",
        "values",
        "labels",
        "purposes",
        "requires_consent",
        "after",
        "sequence",
        "count",
        "any",
        "all",
        "unless",
        "event",
        "repeat",
        "set",
        "unset",
        "increment",
        "enter_segment",
        "leave_segment",
        "emit",
        "decide",
    }
)
"""Keys whose values ``arbiter fmt`` puts in brackets where they fit on the line."""

_SAID: Final = {
    "priority": "The higher first. Known when files load.",
    "specificity": "More conjuncts first: list items of `when`, and parts joined by `&&`. Known when files load.",
    "value": "The higher value of the rule's `value` expression first; unknown comes last.",
    "recency": "The latest change among the attributes and features that the condition reads first.",
}
_TAKES: Final = {
    "count": "How many events there were: `count: purchase`. An int; 0 of nothing.",
    "sum": "The exact total of a property: `sum: purchase.amount`. 0 of nothing.",
    "since": "The age of the newest event, a fraction of `unit`: `since: purchase`. Missing of nothing.",
    "distinct": "How many different values a property had: `distinct: purchase.category`. Missing of nothing.",
    "first": "The property's value at the earliest event: `first: visit.channel`. Missing of nothing.",
    "last": "The property's value at the latest event: `last: visit.channel`. Missing of nothing.",
    "min": "The smallest number: `min: purchase.amount`. Missing of nothing.",
    "max": "The largest number: `max: purchase.amount`. Missing of nothing.",
    "mean": "The mean, a double: `mean: purchase.amount`. Missing of nothing.",
    "decay": "A number of events, or the total of a property, of which each counts half as much with every `half_life` "
    "that passes: `decay: purchase` or `decay: purchase.amount`. A double; 0 of nothing.",
}
_VALUES: Final = {
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "double": {"type": "number"},
    "bool": {"type": "boolean"},
}


_DEFAULTS: Final = _VALUES | {
    "timestamp": {"type": "string"},
    "list": {"type": "array"},
    "map": {"type": "object"},
    "bytes": False,
}


def _parameters() -> dict[str, Schema]:
    """A parameter may be anything but nothing, at any depth; keys never hold `${}`, constants nowhere."""
    made = {}
    for kind, said in (("parameter", {}), ("constant", {"not": {"pattern": r"(^|[^$])\$\{"}})):
        made[kind] = {
            "anyOf": [
                {"type": "string"} | said,
                {"type": ["number", "boolean"]},
                {"type": "array", "items": ref(kind)},
                {"type": "object", "propertyNames": {"not": {"pattern": r"\$\{"}}, "additionalProperties": ref(kind)},
            ]
        }
    return made


def _effect(description: str, kind: str) -> Schema:
    params = {"type": "object", "propertyNames": {"not": {"pattern": r"\$\{"}}, "additionalProperties": ref(kind)}
    note = "Plain YAML." if kind == "constant" else "Plain YAML; `${expression}` inside a string is CEL."
    keys = {
        "action": identifier("What is done: an action's name, declared under `actions` if any is."),
        "params": {"description": f"The action's parameters. {note}"} | params,
    }
    needed = ["action"] if kind == "constant" else []
    return closed(description, in_order(EFFECT_KEYS, keys), required=needed)


def _declaration(what: str, keys: tuple[str, ...]) -> Schema:
    kind = word(f"The type of the {what}.", type_names)
    schemas = {
        "type": kind,
        "values": listed("The only values that it has.", {}, minItems=1, uniqueItems=True),
        "personal": boolean("Whether its values stay out of explanations, logs, traces and metrics."),
        "purposes": purposes("What a subject must have consented to, all of it, for its value to be seen."),
        "optional": boolean("Whether the parameter may be left out."),
        "default": {"description": "What stands for an absent one, in decisions and where updates start from it."},
        "max_items": {
            "description": "The items that the list has at most: the oldest go when one is added beyond it.",
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_ITEMS,
        },
        "merge": word("What becomes of it when two ids that both have it are linked. `keep` when left out.", MERGES),
    }
    limits: list[Schema] = [
        {
            "if": {"properties": {"type": {"const": name}}},
            "then": {"properties": {"values": {"items": _VALUES[name]}}},
        }
        for name in LISTABLE
    ]
    limits.append(
        {
            "if": {"properties": {"type": {"enum": [name for name in type_names if name not in LISTABLE]}}},
            "then": {"not": {"required": ["values"]}},
        }
    )
    if "default" in keys:
        limits += [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"default": kind_of_default}}}
            for name, kind_of_default in _DEFAULTS.items()
        ]
    if "max_items" in keys:
        limits.append(
            {"if": {"properties": {"type": {"not": {"const": "list"}}}}, "then": {"not": {"required": ["max_items"]}}}
        )
    if "merge" in keys:
        limits += [
            {
                "if": {"properties": {"type": {"not": {"enum": list(types)}}}},
                "then": {"properties": {"merge": {"not": {"const": merge}}}},
            }
            for merge, types in MERGES.items()
            if set(types) != set(type_names)
        ]
    inner = closed("", in_order(keys, {key: schemas[key] for key in keys}), required=["type"], allOf=limits)
    return either(f"The type of the {what}, or `{{type: ..., values: [...]}}`.", kind, inner)


def _schema() -> Schema:
    stored = _declaration("attribute", OF_STORED)
    attribute = _declaration("attribute", OF_ATTRIBUTE)
    properties = _declaration("property", OF_ATTRIBUTE)
    own = purposes("What a subject must have consented to, all of it, for features to count such events.")
    properties_by_name = named("The event's properties and their types.", properties)
    events = optional(properties_by_name | {"properties": {PURPOSES: either("", own, properties)}})
    return closed(
        "Declarations of names and types, for the whole rule set: with them a typo in a name is an error.",
        {
            "profile": named("The stored attributes of a subject.", _declaration("attribute", OF_PROFILE)),
            "account": named("The stored attributes of an account: a company, a household.", stored),
            "context": named("The attributes sent with a request.", attribute),
            "events": named("The types of events and their properties.", events),
        },
    )


def _actions() -> Schema:
    params = named("The parameters that it takes, and their types.", _declaration("parameter", OF_PARAMETER), ".*")
    action = optional(closed("An action.", {"params": params}))
    return named("What rules may do. With any declared, another is an error.", action, IDENTIFIER.pattern)


def _decisions() -> Schema:
    order = {"oneOf": [{"const": key, "description": _SAID[key]} for key in ORDER_KEYS]}
    keys = {
        "slots": integer("How many treatments come back at most. A request may ask for fewer.", 1, MAX_SLOTS),
        "order": listed(
            "What decides between rules, first key first. Rules equal in all are ordered by id.",
            order,
            uniqueItems=True,
        ),
        "channel": identifier("What it shares caps of channels with. Its own name when left out."),
        "default": _effect("Given when no rule won. Constant: no `${}`.", "constant"),
    }
    point = optional(closed("A decision point. Nothing behind its name takes every default.",
                            in_order(POINT_KEYS, keys)))  # fmt: skip
    return named("Where a decision is asked.", point, IDENTIFIER.pattern)


def _features() -> Schema:
    event, path = whole(NAME.pattern), whole(rf"{NAME.pattern}\.{NAME.pattern}")
    either = whole(rf"{NAME.pattern}(\.{NAME.pattern})?")
    takes = dict.fromkeys(AGGREGATES, path) | dict.fromkeys(OF_EVENTS, event) | dict.fromkeys(OF_EITHER, either)
    keys: dict[str, Schema] = {each: text(_TAKES[each], pattern=takes[each]) for each in _TAKES}
    keys |= {
        "ratio": listed("The first feature by the second, a double: `ratio: [orders_30d, visits_30d]`. Missing where "
                        "the second is 0 or either is missing.",
                        text("The name of a feature that is no ratio.", pattern=event), minItems=2, maxItems=2),
        "window": text("How far back it looks: `5m`, `12h`, `7d`, `4w`. Without it, all time.", pattern=DURATION),
        "where": expression("A condition on `event.X`: an event for which it is not true does not count."),
        "unit": word("The unit of `since`.", UNITS),
        "half_life": text("How long it takes until an event counts half as much in `decay`.", pattern=DURATION),
        "purposes": purposes("What a subject must have consented to, beside what its events are for."),
    }  # fmt: skip
    one = {"oneOf": [{"required": [aggregate]} for aggregate in AGGREGATES]}
    return named(
        "Values computed from the subject's events, or of two others, by name.",
        closed("One aggregate.", keys, allOf=[one, _only_with("since", "unit"), _only_with("decay", "half_life")]),
    )


def _only_with(aggregate: str, key: str) -> Schema:
    """That a key is there with an aggregate and only with it."""
    return {"if": {"required": [aggregate]}, "then": {"required": [key]}, "else": {"not": {"required": [key]}}}


def _segments() -> Schema:
    condition = expression("A condition: CEL that is true or false. `managed`: triggers and the API say who is in it.")
    return named("Named conditions, for use in others as `segments.X`.", condition)


def _table() -> dict[str, Schema]:
    """What makes a rule a decision table."""
    columns = {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "maxItems": MAX_COLUMNS}
    by_name = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    rows = listed(
        "The rows: a list of cells each, conditions before outputs, or a mapping from columns to cells. Cells of "
        'conditions: `-` for any, `"a", "b"`, `not("a")`, `> 5`, `[1..10)`, `${condition}`.',
        {"type": ["array", "object"]},
        minItems=1,
        maxItems=MAX_ROWS,
    )
    return {
        "table": text("The CSV file that holds the rows, beside this file. Its first line names the columns."),
        "hit_policy": word(
            "`unique` (the default): no two rows may match together. `first`: the upper row wins. `priority`: the "
            "row with the highest one. `any`: rows that match together must give the same.",
            POLICIES,
        ),
        "inputs": either(
            "The condition columns: names such as `profile.plan`, or `{name: expression}`.", columns, by_name
        ),
        "outputs": either(
            "The output columns: names of parameters, or `{name: key}`, of `action`, `priority`, `value`, `enabled`, "
            "`active.from`, `active.until`, `params.X`.",
            columns,
            by_name,
        ),
        "rows": rows,
        "gaps": word("Whether `arbiter check` tells of inputs that no row matches.", GAPS),
    }


def _rule() -> Schema:
    keys = {
        "id": identifier("Unique in the whole rule set."),
        "decision": identifier("The decision point at which the rule competes."),
        "priority": integer("The higher wins. 0 when left out."),
        "when": conditions(
            "One condition, or a list of them joined by AND. Left out, the rule always matches. "
            "A condition that reads something missing is unknown, and does not match."
        ),
        "then": _effect("What is given when the rule wins.", "parameter"),
        "value": expression("A number in CEL: what the rule is worth, where the decision orders by `value`."),
        "group": identifier("At most one rule of a group wins at a decision point."),
        "requires_consent": purposes("Without consent to all of it the rule is out. Never granted is denied."),
        "rollout": closed(
            "The share of subjects for whom the rule is on, stable for each of them.",
            {
                "percent": number("Of a hundred subjects, how many.", 0, authored.PERCENT),
                "by": text(
                    "What is hashed: `subject` (the default), `profile.X`, `account.X` or `context.X`.",
                    pattern=whole(rf"subject|(?:{'|'.join(authored.BY)})\.{NAME.pattern}"),
                ),
                "salt": identifier("Rules that share it include the same people first. The rule's id when left out."),
            },
            required=["percent"],
        ),
        "active": active("rule"),
        "cap": cap(),
        "tags": tags(),
        "enabled": boolean("`false` takes the rule out, and explanations say so."),
    }  # fmt: skip
    is_table = {
        "if": {"anyOf": [{"required": [key]} for key in TABLE_KEYS]},
        "then": {
            "required": ["inputs", "outputs"],
            "oneOf": [{"required": ["table"]}, {"required": ["rows"]}],
        },
        "else": {"required": ["then"], "properties": {"then": {"required": ["action"]}}},
    }
    return closed(
        "A rule: condition, priority, action. With `inputs`, `outputs` and rows it is a decision table.",
        in_order(authored.KEYS + TABLE_KEYS, keys | _table()),
        required=["id", "decision"],
        allOf=[is_table],
    )  # fmt: skip


def _subject() -> Schema:
    return closed(
        "What is known of every subject. It stands in one file.",
        {
            "time_zone": text("The attribute that holds the name of the subject's time zone: `profile.time_zone`.",
                              pattern=whole(rf"profile\.{NAME.pattern}")),
            "default_time_zone": text("The zone of who has none, or one that does not exist. `UTC` when left out."),
        },
        required=["time_zone"],
    )  # fmt: skip


def _consent() -> Schema:
    keys = {"purposes": listed("Their names.", name("A purpose."), minItems=1)}
    return closed("What subjects are asked to consent to.", in_order(CONSENT_KEYS, keys), required=["purposes"])


def rules_schema() -> Schema:
    """The JSON Schema of one document of a rule file."""
    sections = {
        "schema": optional(_schema()),
        "actions": optional(_actions()),
        "decisions": optional(_decisions()),
        "segments": optional(_segments()),
        "features": optional(_features()),
        "subject": optional(_subject()),
        "consent": optional(_consent()),
        **experiments(),
        "metrics": optional(metrics()),
        "caps": optional(shared()),
        "groups": optional(groups()),
        "rules": optional(listed("The rules, in any order.", _rule())),
        "triggers": optional(listed("Rules over time, in any order.", trigger())),
    }
    root = optional(closed("", sections))
    said = "A file of a rule set: every section may stand in as many files as you like."
    return document("Arbiter rule file", said, root, _parameters())
