"""Time zones by name, from the package tzdata: the same on every machine, whatever its system has.

Law: names come from authors, and from profiles and requests, which nobody vouches for. Only a name that the package
lists is looked for, so that none is ever a path; each zone is read once, and misses are not kept.
"""

from __future__ import annotations

import functools
from datetime import UTC
from importlib import resources
from zoneinfo import ZoneInfo

from arbiter.types import from_micros, to_micros

_PACKAGE = resources.files("tzdata")

NAMES = frozenset((_PACKAGE / "zones").read_text("ascii").split())
"""Every name of a zone."""


@functools.cache  # bounded by NAMES
def _read(name: str) -> ZoneInfo:
    with (_PACKAGE / "zoneinfo" / name).open("rb") as content:
        return ZoneInfo.from_file(content, key=name)


def zone_of(name: object) -> ZoneInfo | None:
    """The zone of that name (``Europe/Paris``, ``UTC``), or None when there is none."""
    return _read(name) if name.__class__ is str and name in NAMES else None


@functools.lru_cache(maxsize=8192)
def instant_of(name: str, wall: int) -> int:
    """The first instant (µs) at which the clock of a zone reads `wall` (µs from 1970 on that clock) or later.

    So a time that comes twice is the first of the two, and one that is skipped is the moment of the jump.
    """
    zone = _read(name)
    reading = from_micros(wall)
    at = reading.replace(tzinfo=zone)
    instant = to_micros(at.astimezone(UTC))
    if _reads(zone, instant) == wall:
        return instant
    # Skipped: by the offset before the jump it lies behind it, by the one after it before it.
    low = to_micros(at.replace(fold=1).astimezone(UTC))
    while low < instant:
        middle = (low + instant) // 2
        if _reads(zone, middle) >= wall:
            instant = middle
        else:
            low = middle + 1
    return instant


def _reads(zone: ZoneInfo, instant: int) -> int:
    return to_micros(from_micros(instant).astimezone(zone).replace(tzinfo=UTC))


@functools.cache
def read_all() -> None:
    """Read every zone now, some 0.1 s once in a process, so that no decision has to."""
    for name in NAMES:
        _read(name)
