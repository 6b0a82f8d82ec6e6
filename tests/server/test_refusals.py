"""What the server refuses, with which code and which details."""

from __future__ import annotations

import logging
import re
import threading
import time
import types
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc import _server
from grpc_status import rpc_status

from arbiter.client import (
    Answer,
    Ask,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    ResourceExhausted,
    ServerFault,
    Unavailable,
    UnknownName,
)
from arbiter.client.methods import DECIDE
from arbiter.config.limits import Limits
from arbiter.errors import (
    CallerError,
    InvalidField,
    KeyReused,
    LimitExceeded,
    NotFound,
    NotReady,
    StoreError,
    VersionConflict,
)
from arbiter.runtime.address import ListenError
from arbiter.runtime.local import open_local
from arbiter.server import grpcio
from arbiter.server.app import Server, TransportError, open_face
from arbiter.server.calls import Call, settled
from arbiter.server.decisions import DecisionService
from arbiter.server.requests import RequestReader
from arbiter.server.settings import FaceSettings
from arbiter.server.status import DeadlinePassed, status_of
from arbiter.telemetry.counters import Counters
from arbiter.types import Event, ExplainLevel
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import OpenShop, Shop

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "api.md"


def request(**fields: Any) -> decision_pb2.DecideRequest:
    return decision_pb2.DecideRequest(**({"subject_id": "x", "decision": "shop.banner"} | fields))


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"subject_id": ""}, "subject_id", "is empty"),
        ({"subject_id": "é" * 129}, "subject_id", "258 bytes"),
        ({"decision": ""}, "decision", "is empty"),
        ({"decisions": ["shop.footer"]}, "decisions", "both given"),
        ({"decision": "", "decisions": ["a", "b", "a"]}, "decisions[2]", "repeats"),
        ({"decision": "", "decisions": ["a", ""]}, "decisions[1]", "is empty"),
        ({"slots": 101}, "slots", "`slots` allows 100"),
        ({"at": {"seconds": 1}}, "at", "without dry_run"),
        ({"at": {"seconds": 1 << 60}, "dry_run": True}, "at", "years are 1 to 9999"),
        ({"decision": "d" * 257}, "decision", "257 bytes, and `id_bytes` allows 256"),
        ({"decision": "", "decisions": ["a", "d" * 257]}, "decisions[1]", "257 bytes"),
        ({"explain": {"rules": ["r" * 257]}}, "explain.rules[0]", "257 bytes"),
        ({"request_id": "r" * 257}, "request_id", "257 bytes"),
        ({"explain": {"level": 99}}, "explain.level", "EXPLAIN_LEVEL_ALL"),
        ({"explain": {"rules": ["by-name", "nope"]}}, "explain.rules[1]", "no rule `nope`"),
        ({"context": {"a": {}}}, "context.a", "has no kind"),
        ({"context": {"a": {"double_value": float("nan")}}}, "context.a", "is nan"),
        ({"context_json": b"[1]"}, "context_json", "not one JSON object"),
        ({"context_json": b"{"}, "context_json", "not one JSON object in UTF-8: Input data was truncated"),
        ({"context_json": b" \n"}, "context_json", "is blank"),
        ({"context_json": rb'{"a": "\ud800"}'}, "context_json", r"the text escape \ud800 stands for half a character"),
        ({"context": {"k" * 100_000: {}}}, f'context["{"k" * 128}…"]', "has a name of 100,000 bytes"),
        ({"context_json": b"{}", "context": {"a": {"bool_value": True}}}, "context_json", "both given"),
    ],
)
def test_a_bad_field_is_named_with_what_and_how(shop: Shop, fields: dict[str, Any], field: str, says: str) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Decide(request(**fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    info, bad = ErrorInfo(), BadRequest()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "arbiter")
    (violation,) = bad.field_violations
    assert violation.field == field
    assert says in violation.description
    assert field.partition("[")[0].partition(".")[0] in status.message


def test_reads_and_writes_refuse_an_id_in_the_same_words(shop: Shop) -> None:
    for subject in ("", "é" * 129):
        said = set()
        for call in (
            shop.client.get_profile,
            shop.client.update_profile,
            lambda s: shop.client.decide(s, "shop.banner"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                call(subject)
            said.add((caught.value.message, caught.value.field, caught.value.limit))
        assert len(said) == 1, said


def test_an_unknown_decision_point_is_not_found_and_the_nearest_is_named(shop: Shop) -> None:
    with pytest.raises(UnknownName) as caught:
        shop.client.decide("x", "shop.baner")
    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "decision")
    assert "did you mean `shop.banner`?" in caught.value.message
    with pytest.raises(UnknownName) as unlike:
        shop.client.decide("x", "nothing.like.it")
    assert "; the rules have `shop.banner`, `shop.footer`, `shop.silent`" in unlike.value.message


def test_bytes_that_are_no_request_are_invalid(shop: Shop) -> None:
    for rpc in ("DecisionService/Decide", "DecisionService/DecideBatch", "ProfileService/GetProfile"):
        call: Any = shop.channel.unary_unary(f"/arbiter.v1.{rpc}", bytes, bytes)
        with pytest.raises(grpc.RpcError, match="the bytes are no arbiter") as caught:
            call(b"\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("limits", "asked", "limit"),
    [
        ({"decisions": 1}, {"decision": "", "decisions": ["shop.banner", "shop.footer"]}, "decisions"),
        ({"explain_rules": 1}, {"explain": {"rules": ["by-name", "phone"]}}, "explain_rules"),
        ({"context_bytes": 5}, {"context_json": b'{"a": 1}'}, "context_bytes"),
    ],
)
def test_too_much_is_exhausted_and_the_limit_is_named(
    open_shop: OpenShop, limits: dict[str, int], asked: dict[str, Any], limit: str
) -> None:
    shop = open_shop(limits=limits)
    with pytest.raises(ResourceExhausted) as caught:
        shop.client.run(DECIDE.call(request(**asked), lambda response: response, None))
    assert (caught.value.code, caught.value.reason, caught.value.limit) == (
        "RESOURCE_EXHAUSTED",
        "LIMIT_EXCEEDED",
        limit,
    )
    assert f"`{limit}` allows" in caught.value.message


@pytest.mark.parametrize(
    ("limit", "allowed", "asked"),
    [
        ("id_bytes", 10, {}),
        ("name_bytes", 1, {"context_json": b'{"ab": 1}'}),
        ("value_depth", 0, {"context_json": b'{"a": [1]}'}),
        ("value_bytes", 1, {"context_json": b'{"a": "xy"}'}),
        ("list_items", 1, {"context_json": b'{"a": [1, 2]}'}),
        ("map_entries", 1, {"context_json": b'{"a": 1, "b": 2}'}),
        ("slots", 1, {"slots": 2}),
        ("context_bytes", 1, {"context_json": b"{}"}),
        ("decisions", 1, {"decision": "", "decisions": ["a", "b"]}),
        ("explain_rules", 1, {"explain": {"rules": ["a", "b"]}}),
    ],
)
def test_a_limit_is_refused_with_the_code_that_the_api_page_gives(
    limit: str, allowed: int, asked: dict[str, Any]
) -> None:
    with pytest.raises(CallerError) as caught:
        RequestReader(Limits(**{limit: allowed})).read(request(**asked), 0)
    code = grpc.StatusCode[re.findall(rf"^\| `{limit}` .* `(\w+)` \|$", API.read_text("utf-8"), re.MULTILINE)[0]]
    assert (caught.value.reason, status_of(caught.value, "Test").code) == (limit, code.value[0])


def test_a_batch_over_the_limit_is_refused_whole(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"batch_requests": 2})
    with pytest.raises(ResourceExhausted) as caught:
        shop.client.decide_batch([Ask(subject_id="x", decision="shop.banner")] * 3)
    assert (caught.value.limit, caught.value.field) == ("batch_requests", "requests")


def test_a_message_over_the_limit_is_refused_before_it_is_read(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"message_bytes": 1000})
    with pytest.raises(ResourceExhausted):
        shop.client.decide("x", "shop.banner", context={"a": "a" * 2000})
    assert shop.client.decide("x", "shop.banner").defaulted


def test_a_fault_of_ours_tells_the_caller_a_reference_only(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop()
    shop.store.close()
    with caplog.at_level(logging.ERROR, "arbiter.server"), pytest.raises(ServerFault) as caught:
        shop.client.decide("x", "shop.banner")
    failure = caught.value
    assert (failure.code, failure.reason, failure.violations) == ("INTERNAL", "INTERNAL", ())
    assert failure.message == f"internal error; the server's log has its cause under reference {failure.reference}"
    (record,) = caplog.records
    assert failure.reference in record.getMessage()
    assert "lmdb.Error" in record.getMessage()
    assert "arbiter.errors.StoreError" in record.getMessage()
    assert record.exc_info is None  # it would tell what values it arose from
    assert shop.counters.errors == {"INTERNAL": 1}


def test_a_call_whose_deadline_passed_while_it_waited_does_no_work(open_shop: OpenShop) -> None:
    shop = open_shop(threads=1)
    release = threading.Event()
    shop.server._pool.submit(release.wait)
    with pytest.raises(DeadlineExceeded):
        # An explanation, since the pool works out those in every transport.
        shop.client.decide("x", "shop.banner", explain=ExplainLevel.ALL, timeout=0.2)
    time.sleep(0.2)  # the server counts from when the call came, a moment later than its caller
    release.set()
    assert shop.client.decide("x", "shop.footer").defaulted
    assert dict(shop.counters.decisions) == {"shop.footer": 1}


def test_models_that_are_too_late_degrade_the_decision(tmp_path: Path) -> None:
    engine, _admin = open_local(ROOT / "rules" / "store", ROOT / "models", tmp_path)
    service = DecisionService(engine, Limits(), Counters())
    asked = request(subject_id="x", decision="store.home_banner", explain={}).SerializeToString()

    def answered(call: Call) -> bytes:
        return settled(service.decide(asked, call), call)

    try:
        late = decision_pb2.DecideResponse.FromString(answered(Call(time.monotonic() - 1)))
        in_time = decision_pb2.DecideResponse.FromString(answered(Call()))
    finally:
        engine.store.close()
    assert [each.name for each in late.degraded] == ["models.repurchase", "models.rfm"]
    assert {each.cause for each in late.degraded} == {decision_pb2.DEGRADATION_CAUSE_DEADLINE}
    assert late.treatments
    assert not in_time.degraded


def test_a_server_that_is_not_there_is_unavailable(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.server.stop(0)
    with pytest.raises(Unavailable) as caught:
        shop.client.decide("x", "shop.banner", timeout=2)
    assert (caught.value.reason, caught.value.violations) == ("", ())
    with Client(shop.client.target) as client, pytest.raises(TimeoutError, match=shop.client.target):
        client.wait_ready(0.1)


def nested(depth: int) -> dict[str, Any]:
    inside: dict[str, Any] = {}
    for _ in range(depth):
        inside = {"a": inside}
    return inside


@pytest.mark.parametrize(
    ("arguments", "field", "says"),
    [
        ({"subject_id": 5}, "subject_id", "is an int: give a str"),
        ({"subject_id": "\ud800"}, "subject_id", "half a character"),
        ({"slots": -1}, "slots", "the range is 0 to 4294967295"),
        ({"slots": 99999999999999}, "slots", "the range is 0 to 4294967295"),
        ({"slots": True}, "slots", "is a bool"),
        ({"context": [1]}, "context", "is a list: give a dict"),
        ({"context": {"x": 2**63}}, "context.x", "more than 64 bits"),
        ({"context": {"x": None}}, "context.x", "leave the key out"),
        ({"context": {"x": [1, {"y z": 1j}]}}, 'context.x[1]["y z"]', "is a complex"),
        ({"context": {"x": datetime(2026, 1, 1)}}, "context.x", "no time zone"),  # noqa: DTZ001 - the mistake
        ({"context": {1: 2}}, "context", "has 1 for a key"),
        ({"context": {"x": {1: 2}}}, "context.x", "has 1 for a key"),
        ({"context": nested(33)}, "context", "more than 32 deep"),
        ({"context": nested(2200)}, "context", "more than 32 deep"),
        ({"context_json": "{}"}, "context_json", "is a str: give a bytes"),
        ({"at": datetime(2026, 1, 1), "dry_run": True}, "at", "no time zone"),  # noqa: DTZ001 - the mistake
        ({"at": 5, "dry_run": True}, "at", "is an int: give a datetime"),
        ({"explain": "foo"}, "explain", "is a str: give an ExplainLevel"),
        ({"explain": ExplainLevel.ALL, "explain_rules": "by-name"}, "explain.rules", "is a str: give a list"),
    ],
)
def test_a_client_names_an_argument_that_no_request_can_hold(
    shop: Shop, arguments: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shop.client.decide(**({"subject_id": "x", "decision": "shop.banner"} | arguments))
    assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", field)
    assert says in caught.value.message


def test_the_deepest_value_that_a_client_sends_reaches_the_server(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match="value_depth"):
        shop.client.decide("x", "shop.banner", context=nested(32))


def test_a_client_names_the_argument_of_each_call(shop: Shop) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: shop.client.decide_page("x", "shop.banner"), "decisions"),
        (lambda: shop.client.update_profile("x", set={"a": 1j}), "set.a"),
        (lambda: shop.client.update_profile("x", unset="age"), "unset"),
        (lambda: shop.client.update_profile("x", append={"a": 1}, keep={"a": -1}), "keep.a"),
        (lambda: shop.client.update_profile("x", append={"a": 1}, keep=[1]), "keep"),  # type: ignore[arg-type]
        (lambda: shop.client.update_profile("x", set={"a": 1}, ttl={"a": 60}), "ttl.a"),  # type: ignore[dict-item]
        (lambda: shop.client.update_profile("x", set={"a": 1}, ttl={"a": timedelta.max}), "ttl.a"),
        (lambda: shop.client.update_profile("x", set={"a": 1}, ttl={"a": timedelta()}), "ttl.a"),
        (lambda: shop.client.get_profile("x", history=-1), "history"),
        (lambda: shop.client.update_profile("x", expected_version=1 << 63), "expected_version"),
        (lambda: shop.client.ingest_events([Event("1", "x", "purchase", 1, {"a": None})]), "events[0].properties.a"),
        (lambda: shop.client.ingest_events([Event("1", "x", "purchase", 1 << 63)]), "events[0].at"),
    ]
    for call, field in calls:
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.field == field


def test_a_request_that_a_client_cannot_write_fails_alone_in_its_batch(shop: Shop) -> None:
    good = Ask(subject_id="x", decision="shop.footer")
    first, second, third = shop.client.decide_batch([Ask(subject_id="x", slots=-3), good, Ask(subject_id="")]).results
    assert isinstance(first, InvalidRequest)
    assert first.field == "requests[0].slots"
    assert isinstance(second, Answer)
    assert isinstance(third, InvalidRequest)
    assert third.field == "requests[2].subject_id"


def test_a_grpcio_that_changed_is_told_and_auto_falls_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A copy, since other servers are running on the real one.
    changed = types.SimpleNamespace(**vars(_server))
    monkeypatch.setattr(grpcio, "_server", changed)
    monkeypatch.delattr(changed, "_stop_serving")
    with pytest.raises(TransportError, match=r"grpc\._server has no `_stop_serving`; use `--transport auto`"):
        Server(shop.backing, "127.0.0.1:0", FaceSettings(transport="inline"))
    changed._stop_serving = None
    changed._process_event_and_continue = lambda state: state
    server = Server(shop.backing, "127.0.0.1:0", FaceSettings(transport="auto"))
    assert server.transport == "stock"
    assert "_process_event_and_continue takes state; calls are answered by the stock transport" in caplog.text
    server.stop(0)


def test_the_grpcio_at_hand_is_what_the_inline_transport_was_made_for(shop: Shop) -> None:
    # When this fails, grpcio changed its insides: read docs/decisions/0027, and mend server/{inline,grpcio}.py.
    server = Server(shop.backing, "127.0.0.1:0", FaceSettings(transport="auto"))
    assert server.transport == "inline"
    server.stop(0)


def test_a_port_that_is_taken_is_refused(shop: Shop) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        Server(shop.backing, f"127.0.0.1:{shop.server.port}")


def test_workers_share_a_port(open_shop: OpenShop) -> None:
    shop = open_shop()
    first = open_face(shop.backing, "127.0.0.1:0", b"")
    second = open_face(shop.backing, f"127.0.0.1:{first.port}", FaceSettings(threads=2).encode())
    assert second.port == first.port
    first.stop(1)
    with Client(f"127.0.0.1:{second.port}") as client:
        assert client.decide("x", "shop.banner").defaulted
    second.stop(1)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidField("m", field="f"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (NotFound("m"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (VersionConflict("m"), grpc.StatusCode.ABORTED, "VERSION_CONFLICT"),
        (KeyReused("m"), grpc.StatusCode.FAILED_PRECONDITION, "KEY_REUSED"),
        (LimitExceeded("m"), grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
        (CallerError("m"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (NotReady("m"), grpc.StatusCode.UNAVAILABLE, "NOT_READY"),
        (DeadlinePassed("m"), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
        (StoreError("m"), grpc.StatusCode.INTERNAL, "INTERNAL"),
        (ZeroDivisionError("m"), grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_every_error_has_its_code(error: Exception, code: grpc.StatusCode, reason: str) -> None:
    status = status_of(error, "Test")
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.reason) == (code.value[0], reason)
    assert (status.message == "m") is (code is not grpc.StatusCode.INTERNAL)


def test_every_caller_error_stands_in_the_table() -> None:
    for kind in CallerError.__subclasses__():
        info, error = ErrorInfo(), kind.__new__(kind)
        CallerError.__init__(error, "m")  # whatever else it tells
        assert status_of(error, "Test").details[0].Unpack(info)
        assert info.reason != "INVALID_REQUEST", f"{kind.__name__} has no code of its own"


def test_a_long_message_still_fits_into_a_status(shop: Shop) -> None:
    deep: Any = float("nan")
    for _ in range(6):
        deep = {"ключ" * 30: deep}
    with pytest.raises(InvalidRequest) as caught:
        shop.client.decide("x", "shop.banner", context={"a": deep})
    assert caught.value.field.startswith("context.a[")
    assert caught.value.field.endswith("…")
