"""The parts of times: ``getFullYear`` and its kin, of timestamps in a zone and of durations.

Law: values in, ints out; what does not fit raises one of `ops.FAILURES`. cel-cpp is not asked, since it looks for the
name of a zone among the files of the machine, whatever that name is, and keeps every name that it was ever asked for.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from arbiter.expr.limits import Unknown
from arbiter.expr.zones import zone_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

_OFFSET = re.compile(r"([+-]?)([0-9]{2}):([0-9]{2})")
_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)


def _zone(name: Any) -> tzinfo:
    zone = zone_of(name)
    if zone is not None:
        return zone
    offset = _OFFSET.fullmatch(name) if name.__class__ is str else None
    if offset is None:
        raise Unknown("there is no such time zone")
    east = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return timezone(-east if offset[1] == "-" else east)


def _of_timestamp(part: Callable[[datetime], int]) -> Callable[..., int]:
    def get(at: Any, zone: Any = None) -> int:
        if at.__class__ is datetime:
            return part(at if zone is None else at.astimezone(_zone(zone)))
        raise Unknown("only a timestamp has this part")

    return get


def _of_either(part: Callable[[datetime], int], whole: Callable[[timedelta], int]) -> Callable[..., int]:
    of_timestamp = _of_timestamp(part)

    def get(at: Any, *zone: Any) -> int:
        return whole(at) if at.__class__ is timedelta and not zone else of_timestamp(at, *zone)

    return get


def _towards_zero(length: timedelta, unit: timedelta) -> int:
    return length // unit if length >= timedelta(0) else -(-length // unit)


def _day_of_year(at: datetime) -> int:
    return at.toordinal() - datetime(at.year, 1, 1, tzinfo=UTC).toordinal()


PARTS: dict[str, Callable[..., int]] = {
    "getFullYear": _of_timestamp(lambda at: at.year),
    "getMonth": _of_timestamp(lambda at: at.month - 1),
    "getDate": _of_timestamp(lambda at: at.day),
    "getDayOfMonth": _of_timestamp(lambda at: at.day - 1),
    "getDayOfWeek": _of_timestamp(lambda at: at.isoweekday() % 7),
    "getDayOfYear": _of_timestamp(_day_of_year),
    "getHours": _of_either(lambda at: at.hour, lambda length: _towards_zero(length, _HOUR)),
    "getMinutes": _of_either(lambda at: at.minute, lambda length: _towards_zero(length, _MINUTE)),
    "getSeconds": _of_either(lambda at: at.second, lambda length: _towards_zero(length, _SECOND)),
    "getMilliseconds": _of_either(
        lambda at: at.microsecond // 1000, lambda length: _towards_zero(length, _MILLISECOND) % 1000
    ),
}
"""By CEL name: months, days of the month and of the year count from 0 (``getDate`` from 1), a week begins on Sunday."""
