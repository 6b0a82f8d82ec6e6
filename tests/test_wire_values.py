"""Values on the wire: what comes in as protobuf or JSON, under which limits, with which paths."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from arbiter.config.limits import Limits
from arbiter.errors import CallerError, InvalidField, LimitExceeded
from arbiter.server.reading import ValueReader
from arbiter.types import to_micros
from arbiter.v1 import value_pb2
from arbiter.wire.values import plain_values, read_timestamp, write_timestamp, write_value, write_values

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(max_size=20)
JSON_SCALARS = st.one_of(st.booleans(), INT64, st.floats(allow_nan=False, allow_infinity=False), TEXT)
SCALARS = st.one_of(JSON_SCALARS, st.binary(max_size=20), st.datetimes(timezones=st.just(UTC)))


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        scalars, lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(TEXT, v, max_size=4)), max_leaves=12
    )
    return st.dictionaries(TEXT, values, max_size=6)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types throughout: 1, 1.0 and True are three values."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def as_map(values: dict[str, Any]) -> value_pb2.MapValue:
    message = value_pb2.MapValue(fields=write_values(values))
    return value_pb2.MapValue.FromString(message.SerializeToString())


@given(nested(SCALARS))
def test_every_value_survives_the_wire(values: dict[str, Any]) -> None:
    fields = as_map(values).fields
    reader = ValueReader(Limits(value_depth=100))
    assert same(reader.entries(fields, "context"), values)
    assert same(plain_values(fields), values)


@given(nested(JSON_SCALARS))
def test_json_reads_as_the_same_values(values: dict[str, Any]) -> None:
    reader = ValueReader(Limits(value_depth=100))
    assert same(reader.json_object(json.dumps(values).encode(), "context_json"), values)


def test_null_in_json_means_absent_at_any_depth() -> None:
    reader = ValueReader(Limits())
    read = reader.json_object(b'{"a": null, "b": {"c": null, "d": [{"e": null}]}}', "context_json")
    assert read == {"b": {"d": [{}]}}


def deep_list(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str, str]] = [
    (math.nan, "context.x", ""),
    ([1, {"cart": {"items": [1, 2, 3, -math.inf]}}], "context.x[1].cart.items[3]", ""),
    ({"Not a name": math.inf}, 'context.x["Not a name"]', ""),
    (deep_list(5), "context.x[0][0][0][0]", "value_depth"),
    ([1] * 6, "context.x", "list_items"),
    ({"m": {str(n): n for n in range(6)}}, "context.x.m", "map_entries"),
    (["", "a" * 101], "context.x[1]", "value_bytes"),
    ("é" * 51, "context.x", "value_bytes"),
    (b"a" * 101, "context.x", "value_bytes"),
    ({"k" * 81: 1}, f"context.x.{'k' * 81}", "name_bytes"),
]
LIMITS = Limits(value_depth=4, list_items=5, map_entries=5, value_bytes=100, name_bytes=80, context_bytes=1000)


@pytest.mark.parametrize(("value", "field", "limit"), REFUSED)
def test_a_refused_value_is_named_by_its_path(value: Any, field: str, limit: str) -> None:
    with pytest.raises(InvalidField) as caught:
        ValueReader(LIMITS).entries(as_map({"ok": 1, "x": value}).fields, "context")
    assert (caught.value.field, caught.value.reason) == (field, limit)
    assert str(caught.value).startswith(f"{field} ")


@pytest.mark.parametrize(
    ("value", "field", "limit"),
    [case for case in REFUSED if case[2] and not isinstance(case[0], bytes)],
)
def test_json_has_the_same_limits_and_paths(value: Any, field: str, limit: str) -> None:
    with pytest.raises(InvalidField) as caught:
        ValueReader(LIMITS).json_object(json.dumps({"ok": 1, "x": value}).encode(), "context")
    assert (caught.value.field, caught.value.reason) == (field, limit)


def test_what_fits_exactly_is_taken() -> None:
    values = {"d": deep_list(4), "l": [0] * 5, "s": "é" * 50, "b": b"a" * 100, "m": {"k" * 80: 1}}
    assert ValueReader(LIMITS).entries(as_map(values).fields, "context") == values


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (b"", "c", "not one JSON object"),
        (b"null", "c", "not one JSON object"),
        (b'{"a": NaN}', "c", "not one JSON object"),
        (b'{"a": 1e999}', "c", "not one JSON object"),
        (b'{"a": "\xff"}', "c", "not one JSON object"),
        (b'{"a": "\\ud800"}', "c", "not one JSON object"),
        (b'{"a": 1} {"b": 2}', "c", "not one JSON object"),
        (b'{"a": [9223372036854775808]}', "c.a[0]", "more than 64 bits"),
        (b'{"a": -9223372036854775809}', "c.a", "more than 64 bits"),
        (b'{"a": [1, null]}', "c.a[1]", "leave it out"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "c", "nested deeper"),
    ],
)
def test_json_that_is_no_context_is_refused(content: bytes, field: str, says: str) -> None:
    with pytest.raises(InvalidField, match=says) as caught:
        ValueReader(Limits()).json_object(content, "c")
    assert caught.value.field == field


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,0129.eE-+nul \\', max_size=40).map(str.encode))
def test_no_json_brings_down_the_reader(content: bytes) -> None:
    try:
        values = ValueReader(Limits()).json_object(content, "c")
    except CallerError:
        return
    write_values(values)


def test_json_that_is_too_large_is_exhausted_before_it_is_read() -> None:
    with pytest.raises(LimitExceeded) as caught:
        ValueReader(LIMITS).json_object(b"x" * 1001, "context_json")
    assert (caught.value.reason, caught.value.field) == ("context_bytes", "context_json")


def test_a_value_without_a_kind_is_refused() -> None:
    fields = value_pb2.MapValue(
        fields={"a": value_pb2.Value(list_value=value_pb2.ListValue(values=[value_pb2.Value()]))}
    ).fields
    with pytest.raises(InvalidField, match=r"c\.a\[0\] has no kind that this server knows: set one of bool_value"):
        ValueReader(Limits()).entries(fields, "c")


@given(st.datetimes(timezones=st.just(UTC)))
def test_timestamps_keep_their_microseconds(at: datetime) -> None:
    assert read_timestamp(write_timestamp(to_micros(at))) == to_micros(at)


@pytest.mark.parametrize(
    "stamp",
    [
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
    ],
)
def test_a_timestamp_that_is_no_moment_is_refused(stamp: Timestamp) -> None:
    fields = value_pb2.MapValue(fields={"at": value_pb2.Value(timestamp_value=stamp)}).fields
    with pytest.raises(InvalidField, match="years are 1 to 9999") as caught:
        ValueReader(Limits()).entries(fields, "c")
    assert caught.value.field == "c.at"


def test_what_arbiter_has_no_type_for_is_not_written() -> None:
    class Money(int):
        pass

    assert write_value(Money(3)) == value_pb2.Value(int_value=3)
    with pytest.raises(TypeError, match="timedelta is no type"):
        write_value(timedelta(1))
    with pytest.raises(ValueError, match="no time zone"):
        write_value(datetime(2026, 1, 1))  # noqa: DTZ001 - the case
