"""A stream of decisions: what was asked on it, and what of it is answered, whatever connection breaks.

Law: no gRPC and no clock; both faces drive it, as they drive a stream of events (`streaming`). A request is known by a
number of this stream, so that callers may name theirs as they like.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from arbiter.client import arguments
from arbiter.client.answers import Answer, Page, read_result
from arbiter.client.calls import Again, rpc
from arbiter.client.failures import CallFailed, InvalidRequest, failure
from arbiter.v1 import decision_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.client.arguments import Ask

_method = decision_pb2.DESCRIPTOR.services_by_name["DecisionService"].methods_by_name["DecideStream"]
DECIDE_STREAM = rpc(_method, decision_pb2.DecideStreamRequest, decision_pb2.DecideStreamResponse, Again.ALWAYS)
ASKED: Final = 256  # requests that are asked and not answered; a server reads 64 of them
_NANOS: Final = 1_000_000_000


class Decided(msgspec.Struct, frozen=True):
    """What became of one request of a stream: an answer, a page, or what that one request failed with."""

    ask: Ask
    result: Answer | Page | CallFailed


class Pipeline:
    """The requests of one stream that are not answered, over one connection after another. Each may take `seconds`,
    None for as long as it takes. Raises InvalidRequest for a time that no request can hold.
    """

    def __init__(self, seconds: float | None) -> None:
        self._timeout = None if seconds is None else _duration(seconds)
        self._waiting: dict[str, tuple[Ask, decision_pb2.DecideStreamRequest]] = {}
        self._unsent: deque[str] = deque()  # of those that wait, over this connection
        self._connection = 0
        self._made = 0
        self._lock = threading.Lock()
        self.ended = False
        self.fault: BaseException | None = None

    @property
    def full(self) -> bool:
        """As `Sending` says."""
        return len(self._waiting) >= ASKED

    @property
    def unanswered(self) -> list[Ask]:
        """What was taken and has no answer, in the order in which it was taken."""
        with self._lock:
            return [ask for ask, _ in self._waiting.values()]

    def connect(self) -> int:
        """As `Sending` says."""
        with self._lock:
            self._connection += 1
            self._unsent = deque(self._waiting)
            return self._connection

    def is_current(self, connection: int) -> bool:
        """As `Sending` says."""
        return connection == self._connection

    def following(self, connection: int) -> decision_pb2.DecideStreamRequest | None:
        """As `Sending` says."""
        with self._lock:
            if connection != self._connection or not self._unsent:
                return None
            return self._waiting[self._unsent.popleft()][1]

    def add(self, items: Iterable[Ask], /) -> bool:
        """As `Sending` says. A request that cannot be written is the `fault`, and nothing comes after it."""
        added = False
        try:
            for ask in items:
                message = ask.message(f"requests[{self._made}].")
                message.request_id = name = str(self._made)
                request = decision_pb2.DecideStreamRequest(request=message, timeout=self._timeout)
                with self._lock:
                    self._made += 1
                    self._waiting[name] = ask, request
                    self._unsent.append(name)
                added = True
        except InvalidRequest as error:
            self.fault, self.ended = error, True
        return added

    def answered(self, response: decision_pb2.DecideStreamResponse) -> Decided:
        """Note an answer on the current connection, and return what became of its request."""
        with self._lock:
            asked = self._waiting.pop(response.request_id, None)
        if asked is None:
            message = "the server answered a request that was not asked on this stream"
            raise failure(
                response.error if response.HasField("error") else Status(code=code_pb2.UNKNOWN, message=message)
            )
        if response.HasField("response"):
            response.response.request_id = asked[0].request_id
        return Decided(asked[0], read_result(response))


class Deciding:
    """How far a stream of decisions is, for who reads it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @property
    def unanswered(self) -> list[Ask]:
        """The requests that were taken and have no answer, oldest first: what to ask elsewhere when it fails."""
        return self._pipeline.unanswered


def _duration(seconds: float) -> Duration:
    whole, rest = divmod(round(arguments.real(seconds, "each_timeout") * _NANOS), _NANOS)
    return Duration(seconds=whole, nanos=rest)
