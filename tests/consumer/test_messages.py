"""What a message becomes: an event, the same however often it is read, or a refusal that tells nothing of it."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.config.files import UnusableFile
from arbiter.config.limits import Limits
from arbiter.config.options import Kafka
from arbiter.consumer.properties import BadProperties, consumer_properties, read_properties
from arbiter.consumer.reading import Record, Rejected, reader_of
from arbiter.types import Event, to_micros
from arbiter.v1 import profile_pb2
from arbiter.wire.values import write_entries, write_timestamp

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1_790_000_000_000  # ms: the message's own
AT = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
NOW = 42


def read(value: bytes | dict[str, Any] | None, key: bytes | None = None, **options: Any) -> Event:
    content = json.dumps(value).encode() if isinstance(value, dict) else value
    record = Record("shop.Orders", 3, 17, TIME, key, content)
    return reader_of(Kafka(**options), Limits(), lambda: NOW)(record)


def test_a_json_message_of_the_plain_form() -> None:
    value = {
        "id": "o7",
        "subject_id": "ann",
        "type": "buy",
        "at": "2026-11-20T18:30:00Z",
        "properties": {"a": [1, "x"]},
    }
    assert read(value) == Event("o7", "ann", "buy", to_micros(AT), {"a": [1, "x"]})


def test_fields_are_found_by_their_paths_and_the_rest_may_be_properties() -> None:
    value = {"user": {"id": 42, "tier": "gold"}, "what": "buy", "when": AT.timestamp(), "amount": 9.5, "gone": None}
    fields: dict[str, Any] = {"subject_field": "user.id", "type_field": "what", "at_field": "when", "at_unit": "s"}
    event = read(value, properties_field="", **fields)
    assert event == Event(
        f"shop.Orders/3/17@{TIME}", "42", "buy", to_micros(AT), {"user": {"tier": "gold"}, "amount": 9.5}
    )


def test_key_topic_and_time_of_a_message_stand_in_for_fields() -> None:
    event = read({}, b"ann", subject_field="", type_field="")
    assert event == Event(f"shop.Orders/3/17@{TIME}", "ann", "shop_orders", TIME * 1000, {})


@pytest.mark.parametrize(
    ("at", "unit"), [(1_700_000_000, "s"), (1_700_000_000_000, "ms"), (1_700_000_000_000_000, "us")]
)
def test_a_time_that_is_a_number_counts_in_the_unit_that_is_configured(at: int, unit: str) -> None:
    assert read({"subject_id": "a", "type": "b", "at": at}, at_unit=unit).at == 1_700_000_000_000_000


def test_a_message_without_any_time_happens_when_it_is_read() -> None:
    record = Record("t", 0, 0, -1, None, b'{"subject_id": "a", "type": "b"}')
    assert reader_of(Kafka(), Limits(), lambda: NOW)(record).at == NOW


def test_a_long_topic_still_gives_an_id() -> None:
    record = Record("t" * 249, 0, 1 << 62, TIME, None, None)
    assert len(record.id.encode()) <= 256
    assert record.id == record.id
    assert record.id != msgspec.structs.replace(record, offset=1).id


def test_a_protobuf_message_is_read_as_the_api_reads_it() -> None:
    message = profile_pb2.Event(id="o7", subject_id="ann", type="buy", at=write_timestamp(to_micros(AT)))
    write_entries(message.properties, {"amount": 9.5, "when": AT})
    assert read(message.SerializeToString(), format="protobuf") == Event(
        "o7", "ann", "buy", to_micros(AT), {"amount": 9.5, "when": AT}
    )
    message = profile_pb2.Event(type="buy")
    assert read(message.SerializeToString(), b"ann", format="protobuf") == Event(
        f"shop.Orders/3/17@{TIME}", "ann", "buy", TIME * 1000, {}
    )


PLAIN = {"subject_id": "secret-ann", "type": "secret_buy", "at": "2026-11-20T18:30:00Z"}


@pytest.mark.parametrize(
    ("value", "why", "options"),
    [
        (None, "it has no value", {}),
        (b"secret", "it is no JSON object", {}),
        (b'["secret"]', "it is no JSON object", {}),
        (b"[" * 100_000, "it is no JSON object", {}),
        ({**PLAIN, "subject_id": None}, "it names no subject", {}),
        ({**PLAIN, "subject_id": ["secret"]}, "its subject is neither a text nor a whole number", {}),
        ({**PLAIN, "type": ""}, "it names no type", {}),
        ({**PLAIN, "id": True}, "its id is neither a text nor a whole number", {}),
        ({**PLAIN, "at": "secret"}, "its time is no ISO 8601", {}),
        ({**PLAIN, "at": "2026-11-20T18:30:00"}, "its time names no zone", {}),
        ({**PLAIN, "at": {"secret": 1}}, "its time is neither a number nor a text", {}),
        ({**PLAIN, "properties": "secret"}, "its properties are no object", {}),
        ({**PLAIN, "properties": {"secret": 1 << 70}}, "its properties cannot be stored", {}),
        ({**PLAIN, "properties": {"s": "secret" * 90_000}}, "its properties cannot be stored (limit value_bytes)", {}),
        (PLAIN, "it names no subject, and has no key", {"subject_field": ""}),
        (b"\xff\xffsecret", "it is no arbiter.v1.Event", {"format": "protobuf"}),
    ],
)
def test_a_refusal_says_nothing_of_what_a_message_holds(value: Any, why: str, options: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        read(value, **options)
    assert refused.value.why == why


@given(st.binary(max_size=200), st.sampled_from(["json", "protobuf"]), st.binary(max_size=9) | st.none())
def test_no_bytes_end_in_anything_but_an_event_or_a_refusal(value: bytes, form: str, key: bytes | None) -> None:
    with contextlib.suppress(Rejected):
        assert isinstance(read(value, key, format=form, subject_field="", type_field=""), Event)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"subject_id": st.just("a") | _JSON, "type": st.just("b") | _JSON},
        optional={"id": _JSON, "at": st.floats(1e290, 1e308) | _JSON, "properties": _JSON},
    )
)
def test_no_json_ends_in_anything_but_an_event_or_a_refusal(value: dict[str, Any]) -> None:
    with contextlib.suppress(Rejected):
        assert isinstance(read(value), Event)


def test_a_file_of_properties(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.touch(0o600)
    file.write_text("# how to connect\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b#c\n")
    given = read_properties(file)
    assert given == {"security.protocol": "SASL_SSL", "sasl.password": "a=b#c"}
    all_ = consumer_properties(Kafka(brokers="k:9092", topics="t"), given)
    assert (all_["sasl.password"], all_["bootstrap.servers"], all_["enable.auto.commit"]) == ("a=b#c", "k:9092", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sasl.password\n", "kafka.properties:1: this is no `name=value`"),
        ("a=1\na=secret\n", "kafka.properties:2: `a` stands here twice"),
        ("enable.auto.commit=true\n", "`enable.auto.commit` cannot be set here: offsets are kept in the store"),
        ("group.id=secret\n", "`group.id` cannot be set here: `kafka.group` says it"),
    ],
)
def test_a_mistake_in_the_properties_names_its_line_and_no_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "kafka.properties"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(BadProperties) as refused:
        read_properties(file)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_properties_that_every_user_may_read_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("sasl.password=secret\n")
    file.chmod(0o644)
    with pytest.raises(UnusableFile, match="every user of this machine may read"):
        read_properties(file)


def test_a_group_must_fit_into_a_key_of_the_store() -> None:
    with pytest.raises(BadProperties, match=r"`kafka\.group` has 300 bytes"):
        consumer_properties(Kafka(brokers="k", topics="t", group="g" * 300), {})
