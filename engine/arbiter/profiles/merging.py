"""What becomes of the attributes of two profiles that are one person's.

Law: pure. An attribute that only one of the two has is kept as it is there. Where both have it, its declared policy
decides; an attribute without one, or with a policy that cannot work on what is stored, stays as the known one has it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles import records
from arbiter.profiles.totals import INT64
from arbiter.profiles.verbs import STORED, equal

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.profiles.declared import Declared
    from arbiter.profiles.records import Profile
    from arbiter.profiles.values import Limits
    from arbiter.ruleset.rules import Merge

DEFAULT: Final[Merge] = "keep"


class Held(NamedTuple):
    """An attribute: its value, the µs time of its last change, and when it goes, None for never."""

    value: Any
    at: int
    expires: int | None


def merged(known: Profile, anonymous: Profile, declared: Declared, limits: Limits) -> Profile:
    """The known profile with what the anonymous one adds to its attributes, its version above both; as it was when the
    anonymous one never had attributes.

    Raises InvalidField with reason `STORED` for a sum that no number holds, LimitExceeded for a list or a profile that
    would be too large. Features are left as they were.
    """
    kept, added = _attributes(known), _attributes(anonymous)
    result = dict(kept)
    for name, theirs in added.items():
        ours = kept.get(name)
        policy = _POLICIES[declared.merges.get(name, DEFAULT)]
        result[name] = theirs if ours is None else policy(name, ours, theirs, declared, limits)
    attributes = {name: held.value for name, held in result.items()}
    size, limit = len(records.encode(attributes)), limits.record_bytes
    if size > limit:
        raise LimitExceeded(
            f"the two profiles together would have {size:,} bytes, and `record_bytes` allows {limit:,}: remove some of "
            "the anonymous one's attributes first",
            reason="record_bytes",
        )
    tail = records.pack_times(attributes, {name: held.at for name, held in result.items()})
    return msgspec.structs.replace(
        known,
        version=max(known.version, anonymous.version) + 1 if anonymous.version else known.version,
        attributes=attributes,
        tail=tail + known.feature_tail(),
        expires={name: held.expires for name, held in result.items() if held.expires is not None},
        touched=max(known.touched, anonymous.touched),
        managed=tuple(sorted({*known.managed, *anonymous.managed})),
        reference=known.reference or anonymous.reference,
    )


def _attributes(profile: Profile) -> dict[str, Held]:
    times, expires = profile.attribute_times(), profile.expires
    return {name: Held(value, times[name], expires.get(name)) for name, value in profile.attributes.items()}


def _keep(_name: str, ours: Held, _theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return ours


def _take(_name: str, _ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return theirs


def _newest(_name: str, ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return theirs if theirs.at > ours.at else ours


def _oldest(_name: str, ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return theirs if theirs.at < ours.at else ours


def _sum(name: str, ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    if not _are(ours, theirs, (int, float)):
        return ours
    total = ours.value + theirs.value
    if total not in INT64 if type(total) is int else not math.isfinite(total):
        raise InvalidField(
            f"`{name}` cannot be summed: {ours.value} + {theirs.value} leaves the numbers that can be stored",
            field=name,
            reason=STORED,
        )
    return _both(total, ours, theirs)


def _max(_name: str, ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return theirs if _are_ordered(ours, theirs) and theirs.value > ours.value else ours


def _min(_name: str, ours: Held, theirs: Held, _declared: Declared, _limits: Limits) -> Held:
    return theirs if _are_ordered(ours, theirs) and theirs.value < ours.value else ours


def _union(name: str, ours: Held, theirs: Held, declared: Declared, limits: Limits) -> Held:
    if not _are(ours, theirs, (list,)):
        return ours
    items = list(ours.value)
    items += [item for item in theirs.value if not any(equal(item, known) for known in ours.value)]
    items = declared.newest(name, items)
    if len(items) > limits.list_items:
        raise LimitExceeded(
            f"`{name}` would have {len(items):,} items, and `list_items` allows {limits.list_items:,}: shorten one of "
            "the two lists first",
            field=name,
            reason="list_items",
        )
    return _both(items, ours, theirs)


def _both(value: Any, ours: Held, theirs: Held) -> Held:
    """What is made of both lasts as long as the one that lasts longer."""
    if ours.expires is None or theirs.expires is None:
        return Held(value, max(ours.at, theirs.at), None)
    return Held(value, max(ours.at, theirs.at), max(ours.expires, theirs.expires))


def _are(ours: Held, theirs: Held, kinds: tuple[type, ...]) -> bool:
    return type(ours.value) in kinds and type(theirs.value) in kinds


def _are_ordered(ours: Held, theirs: Held) -> bool:
    return _are(ours, theirs, (int, float)) or _are(ours, theirs, (datetime,))


_POLICIES: Final[dict[Merge, Callable[[str, Held, Held, Declared, Limits], Held]]] = {
    "keep": _keep,
    "take": _take,
    "newest": _newest,
    "oldest": _oldest,
    "sum": _sum,
    "max": _max,
    "min": _min,
    "union": _union,
}
