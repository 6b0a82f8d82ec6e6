"""What gRPC's own interoperability tests name, and how calls end: the same on every transport."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc import _server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from arbiter.server import inline, tags
from arbiter.server.app import Server
from arbiter.server.decisions import DecisionService
from arbiter.server.gate import Caller, PermissionDenied, Unauthenticated
from arbiter.server.settings import FaceSettings
from arbiter.v1 import (
    decision_pb2,
    decision_pb2_grpc,
    profile_pb2,
    profile_pb2_grpc,
)
from arbiter.v1.value_pb2 import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

    from arbiter.profiles.store import Update
    from arbiter.server.calls import Call, Later, Slow
    from arbiter.server.gate import Identities, Metadata
    from tests.server.conftest import OpenShop, Shop

PATIENCE_S = 20.0
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


def decide(shop: Shop, channel: grpc.Channel | None = None) -> Any:
    return decision_pb2_grpc.DecisionServiceStub(channel or shop.channel).Decide


def request(**fields: Any) -> decision_pb2.DecideRequest:
    return decision_pb2.DecideRequest(**({"subject_id": "x", "decision": "shop.footer"} | fields))


def code_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    failed: Any = caught.value
    return failed.code(), failed.details()


def refused(call: Callable[[], object]) -> bool:
    """Whether nobody takes the call; a server that stops takes some for a moment."""
    try:
        call()
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code() is grpc.StatusCode.UNAVAILABLE
    return False


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.01)


@contextlib.contextmanager
def held(shop: Shop) -> Iterator[list[str]]:
    """LMDB has one writer: while this runs, no write reaches the disk. Gives the subjects whose update has begun."""
    begun: list[str] = []
    update = shop.store.update

    def seen(wanted: Update) -> Future[int]:
        begun.append(wanted.subject_id)
        return update(wanted)

    with pytest.MonkeyPatch.context() as patched, shop.store._environment.handle.begin(write=True):
        patched.setattr(shop.store, "update", seen)
        yield begun


def update(shop: Shop, subject: str, **options: Any) -> grpc.CallFuture[profile_pb2.UpdateProfileResponse]:
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    asked = profile_pb2.UpdateProfileRequest(subject_id=subject, set={"n": Value(int_value=1)})
    return stub.UpdateProfile.future(asked, **options)


# What gRPC's interoperability tests name


def test_empty_unary(shop: Shop) -> None:
    batch = decision_pb2_grpc.DecisionServiceStub(shop.channel).DecideBatch(decision_pb2.DecideBatchRequest())
    assert not batch.results
    assert batch.snapshot


def test_large_unary(shop: Shop) -> None:
    channel = grpc.insecure_channel(
        f"127.0.0.1:{shop.server.port}", options=[("grpc.max_receive_message_length", 64 << 20)]
    )
    with channel:
        context = {f"k{n}": Value(string_value="é" * 1000) for n in range(100)}
        asked = [request(context=context, request_id=str(n) * 20) for n in range(40)]
        message = decision_pb2.DecideBatchRequest(requests=asked)
        assert message.ByteSize() > 4 << 20
        answer = decision_pb2_grpc.DecisionServiceStub(channel).DecideBatch(message, timeout=PATIENCE_S)
        assert [each.response.request_id for each in answer.results] == [str(n) * 20 for n in range(40)]
        explained = [request(explain={}) for _ in range(1000)]
        answer = decision_pb2_grpc.DecisionServiceStub(channel).DecideBatch(
            decision_pb2.DecideBatchRequest(requests=explained), timeout=PATIENCE_S
        )
        assert answer.ByteSize() > 100_000
        assert all(each.response.HasField("explanation") for each in answer.results)


def test_status_code_and_message(shop: Shop) -> None:
    code, text = code_of(lambda: decide(shop)(request(decision="nope")))
    assert (code, "nope" in text) == (grpc.StatusCode.NOT_FOUND, True)


def test_special_status_message(shop: Shop) -> None:
    code, text = code_of(lambda: decide(shop)(request(decision=SPECIAL)))
    assert code is grpc.StatusCode.NOT_FOUND
    assert SPECIAL in text


def test_unimplemented_method(shop: Shop) -> None:
    call: Any = shop.channel.unary_unary("/arbiter.v1.DecisionService/Foretell", bytes, bytes)
    assert code_of(lambda: call(b""))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_unimplemented_service(shop: Shop) -> None:
    call: Any = shop.channel.unary_unary("/arbiter.v9.Oracle/Decide", bytes, bytes)
    assert code_of(lambda: call(b""))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_cancel_after_begin(shop: Shop) -> None:
    with held(shop):
        call = update(shop, "cancelled")
        call.cancel()  # type: ignore[no-untyped-call] # the stubs leave it open
        assert call.cancelled()
    assert decide(shop)(request()).defaulted


def test_timeout_on_a_call_that_waits(shop: Shop) -> None:
    with held(shop):
        code, _ = code_of(update(shop, "late", timeout=0.2).result)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    # The write went on, since it was begun; whoever repeats it with a key of its own sees the answer.
    until(lambda: shop.client.get_profile("late").exists)


def test_custom_metadata(shop: Shop) -> None:
    metadata = (("x-arbiter-test", "plain"), ("x-arbiter-test-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b"))
    answer, call = decide(shop).with_call(request(request_id="r"), metadata=metadata)
    assert answer.request_id == "r"
    assert dict(call.trailing_metadata()) == {}
    with pytest.raises(grpc.RpcError) as caught:
        decide(shop)(request(decision="nope"), metadata=metadata)
    failed: Any = caught.value
    assert [key for key, _ in failed.trailing_metadata()] == ["grpc-status-details-bin"]


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_client_compressed_unary(shop: Shop, algorithm: grpc.Compression) -> None:
    asked = request(context={"text": Value(string_value="a" * 20_000)}, request_id="compressed")
    assert decide(shop)(asked, compression=algorithm).request_id == "compressed"


def test_a_message_that_is_too_large(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"message_bytes": 1000})
    code, _ = code_of(lambda: decide(shop)(request(context_json=b" " * 2000)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert decide(shop)(request()).defaulted


def test_a_call_without_a_message(shop: Shop) -> None:
    call: Any = shop.channel.stream_unary("/arbiter.v1.DecisionService/Decide", bytes, bytes)
    code, text = code_of(lambda: call(iter(())))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "requires exactly one request message" in text


def test_a_call_with_two_messages_is_answered_for_the_first(shop: Shop) -> None:
    call: Any = shop.channel.stream_unary("/arbiter.v1.DecisionService/Decide", bytes, bytes)
    both = iter([request(request_id="first").SerializeToString(), request(request_id="second").SerializeToString()])
    assert decision_pb2.DecideResponse.FromString(call(both)).request_id == "first"


def test_bytes_that_are_no_message(shop: Shop) -> None:
    call: Any = shop.channel.unary_unary("/arbiter.v1.DecisionService/Decide", bytes, bytes)
    code, text = code_of(lambda: call(b"\xff\xff\xff"))
    assert (code, "are no arbiter.v1.DecideRequest" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


# Many at once


def test_calls_of_one_connection_are_each_answered_with_their_own(shop: Shop) -> None:
    calls = [decide(shop).future(request(request_id=str(n)), timeout=PATIENCE_S) for n in range(600)]
    assert [call.result().request_id for call in calls] == [str(n) for n in range(600)]


def test_calls_of_all_kinds_mix(shop: Shop) -> None:
    health = health_pb2_grpc.HealthStub(shop.channel)
    asked: list[tuple[Any, Callable[[Any], object]]] = []
    for n in range(60):
        asked.append((update(shop, f"mixed-{n}", timeout=PATIENCE_S), lambda answer: answer.version))
        asked.append((decide(shop).future(request(explain={}), timeout=PATIENCE_S), lambda answer: answer.explanation))
        asked.append((decide(shop).future(request(), timeout=PATIENCE_S), lambda answer: answer.decision_id))
        asked.append((health.Check.future(health_pb2.HealthCheckRequest()), lambda answer: answer.status))
    assert all(good(call.result()) for call, good in asked)


def test_other_calls_go_between_the_steps_of_a_batch(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def endless(_self: DecisionService, _content: bytes, _call: Call) -> Generator[None, None, bytes]:
        while not release.is_set():
            yield
        return b""

    monkeypatch.setattr(DecisionService, "decide_batch", endless)
    shop = open_shop()
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    batches = [stub.DecideBatch.future(decision_pb2.DecideBatchRequest(), timeout=PATIENCE_S) for _ in range(2)]
    assert decide(shop)(request(), timeout=PATIENCE_S).defaulted
    late = stub.DecideBatch.future(decision_pb2.DecideBatchRequest(), timeout=0.2)
    assert code_of(late.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    left = stub.DecideBatch.future(decision_pb2.DecideBatchRequest())
    left.cancel()  # type: ignore[no-untyped-call] # the stubs leave it open
    release.set()
    assert all(batch.result() is not None for batch in batches)


def test_of_a_crowd_nobody_is_answered_who_has_left(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    decided: list[bytes] = []
    begun, release = threading.Event(), threading.Event()
    work = DecisionService.decide

    def first_waits(service: DecisionService, content: bytes, call: Call) -> bytes | Slow | Later:
        decided.append(content)
        if len(decided) == 1:
            begun.set()
            release.wait(PATIENCE_S)
        return work(service, content, call)

    monkeypatch.setattr(DecisionService, "decide", first_waits)
    shop = open_shop(threads=1)
    first = decide(shop).future(request(), timeout=PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    crowd = [decide(shop).future(request(request_id=str(n)), timeout=PATIENCE_S) for n in range(90)]
    for call in crowd[:80]:
        call.cancel()
    release.set()
    assert [call.result().request_id for call in crowd[80:]] == [str(n) for n in range(80, 90)]
    assert first.result().defaulted
    if transport == "inline":  # the first few are answered as they come
        assert len(decided) <= 1 + 10 + (inline._CROWD + 1)


def test_who_comes_late_to_a_long_crowd_with_little_time_is_told_at_once(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    if transport != "inline":
        pytest.skip("the stock transport has a thread for each, and no crowd")
    begun, release = threading.Event(), threading.Event()
    work = DecisionService.decide

    def first_waits(service: DecisionService, content: bytes, call: Call) -> bytes | Slow | Later:
        if not begun.is_set():
            begun.set()
            release.wait(PATIENCE_S)
        return work(service, content, call)

    monkeypatch.setattr(DecisionService, "decide", first_waits)
    shop = open_shop()
    first = decide(shop).future(request(), timeout=PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    patient = [decide(shop).future(request(), timeout=PATIENCE_S) for _ in range(inline._CROWD + 20)]
    hasty = [decide(shop).future(request(), timeout=0.9 * inline._LITTLE_S) for _ in range(10)]
    time.sleep(2 * inline._BEHIND_S)  # what makes a crowd a long one
    release.set()
    assert first.result().defaulted
    assert all(call.result().defaulted for call in patient)
    assert {call.code() for call in hasty} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    until(lambda: decide(shop).future(request(), timeout=0.9 * inline._LITTLE_S).exception() is None)


def test_a_server_that_refuses_goes_on_until_nobody_had_to_be_refused_for_a_while(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    if transport != "inline":
        pytest.skip("the stock transport has a thread for each, and no crowd")
    clock = time.time()
    monkeypatch.setattr(inline, "_clock", lambda: clock)  # which stands still, so that this holds on any machine
    monkeypatch.setattr(inline, "_LITTLE_S", 2 * PATIENCE_S)
    held = [(threading.Event(), threading.Event()) for _ in range(3)]
    waiting = list(held)
    work = DecisionService.decide

    def some_wait(service: DecisionService, content: bytes, call: Call) -> bytes | Slow | Later:
        if decision_pb2.DecideRequest.FromString(content).request_id == "wait":
            begun, release = waiting.pop(0)
            begun.set()
            release.wait(PATIENCE_S)
        return work(service, content, call)

    monkeypatch.setattr(DecisionService, "decide", some_wait)
    shop = open_shop()
    refused = []
    for (begun, release), passed in zip(held, (2 * inline._BEHIND_S, 0.0, 0.0), strict=True):
        first = decide(shop).future(request(request_id="wait"))
        assert begun.wait(PATIENCE_S)
        patient = [decide(shop).future(request()) for _ in range(inline._CROWD + 20)]
        hasty = [decide(shop).future(request(), timeout=PATIENCE_S) for _ in range(10)]
        clock += passed
        time.sleep(0.2)  # so that most of them are there
        release.set()
        assert all(call.result().defaulted for call in (first, *patient))
        refused.append(grpc.StatusCode.RESOURCE_EXHAUSTED in {call.code() for call in hasty})
        if len(refused) == 2:
            clock += 2 * inline._BEHIND_S
            assert decide(shop)(request()).defaulted
    assert refused == [True, True, False]


def test_what_is_too_much_is_refused_with_a_delay_and_the_rest_is_served(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"concurrent_calls": 2}, threads=2)
    with held(shop):
        calls = [update(shop, f"busy-{n}", timeout=PATIENCE_S) for n in range(12)]
        until(lambda: sum(call.done() for call in calls) == 10)
        refused = [call for call in calls if call.done()]
        status = rpc_status.from_call(refused[0])
        assert status is not None
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        info, retry = ErrorInfo(), RetryInfo()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert (info.reason, info.metadata["limit"]) == ("LIMIT_EXCEEDED", "concurrent_calls")
        assert retry.retry_delay.ToMilliseconds() > 0
    assert [call.result().version for call in calls if call not in refused] == [1, 1]
    assert shop.counters.errors["RESOURCE_EXHAUSTED"] == 10
    # A call is under way until its answer went out, which its caller may know before the server does.
    until(lambda: decide(shop).future(request()).exception() is None)


def test_a_fault_of_ours_is_told_with_a_reference_and_serving_goes_on(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: DecisionService, _content: bytes, _call: Call) -> bytes:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(DecisionService, "decide_batch", broken)
        shop = open_shop()
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    code, text = code_of(lambda: stub.DecideBatch(decision_pb2.DecideBatchRequest()))
    assert (code, "reference" in text, "a bug" in text) == (grpc.StatusCode.INTERNAL, True, False)
    assert "a bug" in caplog.text
    assert decide(shop)(request()).defaulted


def test_no_call_stays_in_memory_once_it_has_ended(open_shop: OpenShop) -> None:
    shop = open_shop()
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    gc.collect()
    gc.disable()  # what only the collector would find is too much: it looks seldom where calls are answered
    try:
        for n in range(30):
            decide(shop)(request())
            decide(shop)(request(explain={}))
            stub.DecideBatch(decision_pb2.DecideBatchRequest(requests=[request()] * 40))
            assert update(shop, f"kept-{n}").result().version
            refused(lambda: decide(shop)(request(decision="nope")))
        crowd = [decide(shop).future(request(), timeout=PATIENCE_S) for _ in range(200)]
        for call in crowd[::3]:
            call.cancel()
        assert all(call.cancelled() or call.result() for call in crowd)
        until(lambda: sum(isinstance(each, tags.Message) for each in gc.get_objects()) <= 1)
    finally:
        gc.enable()


# How serving ends


def test_draining_ends_what_was_begun_and_takes_nothing_new(open_shop: OpenShop) -> None:
    shop = open_shop()
    decide(shop)(request())
    with held(shop) as waiting:
        begun = [update(shop, f"drained-{n}", timeout=PATIENCE_S) for n in range(10)]
        until(lambda: len(waiting) == 10)
        stopping = threading.Thread(target=shop.server.stop, args=(PATIENCE_S,))
        stopping.start()
        until(lambda: refused(lambda: decide(shop)(request())))
        assert stopping.is_alive()
    assert [call.result().version for call in begun] == [1] * 10
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


def test_when_the_grace_is_over_what_still_waits_is_cancelled(open_shop: OpenShop) -> None:
    shop = open_shop()
    with held(shop) as waiting:
        begun = [update(shop, f"cut-{n}", timeout=PATIENCE_S) for n in range(2)]
        until(lambda: len(waiting) == 2)
        stopping = threading.Thread(target=shop.server.stop, args=(0.2,))
        stopping.start()
        for call in begun:
            assert code_of(call.result)[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


def test_stopping_while_calls_rush_in_leaves_none_without_an_end(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop()
    ends: list[grpc.StatusCode] = []
    stopped = threading.Event()

    def rush() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{shop.server.port}") as channel:
            while not stopped.is_set():
                calls = [decide(shop, channel).future(request(), timeout=PATIENCE_S) for _ in range(50)]
                ends.extend(call.code() for call in calls)

    rushing = [threading.Thread(target=rush) for _ in range(3)]
    for thread in rushing:
        thread.start()
    until(lambda: len(ends) > 300)
    shop.server.stop(PATIENCE_S)
    stopped.set()
    for thread in rushing:
        thread.join(PATIENCE_S)
    assert set(ends) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert sum(end is grpc.StatusCode.OK for end in ends) == shop.counters.decisions["shop.footer"]
    assert "Traceback" not in caplog.text


def test_a_call_that_grpc_lost_is_ended_and_holds_up_nobody(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """As its core does with one that comes while it begins to stop: the call is there, and nobody hears of it."""
    shop = open_shop()
    lost: list[Any] = []
    if transport == "inline":

        def arrived(loop: inline.InlineLoop, slot: Any, event: Any) -> None:
            loop._state.due.discard(slot)
            lost.append(event)

        monkeypatch.setattr(inline.InlineLoop, "_arrived", arrived)
    else:

        def handle(event: Any, *_: Any) -> tuple[None, None]:
            lost.append(event)
            return None, None

        monkeypatch.setattr(_server, "_handle_call", handle)
    call = decide(shop).future(request(), timeout=600)
    until(lambda: lost)
    monkeypatch.undo()
    stopping = threading.Thread(target=shop.server.stop, args=(600,))
    stopping.start()
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    assert code_of(call.result)[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_server_that_served_nothing_ends(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.server.stop(0)
    assert code_of(lambda: decide(shop)(request()))[0] is grpc.StatusCode.UNAVAILABLE


# Who may call


class Passwords:
    """Lets in who says the word; only those who may, may reflect."""

    def admit(self, method: str, metadata: Metadata, _identities: Identities) -> Caller:
        said = dict(metadata).get("x-word")
        if said is None:
            raise Unauthenticated(f"{method} wants a word: send x-word")
        if said == "guest" and "Reflection" in method:
            raise PermissionDenied(f"guests may not call {method}")
        return Caller(str(said))


def test_the_gate_is_asked_before_any_work_and_health_is_open_to_all(shop: Shop, transport: str) -> None:
    settings = FaceSettings(transport="inline" if transport == "inline" else "stock")
    server = Server(shop.backing, "127.0.0.1:0", settings, Passwords())
    before = shop.counters.decisions["shop.footer"]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            code, text = code_of(lambda: decide(shop, channel)(request()))
            assert (code, text) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "/arbiter.v1.DecisionService/Decide wants a word: send x-word",
            )
            assert shop.counters.decisions["shop.footer"] == before
            assert decide(shop, channel)(request(), metadata=[("x-word", "guest")]).defaulted
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
            reflect = ProtoReflectionDescriptorDatabase
            assert code_of(lambda: reflect(channel).get_services())[0] is grpc.StatusCode.UNAUTHENTICATED
            guest = grpc.intercept_channel(channel, _WithWord("guest"))
            assert code_of(lambda: reflect(guest).get_services())[0] is grpc.StatusCode.PERMISSION_DENIED
            member = grpc.intercept_channel(channel, _WithWord("member"))
            assert "arbiter.v1.DecisionService" in set(reflect(member).get_services())
    finally:
        server.stop(0)


class _WithWord(grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg] # at run time it takes none
    def __init__(self, word: str) -> None:
        self._word = word

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=[("x-word", self._word)]), requests)
