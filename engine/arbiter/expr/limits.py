"""What one expression may cost: the bounds that are checked when files are read, and the meter that holds at run time.

Law: numbers, counting, and the one error of counting too far. What an expression is made of and who evaluates it is not
known here. A step is about one operator on one small value, some 0.1 µs.
"""

from __future__ import annotations

import functools
import re
import threading
from typing import Any, Final

LEVELS: Final = 32
"""How deep operators and brackets may be nested; cel-cpp's parser holds it."""
MACROS: Final = 3
"""How deep macros may stand inside each other's bodies: the elements of their lists multiply."""
STEPS: Final = 100_000
"""What one test of a condition, one `value` or one parameter may take."""
ALLOWANCE: Final = 20 * STEPS
"""What everything that is metered may take in one request."""
PATTERN_LENGTH: Final = 1_000
"""Characters of a regular expression."""
PATTERN_SIZE: Final = 2_000
"""States of a regular expression, its counted repetitions written out."""
DELEGATED: Final = 100
"""Steps for a call of cel-cpp."""

_IDLE: Final = 1 << 60
_BYTES_A_STEP: Final = 64
_STATES_A_STEP: Final = 10


class Unknown(Exception):
    """The expression has no value here: a name is missing, or an operator does not take these values. `names` are the
    missing names.
    """

    def __init__(self, reason: str = "", names: tuple[str, ...] = ()) -> None:
        self.names = names
        super().__init__(reason)


class Meter(threading.local):
    """Counts what the evaluation under way in this thread may still take. Between evaluations it counts in vain."""

    left: int = _IDLE
    _allowance: int = 0
    _given: int = 0

    def start(self, allowance: int) -> None:
        """Begin an evaluation of at most `STEPS` and at most `allowance` steps."""
        self._allowance = allowance
        self.left = self._given = min(STEPS, allowance)

    def stop(self) -> int:
        """End the evaluation; what is left of the allowance."""
        left = self._allowance - self._given + max(0, self.left)
        self.left = _IDLE
        return left

    def spend(self, steps: int) -> None:
        """Count; raises Unknown when the evaluation may not take so many steps more."""
        self.left -= steps
        if self.left < 0:
            limit = f"{STEPS:,} steps" if self._given == STEPS else f"{ALLOWANCE:,} steps of the whole request"
            raise Unknown(f"this takes more than the {limit} that are allowed")


meter: Final = Meter()


def spend_size(value: Any) -> None:
    """Count a text, bytes or list by its size, before or after it is made."""
    size = len(value)
    if size > _BYTES_A_STEP:
        meter.spend(size if value.__class__ is list else size // _BYTES_A_STEP)


def spend_deep(value: Any) -> int:
    """Count a value with all that is in it; the number of characters and bytes in it.

    A value may hold another many times over, so that only counting on the way down ends in time.
    """
    kind = value.__class__
    if kind is str or kind is bytes:
        meter.spend(1 + len(value) // _BYTES_A_STEP)
        return len(value)
    meter.spend(1)
    if kind is list:
        return sum(map(spend_deep, value))
    if kind is dict:
        return sum(spend_deep(key) + spend_deep(each) for key, each in value.items())
    return 8


def spend_growth(size: int) -> None:
    """Count a text of so many characters that is about to be made."""
    meter.spend(size // _BYTES_A_STEP)


def spend_match(text: str, pattern: str) -> None:
    """Count matching a text with a pattern of RE2, which takes at most states times characters."""
    states = pattern_size(pattern)
    if len(pattern) > PATTERN_LENGTH or states > PATTERN_SIZE:
        raise Unknown(f"a pattern has at most {PATTERN_LENGTH:,} characters and {PATTERN_SIZE:,} states")
    meter.spend(DELEGATED + len(text) * states // _STATES_A_STEP)


_ATOM = re.compile(
    r"(?P<open>\((?:\?[^:=!<>)]*[:>]|\?P?<[^>]*>)?)|(?P<close>\))|\{(?P<least>\d{1,4})(?P<comma>,(?P<most>\d{0,4}))?\}"
    r"|(?P<property>\\[pP](?:\{[^}]*\}|.))|(?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])"
    r"|(?P<wide>\.|\\[DSW]|\\C)|(?P<one>\\.|[^\\])",
    re.DOTALL,
)
_PROPERTY, _SET, _WIDE = 400, 20, 10


@functools.lru_cache(maxsize=1024)
def pattern_size(pattern: str) -> int:
    """About how many states RE2 makes of a pattern, rather too many than too few.

    What it counts by is written down in tests: classes of Unicode are large, and counted repetitions multiply.
    """
    if len(pattern) > PATTERN_LENGTH:
        return PATTERN_SIZE + 1
    sums, last = [0], 0
    for atom in _ATOM.finditer(pattern):
        if atom["open"]:
            sums.append(2)
            last = 0
        elif atom["close"]:
            last = sums.pop() if len(sums) > 1 else 0
            sums[-1] += last
        elif atom["least"]:
            times = int(atom["most"] or 0) or int(atom["least"]) + bool(atom["comma"])
            # It stands there once already.
            sums[-1] += last * max(0, times - 1)
            last *= max(1, times)
        else:
            last = _PROPERTY if atom["property"] else 1
            if atom["set"]:
                last = _set_size(atom["set"])
            elif atom["wide"]:
                last = _WIDE
            sums[-1] += last
    return sum(sums)


def _set_size(written: str) -> int:
    """The states of a set: of plain ASCII a range each, and more where characters of several bytes are among them."""
    size = len(written) + _PROPERTY * len(re.findall(r"\\[pP]", written))
    plain = written.isascii() and not written.startswith("[^") and "\\" not in written
    return size if plain else size + _SET
