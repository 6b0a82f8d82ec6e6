"""Where a client connects to, over how many connections, by what right, and what goes along; on both faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from arbiter.client import Client, Misconfigured, Retries, Tls, Unavailable, UnknownName
from arbiter.types import Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.client.conftest import Authority, OpenClient, Road

    AtOnce = Callable[[list[Callable[[], Any]]], list[Any]]

SECRET = "s3cr3t-t0ken"  # noqa: S105 - of nothing
AWAY = grpc.StatusCode.UNAVAILABLE


def peers(road: Road) -> int:
    return len({each.peer for each in road.seen})


def test_calls_at_once_spread_over_the_connections(open_client: OpenClient, road: Road, at_once: AtOnce) -> None:
    client = open_client(road.target, connections=3)
    road.hold()

    def ask() -> object:
        return client.decide("ann", "shop.banner")

    def let_go() -> None:
        road.wait_for(6)
        road.let_go()

    at_once([ask] * 6 + [let_go])
    assert peers(road) == 3


def test_calls_one_by_one_share_a_connection(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, connections=3)
    for _ in range(5):
        client.decide("ann", "shop.banner")
    assert peers(road) == 1


def test_two_clients_share_no_connection(open_client: OpenClient, road: Road) -> None:
    for _ in range(2):
        open_client(road.target).decide("ann", "shop.banner")
    assert peers(road) == 2


def test_of_several_targets_the_one_that_answers_is_used(open_client: OpenClient, road: Road, server: str) -> None:
    road.close()
    client = open_client([road.target, server], retries=Retries(first=0.001))
    client.wait_ready()
    for _ in range(10):
        assert client.decide("ann", "shop.banner").treatments


def test_several_targets_are_all_used(open_client: OpenClient, road: Road, at_once: AtOnce, server: str) -> None:
    other = type(road)(server)
    client = open_client([road.target, other.open()], connections=1)
    for each in (road, other):
        each.hold()

    def ask() -> object:
        return client.decide("ann", "shop.banner")

    def let_go() -> None:
        for each in (road, other):
            each.wait_for(2)
            each.let_go()

    at_once([ask] * 4 + [let_go])
    other.tear_down()


def test_a_unix_socket_is_a_target(open_client: OpenClient, road: Road, socket_path: str) -> None:
    road.close()
    road.open(socket_path)
    assert open_client(socket_path, token=SECRET).decide("ann", "shop.banner").treatments


@pytest.mark.parametrize(
    "target",
    ["", "localhost", "localhost:", "localhost:http", "localhost:70000", ":1", "a b:1", "http://x:1", "[::1]", "::1:5"],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(Misconfigured, match="is no target: write HOST:PORT"):
        Client(target)


def test_no_target_and_no_connection_are_refused() -> None:
    with pytest.raises(Misconfigured, match="name at least one"):
        Client([])
    with pytest.raises(Misconfigured, match="`connections` is 0"):
        Client("localhost:1", connections=0)


def test_a_token_goes_along_with_every_attempt(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, token=SECRET, retries=Retries(first=0.001))
    road.refuse(AWAY)
    client.decide("ann", "shop.banner")
    assert [each.metadata["authorization"] for each in road.seen] == [f"Bearer {SECRET}"] * 2


def test_a_token_may_change(open_client: OpenClient, road: Road) -> None:
    tokens = iter(["first", "second"])
    client = open_client(road.target, token=lambda: next(tokens))
    for _ in range(2):
        client.decide("ann", "shop.banner")
    assert [each.metadata["authorization"] for each in road.seen] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("target", ["10.0.0.1:1", "example.com:1", "[2001:db8::1]:1", "dns:///example.com:1"])
def test_a_token_does_not_cross_a_network_in_the_open(target: str) -> None:
    with pytest.raises(Misconfigured, match="in the open") as caught:
        Client(target, token=SECRET)
    assert SECRET not in str(caught.value)
    with pytest.raises(Misconfigured, match="in the open"):
        Client(["localhost:1", target], token=lambda: SECRET)
    for allowed in ({"tls": Tls()}, {"insecure_token": True}):
        Client(target, token=SECRET, **allowed).close()


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "127.8.9.1:1", "localhost:1", "[::1]:1", "unix:/x", "unix-abstract:x"]
)
def test_a_token_may_go_in_the_open_on_this_machine(target: str) -> None:
    Client(target, token=SECRET).close()


@pytest.mark.parametrize("token", ["", " ", "a b", f"{SECRET}\n", "ümlaut", "a\r\nx-evil: 1"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(Misconfigured, match="the token is empty or holds") as caught:
        Client("localhost:1", token=token)
    assert not token.strip() or token.strip() not in str(caught.value)


def test_no_secret_is_shown(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target, token=SECRET, retries=None)
    road.refuse(AWAY)
    with pytest.raises(Unavailable) as caught:
        client.decide("ann", "shop.banner")
    shown = [repr(client), repr(Tls(key=SECRET.encode())), str(Tls(key=SECRET)), repr(caught.value)]
    assert road.target in shown[0]
    assert not [each for each in shown if SECRET in each]


def test_a_connection_is_secured_and_the_caller_shows_who_it_is(
    open_client: OpenClient, road: Road, authority: Authority, tmp_path: Path
) -> None:
    credentials = grpc.ssl_server_credentials([authority.issue("127.0.0.1")], authority.pem, require_client_auth=True)
    road.close()
    road.open(credentials=credentials)
    key, certificate = authority.issue("caller")
    for name, pem in (("ca", authority.pem), ("key", key), ("certificate", certificate)):
        (tmp_path / name).write_bytes(pem)
    files = Tls(ca=tmp_path / "ca", key=str(tmp_path / "key"), certificate=tmp_path / "certificate")
    for tls in (files, Tls(ca=authority.pem, key=key, certificate=certificate)):
        assert open_client(road.target, tls=tls, token=SECRET).decide("ann", "shop.banner").treatments
    for stranger in (None, Tls(), Tls(ca=authority.pem)):
        with pytest.raises(Unavailable):
            open_client(road.target, tls=stranger, retries=None).decide("ann", "shop.banner", timeout=5)


def test_a_server_may_have_another_name_than_the_target(
    open_client: OpenClient, road: Road, authority: Authority
) -> None:
    road.close()
    road.open(credentials=grpc.ssl_server_credentials([authority.issue("arbiter.example")]))
    named = Tls(ca=authority.pem, server_name="arbiter.example")
    assert open_client(road.target, tls=named).decide("ann", "shop.banner").treatments
    with pytest.raises(Unavailable):
        open_client(road.target, tls=Tls(ca=authority.pem), retries=None).decide("ann", "shop.banner", timeout=5)


def test_what_cannot_secure_a_connection_is_refused(tmp_path: Path) -> None:
    for half, missing in ((Tls(certificate=b"x"), "key"), (Tls(key=b"x"), "certificate")):
        with pytest.raises(Misconfigured, match=f"tls has no `{missing}`"):
            Client("localhost:1", tls=half)
    with pytest.raises(Misconfigured, match=r"the `ca` cannot be read from .*absent: No such file"):
        Client("localhost:1", tls=Tls(ca=tmp_path / "absent"))


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, Callable[[], tuple[ReadableSpan, ...]]]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter.get_finished_spans
    provider.shutdown()


def test_a_call_is_a_span_that_the_server_can_continue(
    open_client: OpenClient, road: Road, spans: tuple[TracerProvider, Callable[[], tuple[ReadableSpan, ...]]]
) -> None:
    provider, finished = spans
    client = open_client(road.target, tracer_provider=provider, retries=Retries(first=0.001))
    road.refuse(AWAY)
    client.decide("ann", "shop.banner")
    (span,) = finished()
    assert (span.name, span.kind) == ("arbiter.v1.DecisionService/Decide", trace.SpanKind.CLIENT)
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "arbiter.v1.DecisionService/Decide",
        "rpc.status_code": "OK",
        "server.address": "127.0.0.1",
        "server.port": int(road.target.rpartition(":")[2]),
    }
    assert [event.name for event in span.events] == ["retry"]
    assert span.context is not None
    ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
    assert [each.metadata["traceparent"].startswith(f"00-{ids}-0") for each in road.seen] == [True] * 2


def test_a_span_tells_of_the_failure_and_of_nothing_that_was_asked(
    open_client: OpenClient, road: Road, spans: tuple[TracerProvider, Callable[[], tuple[ReadableSpan, ...]]]
) -> None:
    provider, finished = spans
    client = open_client(road.target, tracer_provider=provider, retries=None)
    with pytest.raises(UnknownName, match="secret"):
        client.decide("ann", "secret.point")
    road.refuse(AWAY)
    client.decide("ann", "secret.point", fallback=Treatment("", "show", {}))
    unknown, local = finished()
    for span, code in ((unknown, "NOT_FOUND"), (local, "UNAVAILABLE")):
        assert span.attributes is not None
        assert span.attributes["rpc.status_code"] == span.attributes["error.type"] == code
        assert span.status.status_code is trace.StatusCode.ERROR
    assert local.attributes is not None
    assert local.attributes["arbiter.decision.local"] is True
    assert "secret" not in unknown.to_json() + local.to_json()


def test_the_callers_context_goes_along_without_spans_of_ours(open_client: OpenClient, road: Road) -> None:
    client = open_client(road.target)
    client.decide("ann", "shop.banner")
    parent = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
    around = baggage.set_baggage("tenant", "north", trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    token = context.attach(around)
    try:
        client.decide("ann", "shop.banner")
    finally:
        context.detach(token)
    before, within = [each.metadata for each in road.seen]
    assert not {"traceparent", "baggage"} & before.keys()
    assert (within["traceparent"], within["baggage"]) == (f"00-{1:032x}-{2:016x}-01", "tenant=north")
