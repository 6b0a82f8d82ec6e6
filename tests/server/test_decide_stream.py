"""DecideStream on a real port: answers come when they are ready, what is bad fails alone, and nothing read is lost."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest

from arbiter.client import Answer, Ask, AsyncClient, CallFailed, Client, Decided, InvalidRequest, Page, UnknownName
from arbiter.client.channels import failure_of
from arbiter.client.failures import failure
from arbiter.server import pipelined
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.telemetry.observer import Observer
from arbiter.types import ExplainLevel
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.server.conftest import OpenShop, Shop

PATIENCE_S = 60.0
DECIDE = "/arbiter.v1.DecisionService/Decide"
STRICT = """
decisions:
  shop.banner: {slots: 1, order: [priority], default: {action: show, params: {banner: bestsellers}}}
rules:
  - id: rare
    decision: shop.banner
    priority: 9
    when: "true"
    cap: {max: 3, per: lifetime, count_on: decision, strict: true}
    then: {action: show, params: {banner: rare}}
"""


def request(name: str, decision: str = "shop.banner", subject_id: str = "ann", **fields: Any) -> Any:
    asked = decision_pb2.DecideRequest(subject_id=subject_id, decision=decision, request_id=name)
    if fields.pop("explain", False):
        asked.explain.level = decision_pb2.EXPLAIN_LEVEL_ALL
    message = decision_pb2.DecideStreamRequest(request=asked)
    if "timeout" in fields:
        message.timeout.FromNanoseconds(round(fields["timeout"] * 1e9))
    return message


class Sender:
    """A stream that a test sends on when it likes."""

    def __init__(self, channel: grpc.Channel, **options: Any) -> None:
        self._sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stub = decision_pb2_grpc.DecisionServiceStub(channel)
        self.answers: Any = stub.DecideStream(iter(self._sent.get, None), **{"timeout": PATIENCE_S, **options})

    def send(self, *requests: decision_pb2.DecideStreamRequest) -> None:
        for each in requests:
            self._sent.put(each)

    def end(self) -> dict[str, decision_pb2.DecideStreamResponse]:
        self._sent.put(None)
        return {each.request_id: each for each in self.answers}


@pytest.fixture
def held(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    found = Held(shop, monkeypatch)
    yield found
    found.let_go()


class Held:
    """Has explanations take until a test lets go."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._let = threading.Event()
        decide = shop.engine.decide

        def slowly(request: Any, *rest: Any) -> Any:
            if request.explain:
                self.begun += 1
                assert self._let.wait(PATIENCE_S)
            return decide(request, *rest)

        monkeypatch.setattr(shop.engine, "decide", slowly)

    def let_go(self) -> None:
        self._let.set()

    def wait_for(self, begun: int) -> None:
        wait_until(lambda: self.begun >= begun)


def wait_until(true: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def reason_of(answer: decision_pb2.DecideStreamResponse) -> tuple[str, str]:
    failed = failure(answer.error)
    return failed.code, failed.field


def test_each_request_is_answered_as_decide_would_by_its_id(shop: Shop) -> None:
    shop.client.update_profile("mia", set={"country": "CA", "age": 30, "name": "Mia"})
    sender = Sender(shop.channel)
    names = [f"r{number}" for number in range(300)]
    sender.send(*(request(name, subject_id="mia" if number % 2 else "ann") for number, name in enumerate(names)))
    answers = sender.end()
    assert sorted(answers) == sorted(names)
    for number, name in enumerate(names):
        said = shop.client.decide("mia" if number % 2 else "ann", "shop.banner")
        response = answers[name].response
        assert [each.rule_id for each in response.treatments] == [each.rule_id for each in said.treatments]
        assert response.request_id == name
    assert len({each.response.decision_id for each in answers.values()}) == len(names)
    assert sender.answers.code() is grpc.StatusCode.OK


def test_what_takes_long_holds_up_nothing_behind_it(shop: Shop, held: Held) -> None:
    sender = Sender(shop.channel)
    sender.send(request("long", explain=True), *(request(f"r{number}") for number in range(20)))
    quick = [next(sender.answers).request_id for _ in range(20)]
    assert sorted(quick) == sorted(f"r{number}" for number in range(20))
    held.let_go()
    (last,) = sender.end().values()
    assert last.request_id == "long"
    assert last.response.explanation.rules


def test_a_bad_request_fails_alone_and_names_its_field(shop: Shop) -> None:
    sender = Sender(shop.channel)
    sender.send(
        request("good"),
        request("nowhere", "shop.nowhere"),
        request("nobody", subject_id=""),
        request(""),
        request("no time", timeout=0),
        request("long", timeout=30),
    )
    answers = sender.end()
    assert reason_of(answers["nowhere"])[0] == "NOT_FOUND"
    assert reason_of(answers["nobody"]) == ("INVALID_ARGUMENT", "request.subject_id")
    assert reason_of(answers[""]) == ("INVALID_ARGUMENT", "request.request_id")
    assert reason_of(answers["no time"]) == ("INVALID_ARGUMENT", "timeout")
    assert answers["good"].response.decision_id
    assert answers["long"].response.decision_id


def test_bytes_that_are_no_request_fail_alone(shop: Shop) -> None:
    channel: Any = shop.channel
    stream = channel.stream_stream(
        "/arbiter.v1.DecisionService/DecideStream", None, decision_pb2.DecideStreamResponse.FromString
    )
    answers = list(stream(iter([b"\xff\xff", request("good").SerializeToString()]), timeout=PATIENCE_S))
    assert {each.request_id: each.WhichOneof("result") for each in answers} == {"": "error", "good": "response"}


def test_who_is_not_answered_is_read_no_further(shop: Shop, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "IN_FLIGHT", 3)
    sender = Sender(shop.channel)
    sender.send(*(request(f"long{number}", explain=True) for number in range(3)), request("after"))
    held.wait_for(3)
    arrived: list[Any] = []
    taking = threading.Thread(target=lambda: arrived.append(next(sender.answers)))
    taking.start()
    taking.join(0.1)  # in which the fourth would be answered
    assert arrived == []
    held.let_go()
    taking.join()
    assert len(sender.end()) == 3


def test_a_worker_that_is_full_refuses_requests_and_says_when_to_come_back(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop(limits={"concurrent_calls": 1})
    held = Held(shop, monkeypatch)
    sender = Sender(shop.channel)
    sender.send(request("long", explain=True))
    held.wait_for(1)
    sender.send(request("more"))
    failed = failure(next(sender.answers).error)
    assert (failed.code, failed.limit) == ("RESOURCE_EXHAUSTED", "concurrent_calls")
    assert failed.retry_after
    held.let_go()
    assert sender.end()["long"].response.explanation.rules
    assert shop.counters.shed["concurrent_calls"] == 1


def test_a_request_has_a_deadline_of_its_own(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = open_shop(threads=1)
    held = Held(shop, monkeypatch)
    sender = Sender(shop.channel)
    sender.send(request("long", explain=True), request("late", explain=True, timeout=0.001), request("quick"))
    assert next(sender.answers).request_id == "quick"  # the one before it has waited since longer than it may
    time.sleep(0.002)
    held.let_go()
    answers = sender.end()
    assert reason_of(answers["late"])[0] == "DEADLINE_EXCEEDED"
    assert answers["long"].response.decision_id
    assert held.begun == 1


def test_a_stream_whose_deadline_passes_ends_and_so_does_one_that_is_left(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"decide_streams": 1})
    with pytest.raises(grpc.RpcError) as caught:
        list(Sender(shop.channel, timeout=0.2).answers)
    assert failure_of(caught.value).code == "DEADLINE_EXCEEDED"
    wait_until(lambda: shop.counters.decide_streams == 0)
    sender = Sender(shop.channel)
    sender.send(request("one"))
    assert next(sender.answers).request_id == "one"
    with pytest.raises(grpc.RpcError) as caught:
        next(Sender(shop.channel).answers)
    failed = failure_of(caught.value)
    assert (failed.code, failed.limit) == ("RESOURCE_EXHAUSTED", "decide_streams")
    assert failed.retry_after
    sender.answers.cancel()
    wait_until(lambda: shop.counters.decide_streams == 0)
    with Client(f"127.0.0.1:{shop.server.port}") as client:
        (decided,) = client.decide_stream([Ask(subject_id="ann", decision="shop.banner")])
    assert isinstance(decided.result, Answer)


def test_a_server_that_stops_answers_what_it_has_read(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = open_shop()
    held = Held(shop, monkeypatch)
    busy, idle = Sender(shop.channel), Sender(shop.channel)
    busy.send(request("long", explain=True))
    held.wait_for(1)
    idle.send(request("quick"))
    assert next(idle.answers).request_id == "quick"
    stopping = threading.Thread(target=shop.server.stop, args=(PATIENCE_S,))
    stopping.start()
    with pytest.raises(grpc.RpcError) as caught:
        next(idle.answers)
    failed = failure_of(caught.value)
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "NOT_READY")
    held.let_go()
    assert next(busy.answers).response.decision_id
    with pytest.raises(grpc.RpcError) as caught:
        next(busy.answers)
    assert failure_of(caught.value).reason == "NOT_READY"
    stopping.join()


def test_requests_are_counted_and_timed_as_calls_of_decide(shop: Shop, transport: str) -> None:
    backing = msgspec.structs.replace(shop.backing, observer=Observer(shop.counters))
    server = Server(backing, "127.0.0.1:0", msgspec.convert({"transport": transport}, FaceSettings))
    before, counters = shop.counters.decisions["shop.footer"], shop.counters
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            sender = Sender(channel)
            sender.send(*(request(f"r{number}", "shop.footer") for number in range(5)), request("bad", "shop.nowhere"))
            sender.send(request("long", explain=True))
            assert len(sender.end()) == 7
    finally:
        server.stop(1.0)
        counters.watched = False
    assert counters.decisions["shop.footer"] == before + 5
    assert sum(counters.calls[DECIDE, "OK"].counts()[:-1]) == 6
    assert sum(counters.calls[DECIDE, "NOT_FOUND"].counts()[:-1]) == 1
    assert sum(counters.calls["/arbiter.v1.DecisionService/DecideStream", "OK"].counts()[:-1]) == 1
    assert counters.active == 0


def test_a_strict_cap_holds_over_what_is_in_flight(open_shop: OpenShop) -> None:
    shop = open_shop(load=False)
    shop.write(STRICT)
    reloaded = shop.client.reload().last_reload
    assert reloaded is not None
    assert reloaded.ok
    sender = Sender(shop.channel)
    sender.send(*(request(f"r{number}") for number in range(12)))
    answers = sender.end().values()
    assert sorted(each.response.treatments[0].rule_id for each in answers) == [""] * 9 + ["rare"] * 3


def asks(count: int) -> list[Ask]:
    return [Ask(subject_id=f"s{number}", decision="shop.banner", request_id=f"mine{number}") for number in range(count)]


def blocking(targets: list[str], requests: Iterable[Ask], each: Any = None, **options: Any) -> list[Decided]:
    found = []
    with Client(targets) as client, client.decide_stream(requests, **options) as stream:
        for decided in stream:
            found.append(decided)
            if each is not None:
                each(len(found))
        assert stream.unanswered == []
    return found


def awaiting(targets: list[str], requests: Iterable[Ask], each: Any = None, **options: Any) -> list[Decided]:
    async def run() -> list[Decided]:
        found = []
        async with AsyncClient(targets) as client, client.decide_stream(requests, **options) as stream:
            async for decided in stream:
                found.append(decided)
                if each is not None:
                    each(len(found))
            assert stream.unanswered == []
        return found

    return asyncio.run(run())


@pytest.fixture(params=[blocking, awaiting])
def decide_all(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_client_asks_many_and_tells_which_is_answered(shop: Shop, decide_all: Any) -> None:
    asked = asks(200)
    asked[7] = Ask(subject_id="s7", decision="shop.nowhere")
    asked[8] = Ask(subject_id="s8", decisions=["shop.banner", "shop.footer"])
    asked[9] = Ask(subject_id="s9", decision="shop.banner", explain=ExplainLevel.ALL)
    found = {each.ask.subject_id: each for each in decide_all([shop_target(shop)], iter(asked), each_timeout=30)}
    assert {name: each.ask for name, each in found.items()} == {each.subject_id: each for each in asked}
    assert isinstance(found["s7"].result, UnknownName)
    page, explained = found["s8"].result, found["s9"].result
    assert isinstance(page, Page)
    assert [each.decision for each in page.decisions] == ["shop.banner", "shop.footer"]
    assert isinstance(explained, Answer)
    assert explained.explanation
    assert all(
        getattr(each.result, "request_id", each.ask.request_id) == each.ask.request_id for each in found.values()
    )


def test_the_client_goes_on_elsewhere_with_what_a_server_that_stops_left(open_shop: OpenShop, decide_all: Any) -> None:
    shops = [open_shop(), open_shop()]
    asked: list[Ask] = []
    stops: list[threading.Thread] = []

    def requests() -> Iterator[Ask]:
        """Until one server has gone, and some more."""
        left = 50
        for ask in asks(100_000):
            if len(stops) == 1 and not stops[0].is_alive():
                left -= 1
            if not left:
                break
            time.sleep(0.001)
            asked.append(ask)
            yield ask

    def stop_one(answered: int) -> None:
        if answered == 20:
            (busy,) = (each for each in shops if each.counters.decide_streams)
            stops.append(threading.Thread(target=busy.server.stop, args=(PATIENCE_S,)))
            stops[0].start()

    found = decide_all([shop_target(each) for each in shops], requests(), stop_one)
    assert sorted(each.ask.subject_id for each in found) == sorted(each.subject_id for each in asked)
    assert all(isinstance(each.result, Answer) for each in found)
    assert all(each.counters.decisions["shop.banner"] for each in shops)


def test_what_no_message_can_hold_is_raised_when_all_before_it_is_answered(shop: Shop, decide_all: Any) -> None:
    answered: list[int] = []
    bad = Ask(subject_id="bad", decision="shop.banner", context={"n": 1 << 70})
    with pytest.raises(InvalidRequest) as caught:
        decide_all([shop_target(shop)], [*asks(20), bad, *asks(5)], answered.append)
    assert caught.value.field == "requests[20].context.n"
    assert answered[-1] == 20


def test_when_no_server_is_left_the_stream_says_what_it_asked_in_vain(open_shop: OpenShop) -> None:
    shop = open_shop()
    sent: queue.SimpleQueue[Ask] = queue.SimpleQueue()
    with Client(shop_target(shop), retries=None) as client:
        stream = client.decide_stream(iter(sent.get, None))
        for ask in asks(3):
            sent.put(ask)
        assert len(list(itertools.islice(stream, 3))) == 3
        shop.server.stop(0)
        sent.put(asks(4)[3])
        with pytest.raises(CallFailed) as caught:
            next(stream)
        assert caught.value.code in {"UNAVAILABLE", "CANCELLED"}
        wait_until(lambda: stream.unanswered == asks(4)[3:])
        sent.put(None)  # type: ignore[arg-type] # lets the thread that takes them go


def shop_target(shop: Shop) -> str:
    return f"127.0.0.1:{shop.server.port}"
