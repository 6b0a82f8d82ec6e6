"""``active`` of a rule: from when until when it is on, by instants, by the clock of a place, or by each subject's own.

Law: reads nodes into `Active`, and the section ``subject`` into what tells a subject's zone. What the clock says is
not known here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import Block
from arbiter.authoring.nodes import Mapping, Scalar, as_text, kind_of
from arbiter.authoring.scalars import NAME, shorten
from arbiter.errors import did_you_mean
from arbiter.expr import zones
from arbiter.ruleset.terms import Active, LocalDates, SubjectZone
from arbiter.ruleset.times import rfc3339, wall_time
from arbiter.types import EPOCH, to_micros

if TYPE_CHECKING:
    from arbiter.authoring.nodes import Node
    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared

KEYS: Final = ("from", "until", "zone")
SUBJECT: Final = "subject"
SUBJECT_KEYS: Final = ("time_zone", "default_time_zone")
# No clock has ever been farther from UTC.
_FARTHEST: Final = timedelta(hours=16) // timedelta(microseconds=1)


def read_active(block: Block, declared: Declared) -> Active | None:
    """The dates of a rule; None when it has none, or wrong ones."""
    node = block.mapping("active", "write `{from: 2026-11-01T00:00:00Z}`")
    if node is None:
        return None
    inner = Block(node, block.report, what="`active`", path=f"{block.path}.active", keys=KEYS)
    if not {"from", "until"} & node.entries.keys() and not node.partial:
        inner.refuse(block.key("active"), "`active` says neither `from` nor `until`", "remove it, or say one")
    if not inner.has("zone"):
        start, until = _instant(inner, "from"), _instant(inner, "until")
        _check_order(inner, start, until)
        return Active(start, until)
    zone = _zone(inner, "zone", (SUBJECT,))
    walls = _wall(inner, "from"), _wall(inner, "until")
    if zone is None:
        return None
    if zone == SUBJECT:
        _check_order(inner, *walls)
        return _of_subject(inner, walls, declared)
    start, until = (None if wall is None else zones.instant_of(zone, wall) for wall in walls)
    _check_order(inner, start, until)
    return Active(start, until, zone)


def _of_subject(block: Block, walls: tuple[int | None, int | None], declared: Declared) -> Active | None:
    if declared.zone is None:
        node = block.get("zone")
        if node is not None and not declared.zone_refused:
            hint = "say where it stands: `subject: {time_zone: profile.time_zone}` at the top of a file"
            block.refuse(node, "no file says where a subject's time zone stands", hint, "zone")
        return None
    start, until = walls
    return Active(
        None if start is None else start - _FARTHEST,
        None if until is None else until + _FARTHEST,
        local=LocalDates(start, until, declared.zone),
    )


def _check_order(block: Block, start: int | None, until: int | None) -> None:
    end = block.get("until")
    if start is not None and until is not None and end is not None and start >= until:
        block.refuse(end, "`until` does not come after `from`, so it would never be on", key="until")


def _instant(block: Block, key: str) -> int | None:
    node = block.get(key)
    if node is None:
        return None
    text = as_text(node)
    instant = rfc3339(text) if text is not None else None
    if instant is None:
        local = wall_time(text) if text is not None else None
        if local is None:
            hint = "write `2026-11-01T00:00:00Z` or `...+01:00`"
        else:
            hint = f"write `{local:%Y-%m-%dT%H:%M:%S}Z`, or add `zone: Europe/Paris`, say, or `zone: subject`"
        shown = f"`{shorten(text)}`" if text is not None else kind_of(node)
        block.refuse(node, f"`{key}` must be an RFC 3339 time, this is {shown}", hint, key)
    return to_micros(instant) if instant is not None else None


def _wall(block: Block, key: str) -> int | None:
    """What the clock of the zone reads, as µs from 1970 on that clock."""
    node = block.get(key)
    if node is None:
        return None
    text = as_text(node)
    local = wall_time(text) if text is not None else None
    if local is None:
        hint = "write a day, `2026-11-01`, or a time of that zone, `2026-11-01T09:00`"
        if text is not None and rfc3339(text) is not None:
            hint = "leave the offset out, or `zone`: one of the two says where the clock hangs"
        shown = f"`{shorten(text)}`" if text is not None else kind_of(node)
        block.refuse(node, f"`{key}` must be a local date or time here, this is {shown}", hint, key)
        return None
    return to_micros(local.replace(tzinfo=EPOCH.tzinfo))


def _zone(block: Block, key: str, more: tuple[str, ...] = ()) -> str | None:
    node = block.text(key, "write `Europe/Paris`")
    if node is None:
        return None
    if node.text in more or zones.zone_of(node.text) is not None:
        return node.text
    same = next((name for name in zones.NAMES if name.lower() == node.text.lower()), "")
    # Letters such as `CEST` are near to those of another hour, `EST`.
    known = more if node.text.isupper() else (*more, *sorted(zones.NAMES))
    near = f"did you mean `{same}`?" if same else did_you_mean(node.text, known)
    hint = near or "write a name of the IANA database, `Europe/Paris` say"
    block.refuse(node, f"there is no time zone `{shorten(node.text)}`", hint, key)
    return None


def read_subject(node: Node, report: Report, declared: Declared) -> SubjectZone | None:
    """The section ``subject``; None when it was refused."""
    if not isinstance(node, Mapping):
        report.at(node, f"`subject` must be a mapping, this is {kind_of(node)}", "write `{time_zone: profile.zone}`")
        return None
    block = Block(node, report, what="`subject`", path="subject", keys=SUBJECT_KEYS)
    block.require("time_zone", "say which attribute holds the name of the zone: `profile.time_zone`")
    name = block.text("time_zone", "write `profile.time_zone`")
    attribute = _attribute(block, name, declared) if name is not None else None
    default = _zone(block, "default_time_zone") if block.has("default_time_zone") else "UTC"
    return SubjectZone(attribute, default) if attribute is not None and default is not None else None


def _attribute(block: Block, name: Scalar, declared: Declared) -> str | None:
    root, _, attribute = name.text.partition(".")
    if root != "profile" or not NAME.fullmatch(attribute):
        message = f"a zone is read from the profile, `{shorten(name.text)}` is not in it"
        block.refuse(name, message, "write `profile.name`", "time_zone")
        return None
    typed = None if declared.profile is None else declared.profile.get(attribute)
    if declared.profile is not None and typed is None:
        hint = did_you_mean(attribute, declared.profile)
        block.refuse(name, f"unknown profile attribute `{attribute}`", hint, "time_zone")
        return None
    if typed is not None and typed.type not in {"string", "dyn"}:
        block.refuse(name, f"`{name.text}` is declared {typed.type}; the name of a zone is text", "", "time_zone")
        return None
    return attribute
