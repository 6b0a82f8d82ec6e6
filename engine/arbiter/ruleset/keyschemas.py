"""The JSON Schema of keys that several sections have: conditions, durations, purposes, dates, tags.

Law: shapes only, as in `schema`; what `keys` and `dates` read.
"""

from __future__ import annotations

from typing import Any

from arbiter.authoring.scalars import UNITS
from arbiter.authoring.schemas import (
    Schema,
    closed,
    either,
    identifier,
    listed,
    name,
    scalar,
    text,
    whole,
)
from arbiter.ruleset import times
from arbiter.ruleset.expressions import LONGEST

DURATION = whole("0*[1-9][0-9]*" + f"[{''.join(UNITS)}]")


def in_order(keys: tuple[str, ...], schemas: dict[str, Schema]) -> dict[str, Schema]:
    """The schemas in the reader's order of keys. Raises KeyError when one of the two has a key more."""
    if schemas.keys() - set(keys):
        raise KeyError(*(schemas.keys() - set(keys)))
    return {key: schemas[key] for key in keys}


def expression(description: str) -> Schema:
    """CEL."""
    return scalar(description, LONGEST)


def conditions(description: str) -> Schema:
    """One condition, or a list of them."""
    condition = expression("A condition: CEL that is true or false.")
    return either(description, condition, listed("", condition))


def duration(description: str) -> Schema:
    """A duration of more than nothing."""
    return text(description, pattern=DURATION)


def purposes(description: str, **rules: Any) -> Schema:
    """A list of purposes."""
    return listed(description, name("A purpose, declared under `consent`."), minItems=1, uniqueItems=True, **rules)


def active(what: str) -> Schema:
    """The dates between which something is on."""
    moment = whole(f"(?:{times.TIMESTAMP.pattern}|{times.WALL.pattern})")
    return closed(
        f"When the {what} is on; half-open.",
        {
            "from": text("The first moment, RFC 3339: `2026-11-01T00:00:00Z`. UTC without an offset. With `zone` "
                         "a local day or time: `2026-11-01`, `2026-11-01T09:00`.", pattern=moment),
            "until": text("The first moment at which it is off again.", pattern=moment),
            "zone": text("The zone whose clock `from` and `until` mean, `Europe/Paris`, or `subject`: the "
                         "subject's own."),
        },
        anyOf=[{"required": ["from"]}, {"required": ["until"]}],
    )  # fmt: skip


def tags() -> Schema:
    """Tags."""
    return listed("For people and tools; no effect.", identifier("A tag."))
