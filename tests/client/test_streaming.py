"""`ingest_stream` of both faces: progress, broken connections, and what events end in."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_status import rpc_status

from arbiter.client import AsyncClient, Client, InvalidRequest, Retries, Streamed, Unavailable
from arbiter.errors import NotReady
from arbiter.server.status import status_of
from arbiter.types import Event
from arbiter.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    Collect = Callable[..., list[Streamed]]

QUICK = Retries(first=0.001, longest=0.01)


class Log:
    """A server that keeps ids; it breaks a stream after so many requests, the last of them kept and not answered."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.streams = 0
        self.break_after: Iterator[int | None] = itertools.repeat(None)

    def ingest(
        self, request_iterator: Iterator[profile_pb2.IngestStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[profile_pb2.IngestStreamResponse]:
        self.streams += 1
        after = next(self.break_after)
        for number, request in enumerate(request_iterator, start=1):
            new = [event.id for event in request.events if event.id not in self.ids]
            self.ids += new
            if number == after:
                context.abort_with_status(rpc_status.to_status(status_of(NotReady("away"), "test")))
            yield profile_pb2.IngestStreamResponse(
                requests=number, accepted=len(new), duplicates=len(request.events) - len(new), position=len(self.ids)
            )


@pytest.fixture
def log() -> Iterator[tuple[Log, str]]:
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        kept = Log()
        handler = grpc.stream_stream_rpc_method_handler(
            kept.ingest,
            profile_pb2.IngestStreamRequest.FromString,
            profile_pb2.IngestStreamResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler("arbiter.v1.ProfileService", {"IngestStream": handler})
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield kept, f"127.0.0.1:{port}"
        server.stop(None).wait()


def blocking(target: str, events: Iterable[Event], **options: Any) -> list[Streamed]:
    with Client(target, retries=QUICK) as client:
        return list(client.ingest_stream(events, **options))


def awaiting(target: str, events: Iterable[Event], **options: Any) -> list[Streamed]:
    async def run() -> list[Streamed]:
        async with AsyncClient(target, retries=QUICK) as client:
            return [progress async for progress in client.ingest_stream(events, **options)]

    return asyncio.run(run())


def from_coroutine(target: str, events: Iterable[Event], **options: Any) -> list[Streamed]:
    async def each() -> AsyncIterator[Event]:
        for number, event in enumerate(events):
            if number % 7 == 0:
                await asyncio.sleep(0)
            yield event

    async def run() -> list[Streamed]:
        async with AsyncClient(target, retries=QUICK) as client:
            return [progress async for progress in client.ingest_stream(each(), **options)]

    return asyncio.run(run())


@pytest.fixture(params=[blocking, awaiting, from_coroutine])
def collect(request: pytest.FixtureRequest) -> Collect:
    found: Collect = request.param
    return found


def numbered(count: int) -> list[Event]:
    return [Event(f"e{number}", "ann", "see", number) for number in range(count)]


def test_all_events_are_stored_in_order_and_progress_is_told(log: tuple[Log, str], collect: Collect) -> None:
    kept, target = log
    progress = collect(target, numbered(105), batch=10)
    assert kept.ids == [f"e{number}" for number in range(105)]
    assert (progress[-1].sent, progress[-1].accepted, progress[-1].position) == (105, 105, 105)
    assert [each.sent for each in progress] == sorted(each.sent for each in progress)
    assert collect(target, numbered(105), batch=50)[-1].duplicates == 105
    assert collect(target, []) == []


def test_a_broken_stream_is_taken_up_where_it_was_not_answered(log: tuple[Log, str], collect: Collect) -> None:
    kept, target = log
    kept.break_after = iter([3, 1, 2, 5, None])
    progress = collect(target, iter(numbered(200)), batch=10)
    assert kept.ids == [f"e{number}" for number in range(200)]
    assert kept.streams == 5
    assert progress[-1].sent == 200
    assert progress[-1].accepted + progress[-1].duplicates == 200


def test_a_server_that_stays_away_is_given_up(log: tuple[Log, str], collect: Collect) -> None:
    kept, target = log
    kept.break_after = itertools.repeat(1)
    with pytest.raises(Unavailable):
        collect(target, numbered(50), batch=10)
    assert kept.streams == QUICK.attempts


def test_what_events_end_in_is_raised_when_all_before_it_is_stored(log: tuple[Log, str], collect: Collect) -> None:
    kept, target = log

    def failing() -> Iterator[Event]:
        yield from numbered(25)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(target, failing(), batch=10)
    assert kept.ids == [f"e{number}" for number in range(25)]
    kept.ids.clear()
    wrong = [*numbered(12), Event("x", "ann", "see", 1, {"n": 1 << 70}), *numbered(3)]
    with pytest.raises(InvalidRequest) as caught:
        collect(target, wrong, batch=10)
    assert caught.value.field == "events[12].properties.n"
    assert kept.ids == [f"e{number}" for number in range(12)]


def test_a_stream_that_is_left_is_cancelled(log: tuple[Log, str]) -> None:
    kept, target = log
    with Client(target, retries=QUICK) as client:
        endless = (Event(f"e{number}", "ann", "see", number) for number in itertools.count())
        for progress in client.ingest_stream(endless, batch=1):
            if progress.sent >= 5:
                break
    assert len(kept.ids) >= 5
