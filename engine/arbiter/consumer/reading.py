"""From a Kafka message to an event.

Law: pure; a message is read in the same way however often it comes, so that its event keeps its id and its time. What a
refusal says in `why` may be logged, and so holds nothing of the message.
"""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
from google.protobuf.message import DecodeError

from arbiter.errors import CallerError
from arbiter.server.reading import ValueReader
from arbiter.types import Event, to_micros
from arbiter.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.config.limits import Limits
    from arbiter.config.options import Kafka

_UNITS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_ID_BYTES: Final = 256
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9_]")
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_ABSENT: Final = object()


class Rejected(Exception):
    """A message is no event, or one that cannot be stored. `why` holds none of its content, the text may."""

    def __init__(self, why: str, detail: str = "") -> None:
        self.why = why
        super().__init__(detail or why)


class Record(msgspec.Struct, frozen=True):
    """A message as it lies in its topic. `time` is its own, in ms since the epoch, -1 for none."""

    topic: str
    partition: int
    offset: int
    time: int
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> str:
        """Where an operator finds it."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def id(self) -> str:
        """The id of its event where it names none. With its time, since a topic that is made anew counts from 0."""
        name = f"{self.place}@{self.time}"
        return name if len(name.encode()) <= _ID_BYTES else blake2b(name.encode(), digest_size=16).hexdigest()


def reader_of(options: Kafka, limits: Limits, clock: Callable[[], int]) -> Callable[[Record], Event]:
    """What reads messages as these options say; it raises Rejected.

    `clock` gives µs since the epoch, for an event whose message has no time of its own either.
    """
    values = ValueReader(limits)
    return _Protobuf(values, clock).read if options.format == "protobuf" else _Json(options, values, clock).read


def refusal(error: CallerError) -> Rejected:
    """What the API, or the store, says of an event, without what it holds."""
    part = re.match(r"(?:events?(?:\[\d+\])?\.)?(\w+)", error.field)
    named = f"its {part[1]} cannot be stored" if part and part[1] != "event" else "it cannot be stored"
    return Rejected(f"{named} (limit {error.reason})" if error.reason else named, str(error))


def _when(record: Record, clock: Callable[[], int]) -> int:
    """The µs time of a message, now where it has none."""
    return record.time * 1_000 if record.time >= 0 else clock()


class _Protobuf:
    def __init__(self, values: ValueReader, clock: Callable[[], int]) -> None:
        self._values = values
        self._clock = clock

    def read(self, record: Record) -> Event:
        """The event of a message that is an `arbiter.v1.Event`; without a subject it is the key's."""
        if not record.value:
            raise Rejected("it has no value")
        try:
            message = profile_pb2.Event.FromString(record.value)
        except DecodeError as error:
            raise Rejected("it is no arbiter.v1.Event", str(error)) from None
        now = _when(record, self._clock)
        try:
            event = self._values.event(message, "event", now)
        except CallerError as error:
            raise refusal(error) from None
        return msgspec.structs.replace(event, id=event.id or record.id, subject_id=event.subject_id or _key(record))


class _Json:
    def __init__(self, options: Kafka, values: ValueReader, clock: Callable[[], int]) -> None:
        self._id = _path(options.id_field)
        self._subject = _path(options.subject_field)
        self._type = _path(options.type_field)
        self._at = _path(options.at_field)
        self._properties = _path(options.properties_field)
        self._unit = _UNITS[options.at_unit]
        self._values = values
        self._clock = clock

    def read(self, record: Record) -> Event:
        """The event of a message that is a JSON object."""
        if not record.value:
            raise Rejected("it has no value")
        try:
            fields = _OBJECT.decode(record.value)
        except (ValueError, RecursionError) as error:
            raise Rejected("it is no JSON object", str(error)) from None
        # What is taken is gone from the rest, which may be the properties.
        id_ = _text(_take(fields, self._id), "id") or record.id
        subject = _text(_take(fields, self._subject), "subject") if self._subject else _key(record)
        type_ = _text(_take(fields, self._type), "type") if self._type else _name(record.topic)
        if not subject:
            raise Rejected("it names no subject")
        if not type_:
            raise Rejected("it names no type")
        at = self._time(_take(fields, self._at), record)
        properties = _take(fields, self._properties) if self._properties else fields
        if properties is _ABSENT or properties is None:
            properties = {}
        if not isinstance(properties, dict):
            raise Rejected("its properties are no object")
        try:
            return Event(id_, subject, type_, at, self._values.json_values(properties, "event.properties"))
        except CallerError as error:
            raise refusal(error) from None

    def _time(self, said: Any, record: Record) -> int:
        """In µs since the epoch."""
        if said is _ABSENT or said is None:
            return _when(record, self._clock)
        if isinstance(said, (int, float)) and not isinstance(said, bool):
            try:
                return round(said * self._unit)
            except OverflowError:
                raise Rejected("its time is no moment") from None
        if not isinstance(said, str):
            raise Rejected("its time is neither a number nor a text")
        try:
            at = datetime.fromisoformat(said)
        except ValueError as error:
            raise Rejected("its time is no ISO 8601", str(error)) from None
        if at.tzinfo is None:
            raise Rejected("its time names no zone")
        return to_micros(at)


def _path(field: str) -> tuple[str, ...]:
    return tuple(field.split(".")) if field else ()


def _take(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Remove and return what stands at the path."""
    if not path:
        return _ABSENT
    for step in path[:-1]:
        below = fields.get(step)
        if not isinstance(below, dict):
            return _ABSENT
        fields = below
    return fields.pop(path[-1], _ABSENT)


def _text(said: Any, what: str) -> str:
    """A text, or a whole number as one, since many systems count their subjects; ``""`` for nothing."""
    if said is _ABSENT or said is None:
        return ""
    if isinstance(said, str):
        return said
    if isinstance(said, int) and not isinstance(said, bool):
        return str(said)
    raise Rejected(f"its {what} is neither a text nor a whole number")


def _key(record: Record) -> str:
    try:
        key = (record.key or b"").decode()
    except UnicodeDecodeError:
        raise Rejected("its key is no UTF-8") from None
    if not key:
        raise Rejected("it names no subject, and has no key")
    return key


def _name(topic: str) -> str:
    """A topic's name as the type of an event."""
    return _NOT_IN_NAMES.sub("_", topic.lower())
