"""Whether a rule's dates include the clock.

Law: pure. Zones are those that `expr.zones` has; a profile's may be anything, and what names no zone counts as missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.expr.zones import instant_of, zone_of
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.expr.view import View
    from arbiter.ruleset.terms import Active, LocalDates, SubjectZone


def in_time(active: Active | None, view: View) -> bool:
    """Whether the clock lies in the half-open range of dates."""
    if active is None:
        return True
    if active.start is not None and view.clock < active.start:
        return False
    if active.until is not None and view.clock >= active.until:
        return False
    return active.local is None or _in_local(active.local, view)


def _in_local(local: LocalDates, view: View) -> bool:
    zone = zone_name(local.zone, view)
    return (local.start is None or view.clock >= instant_of(zone, local.start)) and (
        local.until is None or view.clock < instant_of(zone, local.until)
    )


def zone_name(zone: SubjectZone, view: View) -> str:
    """The zone of the subject: as its profile says, else the default."""
    name = view.profile.get(zone.attribute)
    return name if name is not None and zone_of(name) is not None else zone.default


def outside(active: Active | None, view: View) -> str:
    """What the clock reads, in words, where it is outside."""
    zone = "" if active is None else active.zone or (zone_name(active.local.zone, view) if active.local else "")
    found = zone_of(zone)
    if found is None:
        return "the clock is outside `active`"
    return f"{from_micros(view.clock).astimezone(found):%Y-%m-%d %H:%M:%S} in {zone} is outside `active`"
