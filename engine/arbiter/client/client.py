"""The client that blocks.

Law: sends and waits, as the turns of a call say. What may be asked stands in `methods`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from arbiter.client.calls import Blocking
from arbiter.client.channels import failure_of
from arbiter.client.deciding import DECIDE_STREAM, Decided, Deciding, Pipeline
from arbiter.client.face import Connections, Face, Resumed, Turns
from arbiter.client.failures import cancelled
from arbiter.client.following import SUBSCRIBE, Followed, Following
from arbiter.client.onlooking import WATCH_DECISIONS, Onlooked, Onlooking, WatchedDecision
from arbiter.client.retry import Send, Wait
from arbiter.client.streaming import BATCH, INGEST_STREAM, Source, Unanswered
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from arbiter.client.arguments import Ask
    from arbiter.client.calls import Call, Rpc
    from arbiter.client.firings import Firing
    from arbiter.client.streaming import Sending, Streamed, Telling
    from arbiter.types import Event

_T = TypeVar("_T")
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class Stream(Generic[_T]):
    """What a server tells, one after the other, for one thread; to be closed."""

    def __init__(self, told: Generator[_T]) -> None:
        self._told = told

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> _T:
        """Return the next, when there is one. Raises CallFailed."""
        return next(self._told)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the stream."""
        self.close()

    def close(self) -> None:
        """End the stream."""
        self._told.close()


class Subscription(Followed, Stream["Firing"]):
    """What triggers do, one firing after the other, for one thread; to be closed."""

    def __init__(self, following: Following, firings: Generator[Firing]) -> None:
        Followed.__init__(self, following)
        Stream.__init__(self, firings)


class DecisionStream(Deciding, Stream[Decided]):
    """What became of requests, in the order in which they are decided, for one thread; to be closed."""

    def __init__(self, pipeline: Pipeline, decided: Generator[Decided]) -> None:
        Deciding.__init__(self, pipeline)
        Stream.__init__(self, decided)


class DecisionWatch(Onlooked, Stream[WatchedDecision]):
    """Decisions as all workers make them, one after the other, for one thread; to be closed."""

    def __init__(self, onlooking: Onlooking, watched: Generator[WatchedDecision]) -> None:
        Onlooked.__init__(self, onlooking)
        Stream.__init__(self, watched)


class Client(Blocking, Face):
    """Calls of servers; every method returns when the answer is there. Safe to share between threads."""

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way, and all later ones, fail as CANCELLED."""
        for channel in self._shut():
            channel.close()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once a connection to some target stands. Raises TimeoutError."""
        seconds = self._shared.timeout if timeout is None else timeout
        stands = threading.Event()
        waits = [grpc.channel_ready_future(self._channel(lane)) for lane in self._shared.first_lanes()]
        for wait in waits:
            wait.add_done_callback(lambda done: None if done.cancelled() else stands.set())
        try:
            if not stands.wait(seconds):
                raise TimeoutError(f"no server answers at {self.target}")
        finally:
            for wait in waits:
                wait.cancel()

    def run(self, call: Call[_T]) -> _T:
        """Run a call. Raises CallFailed."""
        turns = Turns(self._shared, call)
        try:
            while True:
                step = turns.step
                if isinstance(step, Send):
                    metadata = turns.take()
                    try:
                        send = self._sender(turns.lane, call.rpc)
                        response = send(call.message, timeout=step.timeout, metadata=metadata)
                    except grpc.RpcError as error:
                        turns.failed(failure_of(error))
                    except ValueError as error:
                        # A channel that was closed between the turns; anything else is no business of ours.
                        if not self._closed.is_set():
                            raise
                        raise cancelled("the client was closed while it waited") from error
                    else:
                        return turns.answered(response)
                elif isinstance(step, Wait):
                    self._closed.wait(step.seconds)
                    turns.waited()
                else:
                    return turns.given_up(step)
        finally:
            turns.close()

    def ingest_stream(
        self, events: Iterable[Event], *, batch: int = BATCH, timeout: float | None = None
    ) -> Iterator[Streamed]:
        """Store events as they come; yield how far it is each time that more of them are on disk.

        `events` are taken in another thread, `batch` a request, and no faster than the server stores them. When the
        connection breaks, another takes its place and what was not answered is sent again; `timeout`, in seconds, is
        for all of it. Nothing is sent before the first answer is asked for. Raises CallFailed for the first request
        that is not answered, whose events a server counts from 0; and what `events` raises, all before it stored.
        """
        unanswered = Unanswered()
        source = Source(events, batch, unanswered)
        yield from self._exchanged(INGEST_STREAM, source, unanswered, unanswered.answered, timeout)

    def decide_stream(
        self, requests: Iterable[Ask], *, each_timeout: float | None = None, timeout: float | None = None
    ) -> DecisionStream:
        """Decide requests as they come, many at a time on one stream; yield each as soon as it is decided.

        `requests` are taken in another thread, and no faster than the server answers. A bad one fails alone, with a
        CallFailed as its result. When the connection breaks or the server stops, another takes its place and what was
        not answered is asked again. `each_timeout`, in seconds, is for one request on the server, `timeout` for all of
        the stream. Nothing is sent before the first answer is asked for. Raises CallFailed when no server answers, and
        then `unanswered` has what was asked in vain; what `requests` raises, and InvalidRequest for one that no message
        can hold, when all before it is answered. Fallbacks do not stand in here.
        """
        pipeline = Pipeline(each_timeout)
        source = Source(requests, 1, pipeline)
        return DecisionStream(pipeline, self._exchanged(DECIDE_STREAM, source, pipeline, pipeline.answered, timeout))

    def _exchanged(
        self,
        rpc: Rpc[_Request, _Response],
        source: Source[Any, _Request],
        sending: Sending[Any, _Request],
        answered: Callable[[_Response], _T],
        timeout: float | None,
    ) -> Generator[_T]:
        connections = Connections(self._shared, timeout)
        while True:
            seconds, metadata = connections.begin()
            try:
                stream = self._streamer(connections.lane, rpc)(source.requests(), timeout=seconds, metadata=metadata)
                try:
                    for response in stream:
                        connections.answered()
                        item = answered(response)
                        source.moved()
                        yield item
                finally:
                    sending.connect()  # the thread that sends over this one looks, and ends
                    source.moved()
                    stream.cancel()  # of one that ended it does nothing
            except grpc.RpcError as error:
                self._closed.wait(connections.failed(failure_of(error)))
            else:
                if sending.fault is not None:
                    raise sending.fault
                return
            finally:
                connections.leave()

    def subscribe(
        self,
        *,
        after: int | None = None,
        triggers: Sequence[str] = (),
        tags: Sequence[str] = (),
        subject_id: str = "",
        include_decision: bool = False,
        patience: float | None = None,
    ) -> Subscription:
        """Tell what triggers do, as they do it; ends never by itself.

        Begins after the position `after`, with the oldest that is kept for 0, from now on without. `triggers`, `tags`
        and `subject_id` let through what is of one of these. `include_decision` has the answers to decisions that
        firings made told too. When the connection breaks, another takes its place, and it goes on where it was; after
        `patience` seconds without an answer it gives up, without that never. Nothing is sent before the first firing is
        asked for. Raises CallFailed: OutOfRange for a position whose successors are no longer kept.
        """
        following = Following(after, triggers, tags, subject_id, include_decision=include_decision)
        return Subscription(following, self._told(SUBSCRIBE, following, patience))

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
    ) -> DecisionWatch:
        """Tell of decisions that all workers make, as they make them; ends never by itself.

        `decisions`, `rules` and `subject_id` let through what is of one of these, `share` a part of that, and not more
        than `most_per_second` (0 for ten); `explain` and `explain_rules` have told why. When the connection breaks,
        another takes its place; what was decided meanwhile is not told. After `patience` seconds without an answer it
        gives up, without that never. Nothing is sent before the first decision is asked for. Raises CallFailed.
        """
        onlooking = Onlooking(
            decisions,
            rules,
            subject_id,
            share=share,
            most_per_second=most_per_second,
            explain=explain,
            explain_rules=explain_rules,
        )
        return DecisionWatch(onlooking, self._told(WATCH_DECISIONS, onlooking, patience))

    def _told(
        self, rpc: Rpc[_Request, _Response], asking: Telling[_Request, _Response, _T], patience: float | None
    ) -> Generator[_T]:
        connections = Resumed(self._shared, patience)
        while True:
            seconds, metadata = connections.begin()
            try:
                stream = self._teller(connections.lane, rpc)(asking.request(), timeout=seconds, metadata=metadata)
                try:
                    for response in stream:
                        connections.answered()
                        yield from asking.read(response)
                finally:
                    stream.cancel()
            except grpc.RpcError as error:
                self._closed.wait(connections.failed(failure_of(error)))
            finally:
                connections.leave()

    def _open(self, target: str) -> Any:
        if self._credentials is None:
            return grpc.insecure_channel(target, self._options)
        return grpc.secure_channel(target, self._credentials, self._options)
