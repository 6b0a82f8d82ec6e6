"""`subscribe` of both faces: what is told, in order and once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_status import rpc_status

from arbiter.client import (
    AsyncClient,
    CallFailed,
    Client,
    Firing,
    InvalidRequest,
    OutOfRange,
    Retries,
    Unavailable,
)
from arbiter.client.failures import failure
from arbiter.client.following import Resumption
from arbiter.errors import FellBehind, NotKept, NotReady
from arbiter.server.status import status_of
from arbiter.v1 import trigger_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Take = Callable[..., list[Firing]]

QUICK = Retries(first=0.001, longest=0.01)


class Log:
    """A server with so many firings; it breaks a stream after some of them, in one way after the other."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[trigger_pb2.SubscribeRequest] = []
        self.breaks: Iterator[tuple[int, Exception] | None] = itertools.repeat(None)
        self.released = threading.Event()
        self.heard = threading.Event()  # without it nothing is broken off
        self.heard.set()

    def subscribe(
        self, request: trigger_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[trigger_pb2.SubscribeResponse]:
        self.asked.append(request)
        position = request.after if request.HasField("after") else self.count
        breaks = next(self.breaks, None)
        sent = 0
        yield self._answer(position)
        while position < self.count:
            several = range(position + 1, min(position + 3, self.count) + 1)
            if breaks is not None and sent + len(several) > breaks[0]:
                context.abort_with_status(rpc_status.to_status(status_of(breaks[1], "test")))
            position, sent = several[-1], sent + len(several)
            yield self._answer(position, [trigger_pb2.Firing(position=each, trigger="t") for each in several])
        if breaks is not None:
            self.heard.wait(30)
            context.abort_with_status(rpc_status.to_status(status_of(breaks[1], "test")))
        self.released.wait(30)

    def _answer(self, position: int, firings: list[trigger_pb2.Firing] | None = None) -> trigger_pb2.SubscribeResponse:
        return trigger_pb2.SubscribeResponse(
            firings=firings or [], position=position, newest=self.count, unknown_triggers=["nope"]
        )


@pytest.fixture
def log() -> Iterator[tuple[Log, str]]:
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        kept = Log(20)
        handler = grpc.unary_stream_rpc_method_handler(
            kept.subscribe,
            trigger_pb2.SubscribeRequest.FromString,
            trigger_pb2.SubscribeResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler("arbiter.v1.TriggerService", {"Subscribe": handler})
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield kept, f"127.0.0.1:{port}"
        kept.released.set()
        server.stop(None).wait()


def blocking(target: str, count: int, retries: Retries | None = QUICK, **asked: Any) -> list[Firing]:
    with Client(target, retries=retries) as client, client.subscribe(**asked) as followed:
        return list(itertools.islice(followed, count))


def awaiting(target: str, count: int, retries: Retries | None = QUICK, **asked: Any) -> list[Firing]:
    async def run() -> list[Firing]:
        async with AsyncClient(target, retries=retries) as client, client.subscribe(**asked) as followed:
            found: list[Firing] = []
            async for firing in followed:
                found.append(firing)
                if len(found) == count:
                    break
            return found

    return asyncio.run(run())


@pytest.fixture(params=[blocking, awaiting])
def take(request: pytest.FixtureRequest) -> Take:
    found: Take = request.param
    return found


def positions(firings: list[Firing]) -> list[int]:
    return [each.position for each in firings]


def test_firings_come_in_order_from_where_one_begins(log: tuple[Log, str], take: Take) -> None:
    kept, target = log
    assert positions(take(target, 20, after=0)) == list(range(1, 21))
    assert positions(take(target, 5, after=15)) == list(range(16, 21))
    take(target, 1, after=19, triggers=["a"], tags=["b"], subject_id="ann", include_decision=True)
    asked = kept.asked[-1]
    assert (list(asked.triggers), list(asked.tags), asked.subject_id, asked.include_decision) == (
        ["a"], ["b"], "ann", True,
    )  # fmt: skip


def test_a_stream_that_breaks_goes_on_where_it_was(log: tuple[Log, str], take: Take) -> None:
    kept, target = log
    away = NotReady("the server stops")
    kept.breaks = iter([(4, away), (0, away), (0, away), (5, FellBehind("too slow", 6)), (7, away)])
    assert positions(take(target, 20, after=0)) == list(range(1, 21))
    asked = [each.after for each in kept.asked]
    assert len(asked) == 6
    assert asked == sorted(asked)  # where exactly, grpc says, which may drop answers that stand before an error


def test_it_goes_on_from_where_a_server_said_that_now_is(log: tuple[Log, str]) -> None:
    kept, target = log
    kept.heard.clear()

    def breaks() -> Iterator[tuple[int, Exception] | None]:
        yield 1, NotReady("away")
        kept.count = 22

    kept.breaks = breaks()
    with Client(target, retries=QUICK) as client, client.subscribe() as followed:
        assert (followed.position, followed.newest) == (None, 0)

        def watch() -> None:
            while followed.position is None:
                time.sleep(0.005)
            kept.heard.set()

        watching = threading.Thread(target=watch)
        watching.start()
        assert next(followed).position == 21
        watching.join()
        assert (followed.position, followed.newest, followed.unknown) == (21, 22, ("nope",))
    assert [each.HasField("after") for each in kept.asked] == [False, True]


def test_what_does_not_pass_is_raised(log: tuple[Log, str], take: Take) -> None:
    kept, target = log
    kept.breaks = itertools.repeat((0, NotKept("gone", field="after", earliest=7, newest=20)))
    with pytest.raises(OutOfRange) as caught:
        take(target, 1, after=2)
    assert caught.value.facts["earliest"] == "7"
    with pytest.raises(InvalidRequest) as refused:
        take(target, 1, after=-1)
    assert refused.value.field == "after"
    kept.breaks = itertools.repeat((0, NotReady("away")))
    with pytest.raises(Unavailable):
        take(target, 1, retries=None, after=2)


def test_a_server_that_stays_away_is_given_up_when_patience_ends(take: Take) -> None:
    with pytest.raises(Unavailable):
        take("127.0.0.1:1", 1, after=2, patience=0.1)


def test_nobody_waits_for_a_client_that_is_closed(log: tuple[Log, str], take: Take) -> None:
    _, target = log
    if take is blocking:
        client = Client(target, retries=QUICK)
        threading.Timer(0.3, client.close).start()
        with pytest.raises(CallFailed) as caught:
            next(client.subscribe())
    else:

        async def run() -> None:
            async with AsyncClient(target, retries=QUICK) as opened:
                asyncio.get_running_loop().call_later(
                    0.3, lambda: closing.append(asyncio.ensure_future(opened.close()))
                )
                await anext(opened.subscribe())

        closing: list[Any] = []
        with pytest.raises(CallFailed) as caught:
            asyncio.run(run())
    assert caught.value.code == "CANCELLED"


def test_waits_grow_and_an_answer_ends_them() -> None:
    away = failure(status_of(NotReady("away"), "test"))
    waits = Resumption(Retries(first=0.1, longest=1.0), 60.0)
    assert [waits.failed(away, now, 1.0) for now in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    waits.answered()
    assert waits.failed(away, 59.0, 0.5) == 0.05
    assert waits.failed(away, 118.0, 0.0) == 0.0
    with pytest.raises(Unavailable):
        waits.failed(away, 119.0, 0.0)
    for_ever = Resumption(Retries(), None)
    assert all(for_ever.failed(away, 1e9 * number, 1.0) <= 1.0 for number in range(5_000))
