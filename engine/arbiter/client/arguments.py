"""What goes into calls: plain values, checked and written as messages.

Law: data and its translation into messages; no calls. A value that no message can hold is an InvalidRequest that names
its field, as a server would say it; limits are the server's to judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import INVALID_ARGUMENT
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from arbiter.client.failures import InvalidRequest
from arbiter.types import ConsentState, Event, ExplainLevel, to_micros
from arbiter.v1 import decision_pb2, profile_pb2
from arbiter.wire.numbers import CONSENTS
from arbiter.wire.values import step, write_timestamp, write_values

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from arbiter.wire.values import Value

_T = TypeVar("_T")

_LEVELS = {
    ExplainLevel.WINNERS: decision_pb2.EXPLAIN_LEVEL_WINNERS,
    ExplainLevel.LOSERS: decision_pb2.EXPLAIN_LEVEL_LOSERS,
    ExplainLevel.ALL: decision_pb2.EXPLAIN_LEVEL_ALL,
}
UINT32 = range(1 << 32)
_INT64 = range(-(1 << 63), 1 << 63)
_DEEPEST = 32  # maps in maps; protobuf reads at most 100 levels of messages, and a map is three
_ZONE = "has no time zone: give it one, as in datetime.now(UTC)"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch: `decision`, or `decisions` for a page. `slots` 0 takes as many as the point declares."""

    subject_id: str
    decision: str = ""
    decisions: Iterable[str] = ()
    context: Mapping[str, Any] | None = None
    context_json: bytes = b""
    slots: int = 0
    explain: ExplainLevel = ExplainLevel.NONE
    explain_rules: Iterable[str] = ()
    dry_run: bool = False
    at: datetime | None = None
    request_id: str = ""

    def message(self, inside: str = "") -> decision_pb2.DecideRequest:
        """Return it as sent. `inside` goes before the names of fields. Raises InvalidRequest."""
        request = decision_pb2.DecideRequest(
            subject_id=text(self.subject_id, f"{inside}subject_id"),
            decision=text(self.decision, f"{inside}decision"),
            decisions=texts(self.decisions, f"{inside}decisions"),
            context=values(self.context, f"{inside}context"),
            context_json=_of(bytes, self.context_json, f"{inside}context_json"),
            slots=number(self.slots, f"{inside}slots", UINT32),
            dry_run=_of(bool, self.dry_run, f"{inside}dry_run"),
            at=None if self.at is None else moment(self.at, f"{inside}at"),
            request_id=text(self.request_id, f"{inside}request_id"),
        )
        options = explaining(self.explain, self.explain_rules, inside)
        if options is not None:
            request.explain.CopyFrom(options)
        return request


def explaining(level: ExplainLevel, rules: Iterable[str], inside: str = "") -> decision_pb2.ExplainOptions | None:
    """Return what is to be explained, None for nothing. Raises InvalidRequest."""
    if _of(ExplainLevel, level, f"{inside}explain") is ExplainLevel.NONE:
        return None
    return decision_pb2.ExplainOptions(level=_LEVELS[level], rules=texts(rules, f"{inside}explain.rules"))


def event(given: Event, field: str) -> profile_pb2.Event:
    """Return an event as sent. Raises InvalidRequest."""
    _of(Event, given, field)
    at = number(given.at, f"{field}.at", _INT64)
    return profile_pb2.Event(
        id=text(given.id, f"{field}.id"),
        subject_id=text(given.subject_id, f"{field}.subject_id"),
        type=text(given.type, f"{field}.type"),
        at=write_timestamp(at),
        properties=values(given.properties, f"{field}.properties"),
    )


def text(given: str, field: str) -> str:
    """Return a text. Raises InvalidRequest unless it is one, and can be written as UTF-8."""
    if not _of(str, given, field).isascii():
        _encoded(given, field)
    return given


def texts(given: Iterable[str], field: str) -> list[str]:
    """Return a list of texts. Raises InvalidRequest; a text alone is none, though Python would take its letters."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise _wrong(field, f"is {_kind(given)}: give a list of str")
    return [text(each, f"{field}[{place}]") for place, each in enumerate(given)]


def number(given: int, field: str, allowed: range = _INT64) -> int:
    """Return a whole number. Raises InvalidRequest unless it is one of `allowed`."""
    if isinstance(given, bool):
        raise _wrong(field, "is a bool: give an int")
    if _of(int, given, field) not in allowed:
        raise _wrong(field, f"is {given}: the range is {allowed[0]} to {allowed[-1]}")
    return given


def real(given: float, field: str) -> float:
    """Return a number. Raises InvalidRequest unless it is a finite one."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _wrong(field, f"is {_kind(given)}: give a float")
    try:
        found = float(given)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise _wrong(field, f"is {found}: numbers must be finite")
    return found


def numbers(given: Mapping[str, int] | None, field: str) -> dict[str, int]:
    """Return what a ``map<string, uint32>`` field is built from; None is empty. Raises InvalidRequest."""
    return {name: number(each, f"{field}.{name}", UINT32) for name, each in _entries(given, field)}


def durations(given: Mapping[str, timedelta] | None, field: str) -> dict[str, Duration]:
    """Return what a ``map<string, Duration>`` field is built from; None is empty. Raises InvalidRequest."""
    found = {}
    for name, each in _entries(given, field):
        found[name] = Duration()
        try:
            found[name].FromTimedelta(_of(timedelta, each, f"{field}.{name}"))
        except ValueError:
            raise _wrong(f"{field}.{name}", f"is {each}: no message holds more than 10,000 years") from None
    return found


def _entries(given: Mapping[str, _T] | None, field: str) -> Iterable[tuple[str, _T]]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise _wrong(field, f"is {_kind(given)}: give a dict")
    for name in given:
        _check_key(name, field)
    return given.items()


def values(given: Mapping[str, Any] | None, field: str) -> dict[str, Value]:
    """Return what a ``map<string, Value>`` field is built from; None is empty. Raises InvalidRequest."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _wrong(field, f"is {_kind(given)}: give a dict")
    # Flat values are nearly all there are: only what is nested, or fails, is looked through.
    if any(isinstance(each, list | tuple | dict) for each in given.values()):
        _look_through(given, field)
    try:
        for key in given:
            key.encode()
        return write_values(given)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        _look_through(given, field)
        raise _wrong(field, f"cannot be written: {error}") from error


def _look_through(given: Mapping[str, Any], field: str) -> None:
    """Raise InvalidRequest for the first value that no message can hold."""
    pending: list[tuple[str, Any, int]] = [(field, given, 0)]
    while pending:
        path, value, depth = pending.pop()
        if depth > _DEEPEST:
            raise _wrong(field, f"is nested more than {_DEEPEST} deep: make it flatter")
        if isinstance(value, Mapping):
            for key in value:
                _check_key(key, path)
            inside = [(path + step(key), each, depth + 1) for key, each in value.items()]
            pending.extend(reversed(inside))
        elif isinstance(value, list | tuple):
            pending.extend((f"{path}[{n}]", value[n], depth + 1) for n in reversed(range(len(value))))
        else:
            _check_single(value, path)


def _check_key(key: Any, path: str) -> None:
    if not isinstance(key, str):
        raise _wrong(path, f"has {key!r} for a key: keys are str")
    _encoded(key, path)


def _check_single(value: Any, path: str) -> None:
    match value:
        case int() if value not in _INT64:
            raise _wrong(path, "is an integer of more than 64 bits: send a str, or a float")
        case str():
            _encoded(value, path)
        case datetime() if value.tzinfo is None:
            raise _wrong(path, _ZONE)
        case None:
            raise _wrong(path, "is None: leave the key out, which says that there is no value")
        case bool() | int() | float() | bytes() | datetime():
            pass
        case _:
            known = "bool, int, float, str, bytes, datetime, list or dict"
            raise _wrong(path, f"is {_kind(value)}: a value is {known}")


def consent_state(given: ConsentState) -> profile_pb2.ConsentState.ValueType:
    """Return what a subject says of a purpose. Raises InvalidRequest."""
    return CONSENTS[_of(ConsentState, given, "state")]


def moment(given: datetime, field: str) -> Timestamp:
    """Return a moment. Raises InvalidRequest unless it has a time zone."""
    if _of(datetime, given, field).tzinfo is None:
        raise _wrong(field, _ZONE)
    return write_timestamp(to_micros(given))


def _encoded(given: str, field: str) -> None:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise _wrong(field, f"holds half a character: {given!a} cannot be written as UTF-8") from None


def _of(kind: type[_T], given: _T, field: str) -> _T:
    if not isinstance(given, kind):
        raise _wrong(field, f"is {_kind(given)}: give {_article(kind.__name__)}")
    return given


def _kind(given: object) -> str:
    return "None" if given is None else _article(type(given).__name__)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def _wrong(field: str, what: str) -> InvalidRequest:
    """The failure that a server would answer with."""
    said = f"{field} {what}"
    detail = Packed()
    detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=said)]))
    return InvalidRequest(Status(code=INVALID_ARGUMENT, message=said, details=[detail]))
