"""The JSON Schema of ``cap`` and ``caps``.

Law: shapes only, as in `ruleset.schema`.
"""

from __future__ import annotations

from arbiter.authoring.scalars import IDENTIFIER
from arbiter.authoring.schemas import Schema, boolean, closed, integer, named, text, whole, word
from arbiter.ruleset.caps import read
from arbiter.ruleset.keyschemas import DURATION, duration, in_order


def cap() -> Schema:
    """How often a subject may be shown a rule."""
    return _cap("How often one subject may be shown the rule.")


def shared() -> Schema:
    """The section ``caps``."""
    run = {
        "max": integer("How often running at most.", 1, read.MOST),
        "within": duration("How long what was shown stands in the way: `1d`. For good when left out."),
        "count_on": word("What counts. `exposure`: that it was shown, as callers report it.", read.RUN_COUNTED),
    }
    said = "Of a channel how often the same rule may be shown running."
    runs = closed(said, in_order(read.RUN_KEYS, run), required=["max", "count_on"])
    of_action = _cap("How often one subject may be shown the action.")
    of_group = _cap("How often one subject may be shown any rule of the group.")
    of_channel = _cap("How often one subject may be shown anything in the channel.")
    keys = {
        "all": _cap("How often one subject may be shown anything that a rule gives."),
        "actions": named("By action.", of_action, IDENTIFIER.pattern),
        "groups": named("By group.", of_group, IDENTIFIER.pattern),
        "channels": named("By channel: a decision point, or the `channel` of several.", of_channel, IDENTIFIER.pattern),
        "in_a_row": named("By channel.", runs, IDENTIFIER.pattern),
    }
    return closed("Caps that rules share.", in_order(read.SECTION_KEYS, keys))


def _count_on() -> Schema:
    said = "What counts. `exposure`: that it was shown, as callers report it. `decision`: that it was decided."
    return word(said, read.COUNTED)


def _cap(description: str) -> Schema:
    period = whole(f"{DURATION}|{'|'.join((*read.CALENDAR, read.LIFETIME))}")
    keys = {
        "max": integer("How often in the period.", 1, read.MOST),
        "per": text(
            "The period: `7d`, rolling; `day` or `week` in the subject's time zone; `lifetime`.", pattern=period
        ),
        "cool_down": duration("How long not again after the last time: `12h`."),
        "count_on": _count_on(),
        "strict": boolean("Whether it is never more, whoever decides at once; for `count_on: decision`."),
    }
    either = [{"required": ["max", "per"]}, {"required": ["cool_down"], "not": {"anyOf": _REQUIRED}}]
    return closed(description, in_order(read.KEYS, keys), required=["count_on"], anyOf=either)


_REQUIRED: list[Schema] = [{"required": ["max"]}, {"required": ["per"]}]
