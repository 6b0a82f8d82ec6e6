"""What may be stored: the limits, and the checks of ids, names, values and declared types.

Law: pure; every refusal names the field at fault by its path and says how to mend it.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

import msgspec

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles.totals import INT64

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
ID_BYTES = 256
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "double": (float, int),
    "string": (str,),
    "bytes": (bytes,),
    "timestamp": (datetime,),
    "list": (list,),
    "map": (dict,),
}
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, what a datetime holds


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what one subject or one call may store, and for how long. Sizes in bytes of MessagePack, times in µs.
    What is an option of the group `limits` has its name here.

    A new event may be dated `late` before the clock and `ahead` of it. The log keeps events for `keep_for`, of a
    subject the newest `keep_events`; whoever was not written to for `inactive` is dropped; what triggers fired is kept
    for `keep_firings`. None: no such bound.
    The history tells of the newest `versions` of a profile; what an idempotency key was answered with is known for
    `idempotency`.
    """

    record_bytes: int = 65_536
    event_bytes: int = 16_384
    batch_events: int = 10_000
    list_items: int = 1_000
    map_entries: int = 1_000
    value_depth: int = 8
    write_queue: int = 10_000
    link_events: int = 100_000
    aliases: int = 1_000
    late: int | None = None
    ahead: int | None = None
    keep_for: int | None = None
    keep_events: int | None = None
    inactive: int | None = None
    versions: int = 20
    idempotency: int = 24 * 3600 * 1_000_000
    consent_purposes: int = 100
    consent_history: int = 100
    keep_firings: int | None = None


def check_id(value: str, field: str) -> None:
    """Raise InvalidField unless `value` is 1 to 256 bytes of UTF-8."""
    size = len(_utf8(value, field))
    if not size:
        raise InvalidField(f"{field} is empty: send 1 to {ID_BYTES} bytes of UTF-8", field=field)
    if size > ID_BYTES:
        raise InvalidField(
            f"{field} has {size:,} bytes, and `id_bytes` allows {ID_BYTES}: shorten it", field=field, reason="id_bytes"
        )


def check_name(value: str, field: str) -> None:
    """Raise InvalidField unless `value` is a name that rules can speak of."""
    if not _NAME.fullmatch(value) or len(value) > ID_BYTES:
        raise InvalidField(
            f"`{value[:64]}` is no name: use a-z, 0-9 and _, not a digit first, at most {ID_BYTES} characters",
            field=field,
        )


def check_time(at: int, field: str) -> None:
    """Raise InvalidField unless the µs `at` lie in the years 1 to 9999."""
    if not _EARLIEST <= at <= _LATEST:
        raise InvalidField(f"{field} lies outside the years 1 to 9999", field=field)


def check_value(value: Any, field: str, limits: Limits, depth: int = 1) -> None:
    """Raise InvalidField or LimitExceeded unless `value` is a value of the engine, within the limits."""
    kind = type(value)
    if kind is str:
        _utf8(value, field)
    elif kind is int:
        if value not in INT64:
            raise InvalidField(f"{field} does not fit 64 bits", field=field)
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidField(f"{field} is {value}: only finite numbers can be stored", field=field)
    elif kind is datetime:
        if value.tzinfo is None:
            raise InvalidField(f"{field} is a time without a zone", field=field)
    elif kind is list or kind is dict:
        _check_items(value, field, limits, depth)
    elif kind is not bool and kind is not bytes:
        raise InvalidField(f"{field} is {kind_of(value)}, which cannot be stored", field=field)


def _check_items(value: list[Any] | dict[str, Any], field: str, limits: Limits, depth: int) -> None:
    if depth > limits.value_depth:
        raise LimitExceeded(
            f"{field} is nested deeper than `value_depth` allows, {limits.value_depth} lists and maps: flatten it",
            field=field,
            reason="value_depth",
        )
    name, allowed = (
        ("list_items", limits.list_items) if isinstance(value, list) else ("map_entries", limits.map_entries)
    )
    if len(value) > allowed:
        raise LimitExceeded(
            f"{field} has {len(value):,} elements, and `{name}` allows {allowed:,}: send fewer",
            field=field,
            reason=name,
        )
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_value(item, f"{field}[{index}]", limits, depth + 1)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise InvalidField(f"{field} has a key that is no string", field=field)
        _utf8(key, field)
        check_value(item, f"{field}.{key}", limits, depth + 1)


def check_type(value: Any, declared: str | None, field: str, reason: str = "") -> None:
    """Raise InvalidField, with this `reason`, unless `value` is of the declared type, if any. An int is fine for a
    double.
    """
    if declared is None or declared == "dyn":
        return
    if type(value) not in _KINDS[declared]:
        raise InvalidField(f"{field} is {kind_of(value)}, but it is declared as {declared}", field=field, reason=reason)


def as_declared(value: Any, declared: str | None) -> Any:
    """A checked value as it is stored: an int becomes a double where one is declared."""
    return float(value) if declared == "double" and type(value) is int else value


def kind_of(value: Any) -> str:
    """The engine's word for the type of a value, with its article."""
    kind = next((name for name, kinds in _KINDS.items() if kinds[0] is type(value)), type(value).__name__)
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _utf8(value: str, field: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidField(f"{field} is no valid Unicode text", field=field) from None
