"""The client for asyncio.

Law: sends and waits, as the turns of a call say, and never blocks the loop. What may be asked stands in `methods`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from grpc import aio

from arbiter.client.calls import Awaiting
from arbiter.client.channels import failure_of
from arbiter.client.deciding import DECIDE_STREAM, Decided, Deciding, Pipeline
from arbiter.client.face import Connections, Face, Resumed, Turns
from arbiter.client.failures import cancelled, failure
from arbiter.client.following import SUBSCRIBE, Followed, Following
from arbiter.client.onlooking import WATCH_DECISIONS, Onlooked, Onlooking, WatchedDecision
from arbiter.client.retry import Send, Wait
from arbiter.client.streaming import BATCH, INGEST_STREAM, Unanswered
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from arbiter.client.arguments import Ask
    from arbiter.client.calls import Call, Rpc
    from arbiter.client.failures import CallFailed
    from arbiter.client.firings import Firing
    from arbiter.client.streaming import Sending, Streamed, Telling
    from arbiter.types import Event

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class AsyncStream(Generic[_T]):
    """What a server tells, one after the other; to be closed. As `Stream`."""

    def __init__(self, told: AsyncGenerator[_T]) -> None:
        self._told = told

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> _T:
        """Return the next, when there is one. Raises CallFailed."""
        return await anext(self._told)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the stream."""
        await self.close()

    async def close(self) -> None:
        """End the stream."""
        await self._told.aclose()


class AsyncSubscription(Followed, AsyncStream["Firing"]):
    """What triggers do, one firing after the other; to be closed. As `Subscription`."""

    def __init__(self, following: Following, firings: AsyncGenerator[Firing]) -> None:
        Followed.__init__(self, following)
        AsyncStream.__init__(self, firings)


class AsyncDecisionStream(Deciding, AsyncStream[Decided]):
    """What became of requests, in the order in which they are decided; to be closed. As `DecisionStream`."""

    def __init__(self, pipeline: Pipeline, decided: AsyncGenerator[Decided]) -> None:
        Deciding.__init__(self, pipeline)
        AsyncStream.__init__(self, decided)


class AsyncDecisionWatch(Onlooked, AsyncStream[WatchedDecision]):
    """Decisions as all workers make them, one after the other; to be closed. As `DecisionWatch`."""

    def __init__(self, onlooking: Onlooking, watched: AsyncGenerator[WatchedDecision]) -> None:
        Onlooked.__init__(self, onlooking)
        AsyncStream.__init__(self, watched)


class AsyncClient(Awaiting, Face):
    """Calls of servers; every method is a coroutine of the answer. It belongs to the loop that first uses it."""

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls under way, and all later ones, fail as CANCELLED."""
        self._left.set()
        for channel in self._shut():
            await channel.close(None)

    @functools.cached_property
    def _left(self) -> asyncio.Event:
        """Set when the client is closed."""
        return asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until the client is closed: what comes next then finds that out."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), seconds)

    async def wait_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as on every other method
        """Return once a connection to some target stands. Raises TimeoutError."""
        seconds = self._shared.timeout if timeout is None else timeout
        waits = {asyncio.create_task(self._channel(lane).channel_ready()) for lane in self._shared.first_lanes()}
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError(f"no server answers at {self.target}")
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def run(self, call: Call[_T]) -> _T:
        """Run a call. Raises CallFailed."""
        turns = Turns(self._shared, call)
        try:
            while True:
                step = turns.step
                if isinstance(step, Send):
                    metadata = turns.take()
                    try:
                        send = self._sender(turns.lane, call.rpc)
                        response = await send(call.message, timeout=step.timeout, metadata=metadata)
                    except asyncio.CancelledError:
                        # Calls of a channel that is closed end so; a task that is cancelled itself stays so.
                        task = asyncio.current_task()
                        if not self._closed.is_set() or (task is not None and task.cancelling()):
                            raise
                        raise cancelled("the client was closed while it waited") from None
                    except grpc.RpcError as error:
                        turns.failed(failure_of(error))
                    else:
                        return turns.answered(response)
                elif isinstance(step, Wait):
                    await self._pause(step.seconds)
                    turns.waited()
                else:
                    return turns.given_up(step)
        finally:
            turns.close()

    async def ingest_stream(
        self,
        events: Iterable[Event] | AsyncIterable[Event],
        *,
        batch: int = BATCH,
        timeout: float | None = None,  # noqa: ASYNC109 - as on every other method
    ) -> AsyncIterator[Streamed]:
        """Store events as they come; yield how far it is each time that more of them are on disk.

        As the method of `Client`; of an asynchronous iterable each request holds what was there, at most `batch`.
        """
        unanswered = Unanswered()
        exchanged = self._exchanged(INGEST_STREAM, events, batch, unanswered, unanswered.answered, timeout)
        async with contextlib.aclosing(exchanged):
            async for progress in exchanged:
                yield progress

    def decide_stream(
        self,
        requests: Iterable[Ask] | AsyncIterable[Ask],
        *,
        each_timeout: float | None = None,
        timeout: float | None = None,
    ) -> AsyncDecisionStream:
        """Decide requests as they come, many at a time on one stream, as the method of `Client`."""
        pipeline = Pipeline(each_timeout)
        exchanged = self._exchanged(DECIDE_STREAM, requests, 1, pipeline, pipeline.answered, timeout)
        return AsyncDecisionStream(pipeline, exchanged)

    async def _exchanged(
        self,
        rpc: Rpc[_Request, _Response],
        items: Iterable[_Item] | AsyncIterable[_Item],
        batch: int,
        sending: Sending[_Item, _Request],
        answered: Callable[[_Response], _T],
        timeout: float | None,  # noqa: ASYNC109 - as on every other method
    ) -> AsyncGenerator[_T]:
        connections = Connections(self._shared, timeout)
        arrived: asyncio.Queue[_Item | None] = asyncio.Queue(batch)
        arriving = asyncio.create_task(_take(items, arrived, sending))
        moved = asyncio.Event()
        try:
            while True:
                seconds, metadata = connections.begin()
                try:
                    stream = self._streamer(connections.lane, rpc)(
                        _requests(arrived, batch, sending, moved), timeout=seconds, metadata=metadata
                    )
                    try:
                        async for response in stream:
                            connections.answered()
                            item = answered(response)
                            moved.set()
                            yield item
                    finally:
                        stream.cancel()
                except grpc.RpcError as error:
                    await self._pause(connections.failed(_torn(failure_of(error))))
                else:
                    if sending.fault is not None:
                        raise sending.fault
                    return
                finally:
                    connections.leave()
        finally:
            arriving.cancel()
            await asyncio.gather(arriving, return_exceptions=True)

    def subscribe(
        self,
        *,
        after: int | None = None,
        triggers: Sequence[str] = (),
        tags: Sequence[str] = (),
        subject_id: str = "",
        include_decision: bool = False,
        patience: float | None = None,
    ) -> AsyncSubscription:
        """Tell what triggers do, as they do it, as the method of `Client`."""
        following = Following(after, triggers, tags, subject_id, include_decision=include_decision)
        return AsyncSubscription(following, self._told(SUBSCRIBE, following, patience))

    def watch_decisions(
        self,
        *,
        decisions: Sequence[str] = (),
        rules: Sequence[str] = (),
        subject_id: str = "",
        share: float = 1.0,
        most_per_second: int = 0,
        explain: ExplainLevel = ExplainLevel.NONE,
        explain_rules: Sequence[str] = (),
        patience: float | None = None,
    ) -> AsyncDecisionWatch:
        """Tell of decisions that all workers make, as the method of `Client`."""
        onlooking = Onlooking(
            decisions,
            rules,
            subject_id,
            share=share,
            most_per_second=most_per_second,
            explain=explain,
            explain_rules=explain_rules,
        )
        return AsyncDecisionWatch(onlooking, self._told(WATCH_DECISIONS, onlooking, patience))

    async def _told(
        self, rpc: Rpc[_Request, _Response], asking: Telling[_Request, _Response, _T], patience: float | None
    ) -> AsyncGenerator[_T]:
        connections = Resumed(self._shared, patience)
        while True:
            seconds, metadata = connections.begin()
            try:
                stream = self._teller(connections.lane, rpc)(asking.request(), timeout=seconds, metadata=metadata)
                try:
                    async for response in stream:
                        connections.answered()
                        for told in asking.read(response):
                            yield told
                finally:
                    stream.cancel()
            except grpc.RpcError as error:
                await self._pause(connections.failed(failure_of(error)))
            except asyncio.CancelledError:
                # As in `run`.
                task = asyncio.current_task()
                if not self._closed.is_set() or (task is not None and task.cancelling()):
                    raise
                raise cancelled("the client was closed while it waited") from None
            finally:
                connections.leave()

    def _open(self, target: str) -> Any:
        if self._credentials is None:
            return aio.insecure_channel(target, self._options)
        return aio.secure_channel(target, self._credentials, self._options)


async def _take(
    items: Iterable[_Item] | AsyncIterable[_Item], arrived: asyncio.Queue[_Item | None], sending: Sending[_Item, Any]
) -> None:
    """Take items as they come, whatever connection is there; None stands at their end."""
    try:
        if isinstance(items, AsyncIterable):
            async for item in items:
                await arrived.put(item)
        else:
            for item in items:
                await arrived.put(item)
    except Exception as error:  # noqa: BLE001 - raised again by who consumes the answers
        sending.fault = error
    await arrived.put(None)


async def _requests(
    arrived: asyncio.Queue[_Item | None], batch: int, sending: Sending[_Item, _Request], moved: asyncio.Event
) -> AsyncIterator[_Request]:
    """The requests for a new connection. `moved` is set when something was answered."""
    connection = sending.connect()
    while sending.is_current(connection):
        if (request := sending.following(connection)) is not None:
            yield request
            continue
        if sending.ended:
            return
        moved.clear()
        if sending.full:
            await moved.wait()
            continue
        items, item = [], await arrived.get()
        while item is not None:
            items.append(item)
            if len(items) == batch or arrived.empty():
                break
            item = arrived.get_nowait()
        if item is None:
            arrived.put_nowait(None)  # for the connection that may take the place of this one
        if not sending.add(items):
            return


def _torn(failed: CallFailed) -> CallFailed:
    """The failure of a stream. Of one that ends while something is written to it grpc says these words, in asyncio,
    whatever the server said; it says so again to who sends again.
    """
    if failed.code == "INTERNAL" and failed.message == "Internal error from Core":
        message = "the stream ended while something was sent over it"
        return failure(Status(code=code_pb2.UNAVAILABLE, message=message))
    return failed
