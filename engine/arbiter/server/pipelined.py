"""DecideStream: many requests on one stream, each answered as soon as it is decided.

Law: no second way to decide. Each request is a call of Decide by the very same `Rpc`, and is counted, timed, traced and
logged as one. What is quick is decided in the thread that reads, the rest where it holds up nothing: long answers in
the pool, those that wait for the disk when it says so. Whatever becomes of a stream, each call that began ends.
"""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import msgspec

from arbiter.errors import InvalidField
from arbiter.server.answerparts import varint
from arbiter.server.calls import Later, name_of, parse, settled, written
from arbiter.server.status import DeadlinePassed
from arbiter.server.stock import overloaded
from arbiter.server.streams import stops
from arbiter.telemetry.observer import Seen
from arbiter.v1 import decision_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import Any

    from google.protobuf.duration_pb2 import Duration

    from arbiter.server.calls import Answer, Call, Rpc
    from arbiter.server.stock import Pool
    from arbiter.server.streams import Flow
    from arbiter.telemetry.counters import Counters

IN_FLIGHT: Final = 64  # requests of a stream that are not answered
_RESPONSE_TAG: Final = bytes([decision_pb2.DecideStreamResponse.RESPONSE_FIELD_NUMBER << 3 | 2])
_ID_TAG: Final = bytes([decision_pb2.DecideStreamResponse.REQUEST_ID_FIELD_NUMBER << 3 | 2])
_R = TypeVar("_R")


class DecideStreams(msgspec.Struct, frozen=True):
    """Opens streams of requests, each a call of `decide`. `pool` works out long answers; with `allowed` calls in it no
    request is let in.
    """

    decide: Rpc
    pool: Pool
    allowed: int
    counters: Counters

    def open(self, messages: Iterator[bytes], call: Call, _cancel: Callable[[], object]) -> Flow:
        """Open a stream, as `Opens` does."""
        return _Pipeline(self, messages, call)


class _Asked(Seen):
    """A request under way. `within` is the path of what is looked at, in the message."""

    __slots__ = ("call", "request_id", "within")

    def __init__(self, path: str, call: Call) -> None:
        super().__init__(path)
        self.request_id = self.within = ""
        self.call = call


class _Pipeline:
    """One stream: a thread reads and decides, the other sends what is ready."""

    def __init__(self, streams: DecideStreams, messages: Iterator[bytes], call: Call) -> None:
        self._rpc = streams.decide
        self._pool = streams.pool
        self._allowed = streams.allowed
        self._counters = streams.counters
        self._messages = messages
        self._call = call
        # Answers, and what makes one, which the thread that sends does; None has it look around.
        self._ready: queue.SimpleQueue[bytes | Callable[[], bytes] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._lock = threading.Lock()
        self._unanswered = 0  # requests that were taken and whose answer was not sent
        self._ends = False  # whether nothing more is taken
        self._error: BaseException | None = None  # what it ends in, with the last answer
        self._left = False
        self._sends = True  # whether the thread that sends is there

    def end(self) -> None:
        """Have it end with an error when all that was taken is answered."""
        self._close(stops())

    def leave(self) -> None:
        """Have it end: nobody hears answers any more."""
        self._left = True
        self._close(None)
        self._room.release()

    def _close(self, error: BaseException | None) -> None:
        with self._lock:
            if not self._ends:
                self._ends, self._error = True, error
        self._ready.put(None)

    def answers(self) -> Iterator[bytes]:
        """The answers, each when it is ready. Raises NotReady when the server stops, and what reading fails with."""
        self._counters.decide_streams += 1
        threading.Thread(target=self._read, name="arbiter-stream-reader", daemon=True).start()
        try:
            while not self._left:
                if self._ends and not self._unanswered:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._ready.get()
                if item is None:
                    continue
                yield item if isinstance(item, bytes) else item()
                with self._lock:
                    self._unanswered -= 1
                self._room.release()
        finally:
            self._counters.decide_streams -= 1
            self._left, self._sends = True, False
            self._conclude()

    def _conclude(self) -> None:
        """Bring what nobody sends any more to its end: what is on disk is logged, whoever has gone."""
        while True:
            try:
                item = self._ready.get_nowait()
            except queue.Empty:
                return
            if callable(item):
                item()

    def _put(self, item: bytes | Callable[[], bytes]) -> None:
        self._ready.put(item)
        if not self._sends:  # looked at after the item is there: one of the two threads sees it
            self._conclude()

    def _read(self) -> None:
        """Take messages until there are no more, in a thread of its own."""
        error: BaseException | None = None
        try:
            for content in self._messages:
                self._room.acquire()
                with self._lock:
                    if self._ends:
                        return
                    self._unanswered += 1
                self._take(content)
        except grpc.RpcError:  # the caller is gone, or the deadline passed
            if self._call.late:
                error = DeadlinePassed("the stream's deadline passed: allow more time, or open another")
        except Exception as caught:  # noqa: BLE001 - told by the thread that sends
            error = caught
        self._close(error)

    def _take(self, content: bytes) -> None:
        """Decide, or see to it that somebody does."""
        rpc, asked = self._rpc, _Asked(self._rpc.path, self._call)
        if rpc.observer is not None:
            rpc.observer.begin(asked, self._call.metadata)
        try:
            answer = self._begun(asked, content)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
            self._put(self._failed(asked, error))
        else:
            if isinstance(answer, bytes):
                self._put(self._answered(asked, answer))
            else:
                self._defer(asked, answer)

    def _begun(self, asked: _Asked, content: bytes) -> Answer:
        """The answer, or what it waits for. Raises what the request fails with."""
        message = parse(decision_pb2.DecideStreamRequest, content)
        request = message.request
        asked.request_id = request.request_id
        if not request.request_id:
            raise InvalidField(
                "request_id is empty: on a stream each request has one, by which its answer is known",
                field="request.request_id",
            )
        if message.HasField("timeout"):
            asked.call = _within(self._call, message.timeout)
        asked.within = "request"
        if self._pool.busy >= self._allowed:
            raise overloaded(self._allowed)
        # Decide takes bytes; that they are written again is little beside what a message of a stream costs.
        return self._run(asked, self._rpc.work, request.SerializeToString(), asked.call)

    def _defer(self, asked: _Asked, answer: Answer) -> None:
        if isinstance(answer, Later):
            finish = answer.finish  # what is kept must not lead back to the future, as in `inline`

            def note(future: Future[Any]) -> None:
                self._put(partial(self._worked_out, asked, partial(written, asked.call, finish, future)))

            answer.future.add_done_callback(note)
        else:
            self._pool.submit(self._work, asked, answer)

    def _work(self, asked: _Asked, answer: Answer) -> None:
        """In a thread of the pool."""

        def in_time() -> bytes:
            asked.call.check_deadline()
            return settled(answer, asked.call)

        if self._left:
            self._over(asked, "CANCELLED")
        else:
            self._put(self._worked_out(asked, in_time))

    def _worked_out(self, asked: _Asked, work: Callable[[], bytes]) -> bytes:
        """What answers a request: what `work` returns, or the status of what it raises."""
        try:
            return self._answered(asked, self._run(asked, work))
        except Exception as error:  # noqa: BLE001 - the boundary
            return self._failed(asked, error)

    def _run(self, asked: _Asked, work: Callable[..., _R], *args: Any) -> _R:
        observer = self._rpc.observer
        return work(*args) if observer is None else observer.run(asked, work, *args)

    def _answered(self, asked: _Asked, content: bytes) -> bytes:
        self._over(asked, "OK")
        # Written by hand, as the results of a batch are.
        name = asked.request_id.encode()
        return b"".join((_ID_TAG, varint(len(name)), name, _RESPONSE_TAG, varint(len(content)), content))

    def _failed(self, asked: _Asked, error: Exception) -> bytes:
        status = self._run(asked, self._rpc.failed, error, asked.within)
        self._over(asked, name_of(status.code))
        return decision_pb2.DecideStreamResponse(request_id=asked.request_id, error=status).SerializeToString()

    def _over(self, asked: _Asked, code: str) -> None:
        if self._rpc.observer is not None:
            self._rpc.observer.end(asked, code)


def _within(call: Call, timeout: Duration) -> Call:
    """The call with a deadline of its own. Raises InvalidField."""
    seconds = timeout.seconds + timeout.nanos / 1e9
    if seconds <= 0:
        raise InvalidField(
            f"timeout is {seconds:g} seconds: allow more than none, or leave it out for the stream's own deadline",
            field="timeout",
        )
    deadline = time.monotonic() + seconds
    return msgspec.structs.replace(call, deadline=deadline if call.deadline is None else min(deadline, call.deadline))
