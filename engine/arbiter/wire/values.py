"""Between `arbiter.v1.Value` and plain Python values, for what Arbiter itself says.

Law: with `server.reading`, the only place that knows how a value is written on the wire. No limits here: writing trusts
the engine, and `plain_value` reads what a server wrote.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from arbiter.types import EPOCH, to_micros
from arbiter.v1 import value_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Value = value_pb2.Value

_SECONDS_MIN = int((datetime(1, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
_SECONDS_MAX = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH).total_seconds())
_NANOS = 1_000_000_000
_SHOWN = 128  # characters of a key in a path
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


class Entries(Protocol):
    """A protobuf ``map<string, Value>``."""

    def __len__(self) -> int:
        """Return the number of entries."""
        ...

    def items(self) -> Any:
        """Return the pairs."""
        ...


class MutableEntries(Protocol):
    """A protobuf ``map<string, Value>`` to write into."""

    def __getitem__(self, key: str, /) -> Value:
        """Return the entry, which is made when it is not there."""
        ...


def step(key: str) -> str:
    """Return the path's step into the entry `key` of a map: ``.key``, or ``["any text"]``; a long key is cut."""
    shown = key if len(key) <= _SHOWN else f"{key[:_SHOWN]}…"
    return f".{shown}" if _NAME.fullmatch(shown) else f"[{msgspec.json.encode(shown).decode()}]"


def read_timestamp(stamp: Timestamp) -> int:
    """Return µs since the epoch of a Timestamp. Raises ValueError outside the years 1 to 9999."""
    seconds, nanos = stamp.seconds, stamp.nanos
    if not (_SECONDS_MIN <= seconds <= _SECONDS_MAX and 0 <= nanos < _NANOS):
        msg = "is no moment: the years are 1 to 9999 and `nanos` is 0 to 999,999,999"
        raise ValueError(msg)
    return seconds * 1_000_000 + nanos // 1000


def write_timestamp(micros: int) -> Timestamp:
    """Return the Timestamp of µs since the epoch."""
    seconds, rest = divmod(micros, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def write_value(value: Any) -> Value:
    """Return the Value of a plain one. Raises TypeError for what Arbiter has no type for, ValueError past 64 bits."""
    message = Value()
    _write(message, value)
    return message


def write_values(values: Mapping[str, Any]) -> dict[str, Value]:
    """Return what a ``map<string, Value>`` field is built from."""
    return {key: write_value(value) for key, value in values.items()}


def write_entries(entries: MutableEntries, values: Mapping[str, Any]) -> None:
    """Write into a ``map<string, Value>`` field in place, which costs half of building it from messages."""
    for key, value in values.items():
        _write(entries[key], value)


def plain_value(value: Value) -> Any:
    """Return the plain value of one that Arbiter itself wrote: no limits, no paths. None when it has no known kind."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return [plain_value(element) for element in value.list_value.values]
    if kind == "map_value":
        return plain_values(value.map_value.fields)
    if kind == "timestamp_value":
        return EPOCH + timedelta(microseconds=read_timestamp(value.timestamp_value))
    return getattr(value, kind)


def plain_values(entries: Entries) -> dict[str, Any]:
    """Return the plain values of a ``map<string, Value>`` that Arbiter itself wrote."""
    return {key: plain_value(value) for key, value in entries.items()}


def _write(message: Value, value: Any) -> None:
    write = _WRITE.get(type(value))
    if write is None:
        # Subclasses (an enum's member, a NumPy double) are too rare to be worth entries.
        write = next((write for kind, write in _WRITE.items() if isinstance(value, kind)), None)
        if write is None:
            known = ", ".join(kind.__name__ for kind in _WRITE)
            error = f"{type(value).__name__} is no type that Arbiter knows; it knows {known}"
            raise TypeError(error)
    write(message, value)


def _write_bool(message: Value, value: bool) -> None:  # noqa: FBT001 - a value, no switch
    message.bool_value = value


def _write_int(message: Value, value: int) -> None:
    message.int_value = value


def _write_double(message: Value, value: float) -> None:
    message.double_value = value


def _write_string(message: Value, value: str) -> None:
    message.string_value = value


def _write_bytes(message: Value, value: bytes) -> None:
    message.bytes_value = value


def _write_moment(message: Value, value: datetime) -> None:
    if value.tzinfo is None:
        error = f"{value!r} has no time zone; give it one, as in datetime.now(UTC)"
        raise ValueError(error)
    message.timestamp_value.CopyFrom(write_timestamp(to_micros(value)))


def _write_list(message: Value, values: Sequence[Any]) -> None:
    elements = message.list_value
    elements.SetInParent()  # an empty list is a list too
    for value in values:
        _write(elements.values.add(), value)


def _write_map(message: Value, values: Mapping[str, Any]) -> None:
    entries = message.map_value
    entries.SetInParent()
    write_entries(entries.fields, values)


_WRITE: dict[type, Callable[[Value, Any], None]] = {
    str: _write_string,
    bool: _write_bool,
    int: _write_int,
    float: _write_double,
    bytes: _write_bytes,
    datetime: _write_moment,
    list: _write_list,
    tuple: _write_list,
    dict: _write_map,
}
