"""What a piece of authored text says of time: durations, units and moments.

Law: text in, value out, or None when the text is not of that kind. No positions, no nodes, no messages.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from arbiter.authoring.scalars import UNITS

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_WORDS: Final = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "week": "w"}
_LONGEST_DURATION = 36_525 * UNITS["d"]
TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    r"(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))?"
)


_LAST_YEARS = ("0001", "9999")  # a zone's offset may lead out of what a datetime holds
WALL: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?"
)


def duration_micros(text: str) -> int | None:
    """The µs of a duration such as ``5m``, ``7d`` or ``4w``: more than nothing, at most a hundred years."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    micros = int(found[1]) * UNITS[found[2]]
    return micros if 0 < micros <= _LONGEST_DURATION else None


def unit_letter(word: str) -> str:
    """The unit that a word such as ``days`` means, or an empty string."""
    letter = word.lower().removesuffix("s") or word.lower()
    return letter if letter in UNITS else _UNIT_WORDS.get(letter, "")


def rfc3339(text: str) -> datetime | None:
    """The instant of an RFC 3339 timestamp, in UTC; a missing offset means UTC. Finer than µs is refused."""
    found = TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    try:
        zone = UTC
        if found[8]:
            offset = timedelta(hours=int(found[9]), minutes=int(found[10]))
            zone = timezone(-offset if found[8] == "-" else offset)
        micros = int((found[7] or "0").ljust(6, "0"))
        return datetime(year, month, day, hour, minute, second, micros, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def wall_time(text: str) -> datetime | None:
    """What a clock reads: a day, which is its first moment, or a day and a time, without an offset."""
    found = WALL.fullmatch(text)
    if found is None or found[1] in _LAST_YEARS:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    try:
        return datetime(year, month, day, hour, minute, second, int((found[7] or "0").ljust(6, "0")))  # noqa: DTZ001
    except ValueError:
        return None
