"""What a piece of authored text is: YAML 1.2 core scalars, names and ids.

Law: text in, value out, a refusal as an exception. No positions, no nodes, no messages.
"""

from __future__ import annotations

import math
import re
from typing import Final

INT64: Final = range(-(2**63), 2**63)

# Letters of durations, in µs.
UNITS: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}

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


def shorten(text: str, limit: int = 60) -> str:
    """The text as a message may quote it: on one line and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
