"""From `arbiter.v1.Value` and JSON to plain Python values, under limits.

Law: refuses what the API refuses and names the place by its path (``context.cart.items[3]``). The path is put together
only when something is wrong, so that right values pay nothing for it.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.types import EPOCH, Event
from arbiter.wire.values import Entries, Value, read_timestamp, step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.config.limits import Limits
    from arbiter.v1 import profile_pb2

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
# The escape of the first half of a character, too close to the end for a second half.
_HALF_AT_END = re.compile(rb"(\\u[dD][89abAB][0-9a-fA-F]{2}).{0,5}\Z", re.DOTALL)
_JSON = msgspec.json.Decoder(dict[str, Any])
_KINDS = (
    "one of bool_value, int_value, double_value, string_value, bytes_value, timestamp_value, list_value and map_value"
)


class _Refused(Exception):
    """A value that is not allowed; on its way out it gathers the path, innermost step first."""

    def __init__(self, message: str, limit: str = "") -> None:
        self.message = message
        self.limit = limit
        self.steps: list[str] = []
        super().__init__(message)

    def invalid(self, field: str) -> InvalidField:
        path = field + "".join(reversed(self.steps))
        return InvalidField(f"{path} {self.message}", field=path, reason=self.limit)


class ValueReader:
    """Reads values under limits. Raises InvalidField, and LimitExceeded past `context_bytes`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # A character is at most four bytes: texts and keys up to here are within the limit without being encoded.
        self._short = limits.value_bytes // 4
        self._short_key = limits.name_bytes // 4
        self._flat = _flat_decoder(limits)
        self._kinds: dict[str | None, Callable[[Any, int], Any]] = {
            "bool_value": lambda value, _depth: value.bool_value,
            "int_value": lambda value, _depth: value.int_value,
            "double_value": self._double,
            "string_value": self._string,
            "bytes_value": self._bytes,
            "timestamp_value": _moment,
            "list_value": self._list,
            "map_value": self._map,
            None: _unset,
        }

    def entries(self, entries: Entries, field: str) -> dict[str, Any]:
        """Read a ``map<string, Value>`` whose path in the request is `field`."""
        try:
            return self._entries(entries, 0)
        except _Refused as refused:
            raise refused.invalid(field) from None

    def event(self, event: profile_pb2.Event, field: str, now: int) -> Event:
        """Read an event whose path in the request is `field`; one without a time happened `now` (µs)."""
        properties = self.entries(event.properties, f"{field}.properties")
        if event.HasField("at"):
            try:
                now = read_timestamp(event.at)
            except ValueError as error:
                raise InvalidField(f"{field}.at {error}", field=f"{field}.at") from None
        return Event(event.id, event.subject_id, event.type, now, properties)

    def json_object(self, content: bytes, field: str) -> dict[str, Any]:
        """Read one JSON object in UTF-8. Keys with `null` are left out, at any depth."""
        limits = self._limits
        if len(content) > limits.context_bytes:
            message = (
                f"{field} holds {len(content):,} bytes, and `context_bytes` allows {limits.context_bytes:,}: send less"
            )
            raise LimitExceeded(message, field=field, reason="context_bytes")
        try:
            # Most contexts are flat: one pass in C. What it refuses is read again, to say why or to go deeper.
            return self._flat.decode(content)
        except ValueError:
            pass
        try:
            values = _JSON.decode(content)
        except RecursionError:
            refused = self._too_deep()
            raise refused.invalid(field) from None
        except ValueError as error:
            message = f"{field} is not one JSON object in UTF-8: {_fault(content, error)}"
            raise InvalidField(message, field=field) from None
        return self.json_values(values, field)

    def json_values(self, values: Mapping[str, Any], field: str) -> dict[str, Any]:
        """Read an object that was decoded from JSON. Keys with `null` are left out, at any depth."""
        try:
            return self._json_map(values, 0)
        except _Refused as refused:
            raise refused.invalid(field) from None

    def _entries(self, entries: Entries, depth: int) -> dict[str, Any]:
        if len(entries) > self._limits.map_entries:
            raise self._too_many(len(entries), "map_entries")
        read = self._kinds
        short, short_key = self._short, self._short_key
        values = {}
        key = ""
        try:
            for key, value in entries.items():
                if len(key) > short_key:
                    self._key(key)
                # Asking for the text costs a third of asking for the kind, and most values are texts.
                if text := value.string_value:
                    values[key] = self._text(text) if len(text) > short else text
                else:
                    values[key] = read[value.WhichOneof("kind")](value, depth)
        except _Refused as refused:
            refused.steps.append(step(key))
            raise
        return values

    def _key(self, key: str) -> None:
        size = len(key.encode())
        if size > self._limits.name_bytes:
            message = f"has a name of {size:,} bytes, and `name_bytes` allows {self._limits.name_bytes:,}: shorten it"
            raise _Refused(message, "name_bytes")

    def _too_many(self, count: int, limit: str) -> _Refused:
        allowed = getattr(self._limits, limit)
        return _Refused(f"has {count:,} elements, and `{limit}` allows {allowed:,}: send fewer", limit)

    def _too_deep(self) -> _Refused:
        allowed = self._limits.value_depth
        return _Refused(
            f"is nested deeper than `value_depth` allows, {allowed} lists and maps: flatten it", "value_depth"
        )

    def _too_long(self, size: int) -> _Refused:
        allowed = self._limits.value_bytes
        return _Refused(f"has {size:,} bytes, and `value_bytes` allows {allowed:,}: shorten it", "value_bytes")

    def _double(self, value: Value, _depth: int) -> float:
        number = value.double_value
        if not math.isfinite(number):
            raise _Refused(f"is {number}, and numbers must be finite: leave the key out where no number is known")
        return number

    def _string(self, value: Value, _depth: int) -> str:
        return self._text(value.string_value)

    def _text(self, text: str) -> str:
        if len(text) > self._short and (size := len(text.encode())) > self._limits.value_bytes:
            raise self._too_long(size)
        return text

    def _bytes(self, value: Value, _depth: int) -> bytes:
        content = value.bytes_value
        if len(content) > self._limits.value_bytes:
            raise self._too_long(len(content))
        return content

    def _list(self, value: Value, depth: int) -> list[Any]:
        elements = value.list_value.values
        if depth >= self._limits.value_depth:
            raise self._too_deep()
        if len(elements) > self._limits.list_items:
            raise self._too_many(len(elements), "list_items")
        read = self._kinds
        values: list[Any] = []
        try:
            for element in elements:
                values.append(read[element.WhichOneof("kind")](element, depth + 1))  # noqa: PERF401 - len() is the path
        except _Refused as refused:
            refused.steps.append(f"[{len(values)}]")
            raise
        return values

    def _map(self, value: Value, depth: int) -> dict[str, Any]:
        if depth >= self._limits.value_depth:
            raise self._too_deep()
        return self._entries(value.map_value.fields, depth + 1)

    def _json_map(self, entries: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if len(entries) > self._limits.map_entries:
            raise self._too_many(len(entries), "map_entries")
        short_key = self._short_key
        values = {}
        key = ""
        try:
            for key, value in entries.items():
                if len(key) > short_key:
                    self._key(key)
                if value is not None:
                    values[key] = self._json_value(value, depth)
        except _Refused as refused:
            refused.steps.append(step(key))
            raise
        return values

    def _json_value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if value is None:  # a map has left its own out already
            raise _Refused("is null, and a list holds no absent elements: leave it out")
        if kind is int and not _INT_MIN <= value <= _INT_MAX:
            raise _Refused("is an integer of more than 64 bits: write it as a string, or with a fraction")
        if kind is dict:
            if depth >= self._limits.value_depth:
                raise self._too_deep()
            return self._json_map(value, depth + 1)
        return self._json_list(value, depth) if kind is list else value

    def _json_list(self, elements: list[Any], depth: int) -> list[Any]:
        if depth >= self._limits.value_depth:
            raise self._too_deep()
        if len(elements) > self._limits.list_items:
            raise self._too_many(len(elements), "list_items")
        values: list[Any] = []
        try:
            for element in elements:
                values.append(self._json_value(element, depth + 1))  # noqa: PERF401 - len() is the path
        except _Refused as refused:
            refused.steps.append(f"[{len(values)}]")
            raise
        return values


def _flat_decoder(limits: Limits) -> msgspec.json.Decoder[dict[str, Any]]:
    """Return a decoder that takes only objects of scalars which break no limit, whatever they hold.

    Its limits are on characters, a quarter of those on bytes: nothing that it takes can be too long.
    """
    integer = Annotated[int, Meta(ge=_INT_MIN, le=_INT_MAX)]
    text = Annotated[str, Meta(max_length=limits.value_bytes // 4)]
    key = Annotated[str, Meta(max_length=limits.name_bytes // 4)]
    scalars: Any = bool | integer | float | text
    return msgspec.json.Decoder(Annotated[dict[key, scalars], Meta(max_length=limits.map_entries)])


def _fault(content: bytes, error: ValueError) -> str:
    """Return what is wrong with malformed JSON. Of two mistakes the decoder says that the data were truncated."""
    if not content.strip():
        return "it is blank; leave the field out, or send {}"
    half = _HALF_AT_END.search(content)
    if half is not None and "truncated" in str(error):
        return f"the text escape {half[1].decode()} stands for half a character; write both halves, or UTF-8"
    return str(error)


def _moment(value: Value, _depth: int) -> datetime:
    try:
        micros = read_timestamp(value.timestamp_value)
    except ValueError as error:
        raise _Refused(str(error)) from None
    return EPOCH + timedelta(microseconds=micros)


def _unset(_value: Value, _depth: int) -> Any:
    raise _Refused(f"has no kind that this server knows: set {_KINDS}, or leave the key out")
