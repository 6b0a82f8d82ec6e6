"""What a stream of requests has sent, and what of it is answered, whatever connection breaks.

Law: no gRPC and no clock; both faces drive it, each in its own way. Requests stay here until they are answered, so that
a stream that takes the place of a broken one sends them again; a server drops what it has by the ids of events.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import msgspec

from arbiter.client import arguments
from arbiter.client.calls import Again, rpc
from arbiter.client.failures import InvalidRequest
from arbiter.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.types import Event

BATCH: Final = 500
_method = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].methods_by_name["IngestStream"]
INGEST_STREAM = rpc(_method, profile_pb2.IngestStreamRequest, profile_pb2.IngestStreamResponse, Again.ALWAYS)


_Item_contra = TypeVar("_Item_contra", contravariant=True)
_Item = TypeVar("_Item")
_Request_co = TypeVar("_Request_co", covariant=True)
_Request = TypeVar("_Request")
_Response_contra = TypeVar("_Response_contra", contravariant=True)
_Told_co = TypeVar("_Told_co", covariant=True)


class Sending(Protocol[_Item_contra, _Request_co]):
    """The requests of one stream that are not answered, over one connection after another, made of items.

    `fault` is what the items ended in; with `ended` it was one that could not be written.
    """

    fault: BaseException | None
    ended: bool

    @property
    def full(self) -> bool:
        """Whether so much waits for answers that nothing should be added."""

    def connect(self) -> int:
        """Begin anew with what is not answered; the number of this connection."""

    def is_current(self, connection: int) -> bool:
        """Whether no other connection took the place of this one."""

    def following(self, connection: int) -> _Request_co | None:
        """The request to send next over a connection; None when items must be added first."""

    def add(self, items: Iterable[_Item_contra], /) -> bool:
        """Make a request of items, whoever will send it; whether there is one."""


class Telling(Protocol[_Request_co, _Response_contra, _Told_co]):
    """What is told over one connection after another: what each is opened with, and what an answer holds."""

    def request(self) -> _Request_co:
        """What a stream that goes on from here is opened with."""

    def read(self, response: _Response_contra) -> Iterable[_Told_co]:
        """What an answer holds, in order."""


class Streamed(msgspec.Struct, frozen=True):
    """How far a stream is: `sent` events from the first on are on disk or dropped, `accepted` of them new,
    `duplicates` there already, `erased` of subjects that were erased after they happened.

    `position` is the last durable position of the log.
    """

    sent: int
    accepted: int
    duplicates: int
    position: int
    erased: int = 0


class Unanswered:
    """The requests of one stream of events that are not answered, over one connection after another."""

    def __init__(self) -> None:
        self._waiting: deque[profile_pb2.IngestStreamRequest] = deque()
        self._answered = 0  # requests, on all connections
        self._before = 0  # those of them that were answered on connections before this one
        self._next = 0  # the request that is sent next, counted from the first of all
        self._connection = 0
        self._made = 0  # events of which requests were made
        self._lock = threading.Lock()
        self._progress = Streamed(0, 0, 0, 0)
        self.ended = False  # whether an event could not be written
        self.fault: BaseException | None = None  # what the events ended in: an error of theirs, or an InvalidRequest

    @property
    def full(self) -> bool:
        """Never: what a server has not stored yet, the connection's own flow control holds up."""
        return False

    def connect(self) -> int:
        """Begin anew with what is not answered; the number of this connection."""
        with self._lock:
            self._connection += 1
            self._next = self._before = self._answered
            return self._connection

    def is_current(self, connection: int) -> bool:
        """Whether no other connection took the place of this one."""
        return connection == self._connection

    def following(self, connection: int) -> profile_pb2.IngestStreamRequest | None:
        """The request to send next over a connection; None when events must be added first."""
        with self._lock:
            place = self._next - self._answered
            if connection != self._connection or place >= len(self._waiting):
                return None
            self._next += 1
            return self._waiting[place]

    def add(self, events: Iterable[Event], /) -> bool:
        """Make a request of events, whoever will send it; whether there is one.

        An event that cannot be written is the `fault`, and nothing comes after it.
        """
        made: list[profile_pb2.Event] = []
        try:
            for event in events:
                made.append(arguments.event(event, f"events[{self._made + len(made)}]"))
        except InvalidRequest as error:
            self.fault, self.ended = error, True
        if made:
            with self._lock:
                self._made += len(made)
                self._waiting.append(profile_pb2.IngestStreamRequest(events=made))
        return bool(made)

    def answered(self, response: profile_pb2.IngestStreamResponse) -> Streamed:
        """Note an answer on the current connection; how far the stream is."""
        with self._lock:
            before = self._progress
            sent = before.sent
            while self._before + response.requests > self._answered:
                sent += len(self._waiting.popleft().events)
                self._answered += 1
            self._progress = Streamed(
                sent,
                before.accepted + response.accepted,
                before.duplicates + response.duplicates,
                response.position,
                before.erased + response.erased,
            )
            return self._progress


class Source(Generic[_Item, _Request]):
    """Items, taken by whichever thread sends now, and by one at a time; `batch` make a request."""

    def __init__(self, items: Iterable[_Item], batch: int, unanswered: Sending[_Item, _Request]) -> None:
        self._items = iter(items)
        self._batch = batch
        self._unanswered = unanswered
        self._taking = threading.Lock()
        self._moved = threading.Event()

    def moved(self) -> None:
        """Have who waits for room look again: something was answered, or the connection ended."""
        self._moved.set()

    def requests(self) -> Iterator[_Request]:
        """The requests for a new connection; those for the connection before it end."""
        unanswered = self._unanswered
        connection = unanswered.connect()
        while unanswered.is_current(connection):
            request = unanswered.following(connection)
            if request is None:
                self._moved.clear()
                if unanswered.full:
                    self._moved.wait()
                    continue
                with self._taking:
                    request = unanswered.following(connection)  # another thread may just have made it
                    if request is None and not (unanswered.is_current(connection) and self._take()):
                        return
            if request is not None:
                yield request

    def _take(self) -> bool:
        """Make one more request; whether there was anything left."""
        if self._unanswered.fault is not None:
            return False
        items: list[_Item] = []
        try:
            for item in islice(self._items, self._batch):
                items.append(item)  # noqa: PERF402 - what came before an error is kept
        except Exception as error:  # noqa: BLE001 - raised again by who consumes the answers
            self._unanswered.fault = error
        return self._unanswered.add(items)
