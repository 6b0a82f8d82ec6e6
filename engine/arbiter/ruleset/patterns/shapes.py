"""The JSON Schema of one trigger.

Law: shapes only, as in `schema`, drawn from the constants that the readers use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.authoring.scalars import NAME
from arbiter.authoring.schemas import (
    Schema,
    boolean,
    closed,
    either,
    identifier,
    integer,
    listed,
    name,
    ref,
    text,
    whole,
    word,
)
from arbiter.ruleset.keyschemas import active, conditions, duration, expression, in_order, purposes, tags
from arbiter.ruleset.patterns import acts, steps
from arbiter.ruleset.patterns.read import KEYS, OF_REPEAT, OVERALL, WORDS
from arbiter.ruleset.patterns.steps import ANY, MOST_STEPS, MOST_TIMES, MOST_TYPES, OF_UNLESS, PATTERNS

if TYPE_CHECKING:
    from arbiter.ruleset.triggers import Pattern

_SAID: dict[Pattern, str] = {
    "after": "Each such event.",
    "sequence": "These events, in this order.",
    "count": "So many such events.",
    "any": "Each event that is one of these.",
    "all": "These events, in any order.",
}
_VALUE = ref("parameter")


def _events(description: str, *, any_type: bool = False) -> Schema:
    one = name("A type of event, declared under `schema.events` if any is.")
    several = listed("One of these types.", one, minItems=1, maxItems=MOST_TYPES, uniqueItems=True)
    return either(description, one, several, *([{"const": ANY}] if any_type else []))


def _step(kind: Pattern, description: str = "") -> Schema:
    keys = {
        "event": _events("The type of event that is waited for, or a list of them."),
        "as": name("What the event is called in conditions and values; its type when left out."),
        "where": expression("A condition on `event.X`, and on `LABEL.X` of the steps before."),
        "within": duration("How soon: after the step before, or of a count from the first to the last; half-open."),
        "times": integer("How many events.", 2, MOST_TIMES),
        "by": text("Counts events apart that differ in this property: `event.course`.",
                   pattern=whole(rf"event\.{NAME.pattern}")),
    }  # fmt: skip
    known = steps.KEYS[kind]
    required = ["event", "times"] if kind == "count" else ["event"]
    return closed(description, in_order(known, {key: keys[key] for key in known}), required=required)


def _pattern(kind: Pattern) -> Schema:
    if kind not in MOST_STEPS:
        return _step(kind, _SAID[kind])
    return listed(_SAID[kind], _step(kind), minItems=2, maxItems=MOST_STEPS[kind])


def _unless() -> Schema:
    keys = {
        "event": _events("The type of event, a list of them, or `*` for any.", any_type=True),
        "where": expression("A condition on `event.X`, and on `LABEL.X` of the pattern's steps."),
        "within": duration("How long it is waited for, from the pattern's last event on."),
    }
    said = "An event that keeps the trigger from firing, which is why it waits: it fires when `within` is over."
    return closed(said, in_order(OF_UNLESS, keys), required=["event", "within"])


def _values(description: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": whole(NAME.pattern)},
        "additionalProperties": _VALUE,
    }


def _names(description: str) -> Schema:
    one = name("A name.")
    return either(description, one, listed("", one, minItems=1, uniqueItems=True))


def _then() -> Schema:
    some: dict[str, Any] = {"minProperties": 1}
    emit = {"event": name("The type of the event."), "properties": _values("Its properties.")}
    decide = {"decision": identifier("The decision point."), "context": _values("What a request would send.")}
    keys = {
        "set": _values("Attributes of the subject and their values.") | some,
        "unset": _names("Attributes of the subject that are taken away."),
        "increment": _values("Attributes of the subject and the numbers that are added to them.") | some,
        "enter_segment": _names("Managed segments that the subject enters."),
        "leave_segment": _names("Managed segments that the subject leaves."),
        "emit": either(
            "An event of the subject that happens, and that triggers see.",
            name("Its type."),
            closed("", in_order(acts.OF_EMIT, emit), required=["event"]),
        ),
        "decide": either(
            "A decision that is made and pushed to who subscribed.",
            identifier("The decision point."),
            closed("", in_order(acts.OF_DECIDE, decide), required=["decision"]),
        ),
    }
    said = "What is done when it fires, all of it or nothing. Values are plain YAML; `${expression}` is CEL."
    return closed(said, in_order(acts.KEYS, keys), minProperties=1)


def trigger() -> Schema:
    """A trigger."""
    per = closed("", in_order(OF_REPEAT, {"per": duration("At most once in so long.")}), required=["per"])
    keys: dict[str, Schema] = {
        "id": identifier("Unique among the triggers of the whole rule set."),
        "within": duration("How close together, from the first event to the last, half-open; for `sequence`, `all`."),
        "unless": _unless(),
        "when": conditions(
            "One condition, or a list of them joined by AND, on the subject when it fires, and on the events by their "
            "labels. Where it is not true, nothing is done."
        ),
        "then": _then(),
        "repeat": either("How often it fires for a subject: `every` time (the default), or less.",
                         word("", WORDS), per),
        "priority": integer("Of triggers that fire at the same time for a subject, the higher first. 0 when left out."),
        "requires_consent": purposes("Without consent to all of it nothing is done. Never granted is denied."),
        "active": active("trigger"),
        "tags": tags(),
        "enabled": boolean("`false` takes it out: it sees no events."),
    }  # fmt: skip
    keys |= {kind: _pattern(kind) for kind in PATTERNS}
    overall = {"if": {"required": ["within"]}, "then": {"anyOf": [{"required": [kind]} for kind in OVERALL]}}
    return closed(
        "A rule over time: a pattern over a subject's events, and what is done when it is complete.",
        in_order(KEYS, keys),
        required=["id", "then"],
        allOf=[{"oneOf": [{"required": [kind]} for kind in PATTERNS]}, overall],
    )
