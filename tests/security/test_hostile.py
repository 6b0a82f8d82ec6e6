"""Whatever is sent, the server says whose fault it is, or that it is too much: never INTERNAL, and it goes on."""

from __future__ import annotations

import gzip
import logging
import socket
import struct
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.config.limits import Limits
from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2, value_pb2
from tests.security.conftest import DECIDE, REQUESTS, UPDATE, Guarded, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

    from tests.security.conftest import Open

METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in (decision_pb2, profile_pb2, admin_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# What a caller may be told of its own message; anything else is our fault.
TOLD = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED",
}  # fmt: skip
FUZZ = settings(
    max_examples=40,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_ENUM: st.integers(-3, 20),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
}
WORDS = st.sampled_from(["ann", "home", "named", "name", "level", "visit", "a.yaml", "../x", "\0", "é" * 200, ""])
TEXTS = WORDS | st.text(max_size=40)
DEEPEST = 12


def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a type, with any of their fields, right or wrong."""
    kind = GetMessageClass(descriptor)

    @st.composite
    def build(draw: Callable[..., Any]) -> Message:
        message = kind()
        for field in draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=5, unique_by=lambda f: f.number)):
            fill(message, field, draw, depth)
        return message

    return build() if descriptor.fields and depth < DEEPEST else st.builds(kind)


def fill(message: Message, field: FieldDescriptor, draw: Callable[..., Any], depth: int) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        entries = getattr(message, field.name)
        value = inner.fields_by_name["value"]
        for key in draw(st.lists(TEXTS, max_size=3)):
            if value.message_type is not None:
                entries[key].CopyFrom(draw(messages(value.message_type, depth + 1)))
            else:
                entries[key] = draw(NUMBERS.get(value.type, TEXTS))
    elif inner is not None:
        made = draw(st.lists(messages(inner, depth + 1), max_size=3 if field.is_repeated else 1))
        if field.is_repeated:
            getattr(message, field.name).extend(made)
        elif made:
            getattr(message, field.name).CopyFrom(made[0])
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(NUMBERS.get(field.type, TEXTS), max_size=3)))
    else:
        setattr(message, field.name, draw(NUMBERS.get(field.type, TEXTS)))


@pytest.fixture
def server(serve: Open) -> Guarded:
    return serve()


def sent(server: Guarded, method: str, content: bytes, channel: grpc.Channel | None = None, **more: Any) -> str:
    """The name of the status code that some bytes are answered with."""
    way, known = channel or shared(server), METHODS.get(method)
    call = way.unary_unary(method, request_serializer=None, response_deserializer=None)
    stream = way.unary_stream(method, request_serializer=None, response_deserializer=None)
    try:
        if known is not None and known.server_streaming and not known.client_streaming:
            answers: Any = stream(content, timeout=20, **more)  # goes on until it is left
            next(answers)
            answers.cancel()
        else:
            call(content, timeout=20, **more)
    except grpc.RpcError as error:
        name: str = error.code().name
        return name
    return "OK"


def shared(server: Guarded) -> grpc.Channel:
    return server._channels[0] if server._channels else server.channel()


def alive(server: Guarded) -> bool:
    return outcome_of(server.channel(), DECIDE, []) == "OK"


@pytest.mark.parametrize("method", METHODS)
def test_no_bytes_are_the_servers_fault(server: Guarded, method: str, caplog: pytest.LogCaptureFixture) -> None:
    valid = REQUESTS.get(method, REQUESTS[DECIDE]).SerializeToString()

    @FUZZ
    @given(st.binary(max_size=300) | st.builds(lambda cut, tail: valid[:cut] + tail, st.integers(0, 40), st.binary()))
    def fuzz(content: bytes) -> None:
        assert sent(server, method, content) in TOLD

    with caplog.at_level(logging.ERROR, "arbiter.server"):
        fuzz()
    assert not caplog.records
    assert alive(server)


@pytest.mark.parametrize("method", METHODS)
def test_no_message_is_the_servers_fault(server: Guarded, method: str, caplog: pytest.LogCaptureFixture) -> None:
    @FUZZ
    @given(messages(METHODS[method].input_type))
    def fuzz(message: Message) -> None:
        assert sent(server, method, message.SerializeToString()) in TOLD

    with caplog.at_level(logging.ERROR, "arbiter.server"):
        fuzz()
    assert not [record.getMessage() for record in caplog.records if "failed, reference" in record.getMessage()]
    assert alive(server)


def nested(depth: int, kind: str) -> value_pb2.Value:
    value = value_pb2.Value(int_value=1)
    for _ in range(depth):
        if kind == "list":
            value = value_pb2.Value(list_value=value_pb2.ListValue(values=[value]))
        else:
            value = value_pb2.Value(map_value=value_pb2.MapValue(fields={"a": value}))
    return value


def length(number: int, content: bytes) -> bytes:
    """A field of bytes of a message, written by hand: protobuf itself refuses to build what is nested this deep."""
    size, prefix = len(content), b""
    while size > 127:
        prefix += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + prefix + bytes([size]) + content


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("depth", [9, 30])
@pytest.mark.parametrize("method", [DECIDE, UPDATE])
def test_values_that_are_nested_too_deep_are_refused(server: Guarded, method: str, depth: int, kind: str) -> None:
    value = nested(depth, kind)
    request: Message = (
        decision_pb2.DecideRequest(subject_id="a", decision="home", context={"x": value})
        if method == DECIDE
        else profile_pb2.UpdateProfileRequest(subject_id="a", set={"x": value})
    )
    assert sent(server, method, request.SerializeToString()) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("depth", [200, 20_000])
def test_messages_that_are_nested_endlessly_are_refused(server: Guarded, depth: int) -> None:
    value = b"\x10\x01"
    for _ in range(depth):
        value = length(7, length(1, value))
    entry = length(1, b"x") + length(2, value)
    context = decision_pb2.DecideRequest.DESCRIPTOR.fields_by_name["context"].number
    content = REQUESTS[DECIDE].SerializeToString() + length(context, entry)
    assert sent(server, DECIDE, content) == "INVALID_ARGUMENT"
    json = b'{"x":' * depth + b"1" + b"}" * depth
    request = decision_pb2.DecideRequest(subject_id="a", decision="home", context_json=json[: 200 * 1024])
    assert sent(server, DECIDE, request.SerializeToString()) == "INVALID_ARGUMENT"
    assert alive(server)


def test_a_message_beyond_the_limit_is_refused_before_it_is_read(server: Guarded) -> None:
    assert sent(server, DECIDE, b"\0" * (17 << 20)) == "RESOURCE_EXHAUSTED"
    assert alive(server)


def test_a_small_message_that_unpacks_to_a_large_one_is_refused(server: Guarded) -> None:
    request = decision_pb2.DecideRequest(subject_id="a", decision="home", context_json=b" " * (64 << 20))
    assert len(gzip.compress(request.SerializeToString())) < 1 << 20
    assert sent(server, DECIDE, request.SerializeToString(), compression=grpc.Compression.Gzip) == "RESOURCE_EXHAUSTED"
    assert alive(server)


def test_metadata_beyond_the_limit_is_refused(server: Guarded) -> None:
    for count in (1, 40):
        metadata = tuple((f"x-{number}", "v" * (40_000 // count)) for number in range(count))
        assert sent(server, DECIDE, REQUESTS[DECIDE].SerializeToString(), metadata=metadata) == "RESOURCE_EXHAUSTED"
    assert alive(server)


def test_long_names_of_admin_calls_are_refused_by_the_limits_name(server: Guarded) -> None:
    long = "x" * 300
    for method, request in {
        "Rollback": admin_pb2.RollbackRequest(digest=long),
        "SetCanary": admin_pb2.SetCanaryRequest(digest=long, percent=5),
        "PromoteCanary": admin_pb2.PromoteCanaryRequest(digest=long),
        "DropCanary": admin_pb2.DropCanaryRequest(digest=long),
        "SetOverride": admin_pb2.SetOverrideRequest(rule_id=long, clear=True),
        "Validate": admin_pb2.ValidateRequest(files={"x" * 2000: b""}),
    }.items():
        assert sent(server, f"/arbiter.v1.AdminService/{method}", request.SerializeToString()) == "INVALID_ARGUMENT"


def test_one_connection_too_many_is_closed_and_the_others_go_on(serve: Open) -> None:
    server = serve(limits=Limits(connections=2))
    channel = server.channel()
    assert outcome_of(channel, DECIDE, []) == "OK"
    with socket.create_connection(("127.0.0.1", server.server.port), 30):
        with socket.create_connection(("127.0.0.1", server.server.port), 30) as third:
            third.settimeout(30)
            assert third.recv(1000) == b""
        assert outcome_of(channel, DECIDE, []) == "OK"


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\0" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 1 << 24)[1:] + b"\x00" * 6,
        b"",
    ],
)
def test_what_is_no_grpc_ends_its_own_connection_only(server: Guarded, opening: bytes) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server.port), 30) as raw:
            raw.sendall(opening)
    assert alive(server)
