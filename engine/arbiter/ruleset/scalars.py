"""What a piece of authored text means: YAML 1.2 core scalars, durations, points in time and names.

Law: text in, value out, or None when the text is not of that kind. No positions, no nodes, no messages.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

INT64: Final = range(-(2**63), 2**63)

NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,255}")

_WORDS: Final[dict[str, bool | None]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)|0o(?P<octal>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<special>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_LONGEST_INTEGER = 64  # digits; far beyond int64, far below where int() refuses
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
UNITS: Final = {
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_UNIT_WORDS: Final = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "week": "w"}
_LONGEST_DURATION = 36_525 * UNITS["d"]
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    r"(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))?"
)


class NotANumber(ValueError):
    """A scalar that reads as a number which Arbiter refuses: NaN, an infinity, an integer beyond 64 bits."""


def core_value(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar by the YAML 1.2 core schema; raises `NotANumber` for numbers that are refused."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    if found["special"] is not None:
        raise NotANumber(f"`{text}` is not a number that can be compared: NaN and infinities are refused")
    if found["float"] is not None:
        number = float(text)
        if not math.isfinite(number):
            raise NotANumber(f"`{shorten(text)}` is beyond what a double can hold")
        return number
    return _integer(text, found)


def _integer(text: str, found: re.Match[str]) -> int:
    digits, base = next((found[kind], base) for kind, base in (("int", 10), ("octal", 8), ("hex", 16)) if found[kind])
    if len(digits) <= _LONGEST_INTEGER and (number := int(digits, base)) in INT64:
        return number
    raise NotANumber(f"`{shorten(text)}` does not fit in a 64-bit integer")


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
    found = _TIMESTAMP.fullmatch(text)
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


def shorten(text: str, limit: int = 60) -> str:
    """The text as a message may quote it: on one line and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
