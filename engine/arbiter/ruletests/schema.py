"""The JSON Schema of test files.

Law: shapes only, from the keys that the readers use. What a rule set has names for is for the readers to say.
"""

from __future__ import annotations

from arbiter.authoring.schemas import (
    Schema,
    boolean,
    closed,
    document,
    either,
    integer,
    listed,
    number,
    optional,
    ref,
    text,
    word,
)
from arbiter.ruletests.expect import KEYS, REASON_KEYS, REASONS, TREATMENT_KEYS
from arbiter.ruletests.files import SECTIONS, TEST_KEYS
from arbiter.ruletests.firings import FIRING_KEYS
from arbiter.ruletests.firings import KEYS as FORESEEN
from arbiter.ruletests.given import MOST_SLOTS, SETTINGS

_ANYTHING: Schema = {"type": ["string", "number", "boolean", "array", "object", "null"]}


def _values(description: str, each: Schema | None = None) -> Schema:
    return {"description": description, "type": "object", "additionalProperties": each or _ANYTHING}


def _expected() -> Schema:
    params = {"type": "object", "additionalProperties": _ANYTHING}
    treatment = closed(
        "A treatment: what is not said is not compared.",
        {
            "rule": text("The rule that gives it; `table#1` for the first row of a table."),
            "action": text("The action."),
            "params": params | {"description": "All parameters, no others."},
            "some_params": params | {"description": "These parameters, among others."},
            "value": number("What the rule is worth.", -1.7976931348623157e308, 1.7976931348623157e308),
            "priority": integer("The rule's priority."),
        },
    )
    treatments = listed("", either("A rule's id, or more about the treatment.", text(""), treatment))
    why = word("What became of the rule.", REASONS)
    reason = closed(
        "What became of the rule, and why.",
        {
            "reason": why,
            "lost_to": text("The rule that took its slot or group."),
            "lost_on": text("The order key that decided."),
            "expression": text("The part of the condition that failed or is unknown."),
            "missing": listed("The names that were missing.", text("A name: `profile.country`.")),
        },
        required=["reason"],
    )
    same = {KEYS: set(KEYS), TREATMENT_KEYS: set(treatment["properties"]), REASON_KEYS: set(reason["properties"])}
    if any(set(keys) != known for keys, known in same.items()):
        raise KeyError(*same)
    return closed(
        "What comes back; what is not said is not compared.",
        _foreseen()
        | {
            "treatments": treatments | {"description": "All treatments, in order."},
            "includes": treatments | {"description": "Treatments among the others."},
            "absent": listed("Rules that give nothing.", text("A rule's id.")),
            "defaulted": boolean("Whether no rule won."),
            "reasons": {
                "description": "What becomes of rules, by id.",
                "type": "object",
                "additionalProperties": either("", why, reason),
            },
        },
        minProperties=1,
    )


def _foreseen() -> dict[str, Schema]:
    """What is expected of triggers."""
    names = either("", text(""), listed("", text("")))
    acts = {
        "set": _values("The attributes that it sets."),
        "unset": names,
        "increment": _values("The numbers that it adds."),
        "enter_segment": names,
        "leave_segment": names,
        "emit": either("", text(""), closed("", {"event": text(""), "properties": _values("")})),
        "decide": either("", text(""), closed("", {"decision": text(""), "context": _values("")})),
    }
    keys = {"trigger": text("The trigger that fires."), "at": text("When: RFC 3339, or `3d ago`."), **acts}
    firing = closed("A firing: what is not said is not compared.", {key: keys[key] for key in FIRING_KEYS},
                    required=["trigger"])  # fmt: skip
    firings = listed("", either("A trigger's id, or more about the firing.", text(""), firing))
    said = {
        "firings": firings | {"description": "All firings up to the test's clock, in order."},
        "fires": firings | {"description": "Firings among the others."},
        "silent": listed("Triggers that do not fire.", text("A trigger's id.")),
    }
    return {key: said[key] for key in FORESEEN}


def _settings() -> dict[str, Schema]:
    moment = "RFC 3339, or `3d ago`."
    event = {
        "description": "An event of the subject.",
        "type": "object",
        "properties": {
            "type": text("The event's type."),
            "at": text(f"When it happened: {moment}"),
            "properties": _values("Properties that `type` and `at` would hide."),
        },
        "required": ["type", "at"],
        "additionalProperties": _ANYTHING,
    }
    keys = {
        "decision": text("The decision point that is asked."),
        "decisions": listed("Several decision points, asked as one page.", text("A decision point.")),
        "now": text(f"The clock. {moment}"),
        "subject": text("The subject's id. Rollouts depend on it."),
        "granted": listed("The purposes that the subject consented to. Never granted is denied.", text("A purpose.")),
        "slots": integer("How many treatments are asked for.", 1, MOST_SLOTS),
        "events": listed("The subject's events; features are computed from them.", event),
        "profile": _values("Attributes of the profile."),
        "account": _values("Attributes of the subject's account."),
        "context": _values("What is sent with the request."),
        "changed": _values("When attributes and features changed: `{profile.NAME: 3d ago}`."),
        "features": _values("Features that are said, not computed from events."),
        "segments": _values("Segments that are said to be true or false."),
        "experiments": _values("The variants that the subject is said to be in; empty text for none."),
        "shown": _values("When rules with a `cap` were shown: `{RULE: [3d ago, 1h ago]}`.", listed("", text(moment))),
        "models": _values("What models are said to answer: `{MODEL: {OUTPUT: value}}`.", optional(_values("Outputs."))),
    }
    # `null` takes back what `defaults` or the test says.
    return {key: optional(keys[key]) for key in SETTINGS}


def tests_schema() -> Schema:
    """The JSON Schema of one document of a test file."""
    page = {"type": "object", "additionalProperties": ref("expected"), "minProperties": 1}
    expect = either("What comes back, or that for each decision of a page.", ref("expected"), page)
    settings = _settings()
    case = closed("What is special to this case.", {"name": text("What is special."), **settings, "expect": expect})
    test = {
        "name": text("What is to happen, in a few words."),
        **settings,
        "expect": expect,
        "cases": listed("Cases of the test: what the test says holds for all.", case, minItems=1),
    }
    root = {
        "defaults": closed("What holds for every test of the file.", {**settings, "expect": expect}),
        "tests": listed("The tests.", closed("A test.", {key: test[key] for key in TEST_KEYS}, required=["name"])),
    }
    said = "Tests of a rule set: `arbiter test` runs them."
    sections = {key: root[key] for key in SECTIONS}
    return document("Arbiter rule tests", said, closed("", sections, required=["tests"]), {"expected": _expected()})
