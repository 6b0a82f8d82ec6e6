"""The client for asyncio.

Law: sends and waits, as the turns of a call say, and never blocks the loop. What may be asked stands in `methods`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from grpc import aio

from arbiter.client.calls import Awaiting
from arbiter.client.channels import failure_of
from arbiter.client.face import Connections, Face, Resumed, Turns
from arbiter.client.failures import cancelled, failure
from arbiter.client.following import SUBSCRIBE, Followed, Following
from arbiter.client.retry import Send, Wait
from arbiter.client.streaming import BATCH, INGEST_STREAM, Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from arbiter.client.calls import Call
    from arbiter.client.failures import CallFailed
    from arbiter.client.firings import Firing
    from arbiter.client.streaming import Streamed
    from arbiter.types import Event
    from arbiter.v1.profile_pb2 import IngestStreamRequest

_T = TypeVar("_T")


class AsyncSubscription(Followed):
    """What triggers do, one firing after the other; to be closed. As `Subscription`."""

    def __init__(self, following: Following, firings: AsyncGenerator[Firing]) -> None:
        super().__init__(following)
        self._firings = firings

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Firing:
        """Return the next firing, when there is one. Raises CallFailed."""
        return await anext(self._firings)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the stream."""
        await self.close()

    async def close(self) -> None:
        """End the stream."""
        await self._firings.aclose()


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
        unanswered, connections = Unanswered(), Connections(self._shared, timeout)
        arrived: asyncio.Queue[Event | None] = asyncio.Queue(batch)
        arriving = asyncio.create_task(_take(events, arrived, unanswered))
        try:
            while True:
                seconds, metadata = connections.begin()
                try:
                    stream = self._streamer(connections.lane, INGEST_STREAM)(
                        _requests(arrived, batch, unanswered), timeout=seconds, metadata=metadata
                    )
                    try:
                        async for response in stream:
                            connections.answered()
                            yield unanswered.answered(response)
                    finally:
                        stream.cancel()
                except grpc.RpcError as error:
                    await self._pause(connections.failed(_torn(failure_of(error))))
                else:
                    if unanswered.fault is not None:
                        raise unanswered.fault
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
        return AsyncSubscription(following, self._followed(following, patience))

    async def _followed(self, following: Following, patience: float | None) -> AsyncGenerator[Firing]:
        connections = Resumed(self._shared, patience)
        while True:
            seconds, metadata = connections.begin()
            try:
                stream = self._teller(connections.lane, SUBSCRIBE)(
                    following.request(), timeout=seconds, metadata=metadata
                )
                try:
                    async for response in stream:
                        connections.answered()
                        for firing in following.read(response):
                            following.told(firing.position)
                            yield firing
                        following.told(response.position)
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
    events: Iterable[Event] | AsyncIterable[Event], arrived: asyncio.Queue[Event | None], unanswered: Unanswered
) -> None:
    """Take events as they come, whatever connection is there; None stands at their end."""
    try:
        if isinstance(events, AsyncIterable):
            async for event in events:
                await arrived.put(event)
        else:
            for event in events:
                await arrived.put(event)
    except Exception as error:  # noqa: BLE001 - raised again by who consumes the answers
        unanswered.fault = error
    await arrived.put(None)


async def _requests(
    arrived: asyncio.Queue[Event | None], batch: int, unanswered: Unanswered
) -> AsyncIterator[IngestStreamRequest]:
    """The requests for a new connection."""
    connection = unanswered.connect()
    while unanswered.is_current(connection):
        if (request := unanswered.following(connection)) is not None:
            yield request
            continue
        if unanswered.ended:
            return
        events, event = [], await arrived.get()
        while event is not None:
            events.append(event)
            if len(events) == batch or arrived.empty():
                break
            event = arrived.get_nowait()
        if event is None:
            arrived.put_nowait(None)  # for the connection that may take the place of this one
        if not unanswered.add(events):
            return


def _torn(failed: CallFailed) -> CallFailed:
    """The failure of a stream. Of one that ends while something is written to it grpc says these words, in asyncio,
    whatever the server said; it says so again to who sends again.
    """
    if failed.code == "INTERNAL" and failed.message == "Internal error from Core":
        message = "the stream ended while something was sent over it"
        return failure(Status(code=code_pb2.UNAVAILABLE, message=message))
    return failed
