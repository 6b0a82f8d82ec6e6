"""The histories of all subjects of a store: events, consents, and what their attributes were.

Law: reads beside a server, a few subjects in a transaction, and changes nothing. Whoever does not consent to what the
model is for, and whoever's older events have left the log, is left out and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.profiles import records
from arbiter.profiles.aliases import ALIAS_BYTES
from arbiter.profiles.copies import open_existing
from arbiter.profiles.history import versions
from arbiter.profiles.subjects import Subject
from arbiter.training.examples import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.history import Version

NO_CONSENT = "subjects without the consent that the model asks for"
GONE = "subjects whose older events have left the log"
_AT_ONCE = 256
_ALL = 1 << 62


def read_store(path: Path, purposes: Sequence[str], now: int, left_out: dict[str, int]) -> Iterator[History]:
    """Every subject of the store in the folder, in the order of their keys; `left_out` counts those that are not
    given. `now` (µs) is the clock that attributes expire by. Raises StoreError.
    """
    environment = open_existing(path)
    try:
        place: bytes | None = b""
        while place is not None:
            found, place = _some(environment, place, frozenset(purposes), now, left_out)
            yield from found
    finally:
        environment.handle.close()


def _some(
    environment: Environment, place: bytes, purposes: frozenset[str], now: int, left_out: dict[str, int]
) -> tuple[list[History], bytes | None]:
    """The next few from `place` on, and where to go on, None at the end."""
    found: list[History] = []
    with environment.begin(environment.profile) as txn, txn.cursor(environment.profile) as cursor:
        if not cursor.set_range(place):
            return found, None
        for number, (key, raw) in enumerate(cursor):
            if number == _AT_ONCE:
                return found, bytes(key)
            if len(raw) == ALIAS_BYTES:
                continue
            profile = records.decode_profile(raw)
            subject = Subject(environment, txn, bytes(key))
            events = list(subject.events())
            cold = txn.get(bytes(key), None, environment.window)
            gone = cold is not None and bool(records.decode_cold(cold).gone)
            if not events and not gone:
                continue
            if not purposes <= set(profile.granted):
                left_out[NO_CONSENT] = left_out.get(NO_CONSENT, 0) + 1
            elif gone:
                left_out[GONE] = left_out.get(GONE, 0) + 1
            else:
                changes = versions(txn, environment.history, bytes(key), _ALL, now)
                attributes = _attributes(dict(profile.live(now).attributes), profile.version, changes)
                found.append(History(bytes(key).hex(), events, attributes))
    return found, None


def _attributes(
    current: dict[str, Any], version: int, changes: list[Version]
) -> Callable[[int], Mapping[str, Any] | None]:
    """What the attributes were at a moment (µs): those of now, and each newer change undone.

    None where changes of that time are no longer kept.
    """

    def at(moment: int) -> Mapping[str, Any] | None:
        values = dict(current)
        left = version
        for change in changes:
            if change.at <= moment:
                return values
            for name, each in change.changes.items():
                if each.before is None:
                    values.pop(name, None)
                else:
                    values[name] = each.before
            left = change.version - 1
        return None if left else values

    return at
