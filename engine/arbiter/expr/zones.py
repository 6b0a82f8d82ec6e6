"""Time zones by name, from the package tzdata: the same on every machine, whatever its system has.

Law: names come from authors, and from profiles and requests, which nobody vouches for. Only a name that the package
lists is looked for, so that none is ever a path; each zone is read once, and misses are not kept.
"""

from __future__ import annotations

import functools
from importlib import resources
from zoneinfo import ZoneInfo

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


def read_all() -> None:
    """Read every zone now, some 0.1 s once in a process, so that no decision has to."""
    for name in NAMES:
        _read(name)
