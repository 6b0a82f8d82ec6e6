"""IngestStream on a real port: answers follow what is on disk, order holds, errors end it, and the server may stop."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from arbiter.client import AsyncClient, InvalidRequest, Streamed
from arbiter.client.channels import failure_of
from arbiter.server import streams
from arbiter.types import Event
from arbiter.v1 import profile_pb2, profile_pb2_grpc
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.server.conftest import OpenShop, Shop

START = 1_790_000_000_000_000


def request(subject_id: str, numbers: Sequence[int], kind: str = "see") -> profile_pb2.IngestStreamRequest:
    return profile_pb2.IngestStreamRequest(
        events=[
            profile_pb2.Event(id=f"e{number}", subject_id=subject_id, type=kind, at=write_timestamp(START + number))
            for number in numbers
        ]
    )


class Sender:
    """A stream that a test sends on when it likes."""

    def __init__(self, shop: Shop, **options: Any) -> None:
        self._sent: queue.SimpleQueue[profile_pb2.IngestStreamRequest | None] = queue.SimpleQueue()
        stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
        self.answers: Any = stub.IngestStream(iter(self._sent.get, None), timeout=30, **options)

    def send(self, *requests: profile_pb2.IngestStreamRequest) -> None:
        for each in requests:
            self._sent.put(each)

    def end(self) -> list[profile_pb2.IngestStreamResponse]:
        self._sent.put(None)
        return list(self.answers)


def taken_at_last(shop: Shop, first: profile_pb2.IngestStreamRequest) -> Sender:
    """A stream whose first request was answered: the server has seen by then that one before it ended."""
    until = time.monotonic() + 30
    while True:
        sender = Sender(shop)
        sender.send(first)
        try:
            assert next(sender.answers).requests == 1
        except grpc.RpcError:
            assert time.monotonic() < until, "the stream before it never ended"
            time.sleep(0.02)
        else:
            return sender


def stored(shop: Shop, subject_id: str) -> list[str]:
    return [event.id for event in shop.client.list_events(subject_id, page_size=1000).events]


def test_an_answer_comes_when_a_request_is_on_disk_though_no_other_follows(shop: Shop) -> None:
    sender = Sender(shop)
    for number in range(3):
        sender.send(request("single", [number]))
        answer = next(sender.answers)
        assert (answer.requests, answer.accepted, answer.duplicates) == (number + 1, 1, 0)
        assert answer.position
        assert len(stored(shop, "single")) == number + 1
    assert sender.end() == []
    assert sender.answers.code() is grpc.StatusCode.OK


def test_many_requests_are_answered_in_order_and_counted_once(shop: Shop) -> None:
    sender = Sender(shop)
    sender.send(*(request("many", range(10 * n, 10 * n + 10)) for n in range(100)))
    sender.send(request("many", range(5)))
    answers = sender.end()
    assert answers[-1].requests == 101
    assert [each.requests for each in answers] == sorted({each.requests for each in answers})
    assert sum(each.accepted for each in answers) == 1000
    assert sum(each.duplicates for each in answers) == 5
    assert [each.position for each in answers] == sorted(each.position for each in answers)
    assert stored(shop, "many") == [f"e{number}" for number in range(1000)]


def test_a_bad_request_ends_the_stream_after_all_before_it_are_answered(shop: Shop) -> None:
    sender = Sender(shop)
    sender.send(request("bad", [1]), request("bad", [2]), request("bad", [3], "No Name"))
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        answers.extend(sender.answers)
    failure = failure_of(caught.value)
    assert (failure.code, failure.field) == ("INVALID_ARGUMENT", "events[0].type")
    assert stored(shop, "bad") == ["e1", "e2"]
    assert answers == [] or answers[-1].requests <= 2  # grpc may drop answers that stand before an error


def test_who_is_not_answered_is_read_no_further(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "IN_FLIGHT", 2)
    taken: list[int] = []
    let = threading.Event()
    ingest = shop.store.ingest

    def slowly(events: Any) -> Any:
        taken.append(len(events))
        future = ingest(events)
        if len(taken) == 1:
            waiting: Any = type(future)()
            threading.Thread(target=lambda: (let.wait(60), waiting.set_result(future.result()))).start()
            return waiting
        return future

    monkeypatch.setattr(shop.store, "ingest", slowly)
    sender = Sender(shop)
    sender.send(*(request("slow", [number]) for number in range(20)))
    until = time.monotonic() + 30
    while len(taken) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)  # in which a third would be taken
    assert len(taken) == 2
    let.set()
    assert sender.end()[-1].requests == 20
    assert len(taken) == 20


def test_streams_are_bounded_and_one_too_many_is_told_when_to_come_back(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"ingest_streams": 2})
    senders = [Sender(shop) for _ in range(2)]
    for sender in senders:
        sender.send(request("full", [1]))
        next(sender.answers)
    with pytest.raises(grpc.RpcError) as caught:
        next(Sender(shop).answers)
    failure = failure_of(caught.value)
    assert (failure.code, failure.limit) == ("RESOURCE_EXHAUSTED", "ingest_streams")
    assert failure.retry_after
    # Other calls go on beside them.
    assert shop.client.update_profile("full", set={"a": 1}) == 1
    assert senders[0].end() == []
    another = taken_at_last(shop, request("full", [2]))
    assert another.end() == []
    assert senders[1].end() == []


def test_a_deadline_and_a_caller_who_leaves_end_a_stream(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"ingest_streams": 1})
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    silent: queue.SimpleQueue[profile_pb2.IngestStreamRequest | None] = queue.SimpleQueue()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.IngestStream(iter(silent.get, None), timeout=0.2))
    silent.put(None)
    assert failure_of(caught.value).code == "DEADLINE_EXCEEDED"

    taken_at_last(shop, request("left", [1])).answers.cancel()
    assert taken_at_last(shop, request("left", [1])).end() == []


def test_a_server_that_stops_ends_streams_and_says_so(open_shop: OpenShop) -> None:
    shop = open_shop()
    sender = Sender(shop)
    sender.send(request("stop", [1]))
    next(sender.answers)
    began = time.monotonic()
    stopping = threading.Thread(target=shop.server.stop, args=(20.0,))
    stopping.start()
    with pytest.raises(grpc.RpcError) as caught:
        next(sender.answers)
    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "NOT_READY")
    stopping.join()
    assert time.monotonic() - began < 15


def one_empty() -> Iterator[profile_pb2.IngestStreamRequest]:
    yield profile_pb2.IngestStreamRequest.FromString(b"")


def test_an_empty_request_is_answered_too(shop: Shop) -> None:
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    (answer,) = stub.IngestStream(one_empty())
    assert (answer.requests, answer.accepted) == (1, 0)


def test_the_client_streams_into_a_real_server(shop: Shop) -> None:
    events = [Event(f"e{number}", "sdk", "see", START + number, {"n": number}) for number in range(1234)]
    progress = list(shop.client.ingest_stream(events, batch=100))
    assert (progress[-1].sent, progress[-1].accepted) == (1234, 1234)
    assert stored(shop, "sdk") == [event.id for event in events[:1000]]

    async def again() -> list[Streamed]:
        async with AsyncClient(f"127.0.0.1:{shop.server.port}") as client:
            return [each async for each in client.ingest_stream(events, batch=100)]

    assert asyncio.run(again())[-1].duplicates == 1234
    with pytest.raises(InvalidRequest) as caught:
        list(shop.client.ingest_stream([*events[:150], Event("x", "sdk", "No Name", START)], batch=100))
    assert caught.value.field == "events[50].type"
