"""Calls that are streams, answered by grpcio's own machinery: how many may be open, how they begin and end.

Law: public names of grpcio alone. What a stream does is a `Flow`'s matter. A stream reads a message, does its work, and
reads on, while answers go out in the order of the messages; it has at most `IN_FLIGHT` messages that are not answered,
and reads no further, so that who sends too fast is held up by the connection's own flow control.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import msgspec

from arbiter.errors import LimitExceeded, NotReady
from arbiter.server.calls import late_write, name_of
from arbiter.server.stock import abort
from arbiter.telemetry.observer import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.server.calls import Call, Entry

    _Handler = grpc.RpcMethodHandler[Any, Any]

IN_FLIGHT: Final = 16  # messages of a stream that are not answered


class Flow(Protocol):
    """What one stream does. All but `answers` may be called from any thread."""

    def answers(self) -> Iterator[bytes]:
        """The answers as they come, until the stream ends. Raises what it ends in."""

    def end(self) -> None:
        """Have it end soon, with an error that says that the server stops."""

    def leave(self) -> None:
        """Know that nobody hears answers any more."""


class Opens(Protocol):
    """Opens a stream: from what came, the message or all messages to come, its call, and what breaks it off."""

    def __call__(self, asked: Any, call: Call, cancel: Callable[[], object], /) -> Flow:
        """Return it. Raises what the call is refused with."""


class StreamWork(msgspec.Struct, frozen=True):
    """What a stream of messages does: `take` gives the future of one, `answer` makes one answer of several results.

    `answer` is handed the number of messages that are answered with it, of the whole stream, and the results.
    """

    take: Callable[[bytes, Call], Future[Any]]
    answer: Callable[[int, list[Any]], bytes]

    def open(self, messages: Iterator[bytes], call: Call, _cancel: Callable[[], object]) -> Flow:
        """Open a stream, as `Opens` does."""
        return _Answering(self, messages, call)


class Streams:
    """The streams of one kind that a server has open, at most `allowed` at a time, which is the limit `reason`.

    `instead` says what callers may do who are one too many.
    """

    def __init__(self, allowed: int, reason: str, instead: str) -> None:
        self._allowed = allowed
        self._reason = reason
        self._instead = instead
        self._pool = ThreadPoolExecutor(allowed + 1, thread_name_prefix="arbiter-stream")  # one that refuses the rest
        self._open: set[Flow] = set()
        self._lock = threading.Lock()
        self._ending = False

    def answering(self, rpc: Entry, opens: Opens) -> _Handler:
        """Return the handler of a method that takes many messages and gives many answers."""
        return grpc.stream_stream_rpc_method_handler(self._handled(rpc, opens))

    def telling(self, rpc: Entry, opens: Opens) -> _Handler:
        """Return the handler of a method that takes one message and gives many answers."""
        return grpc.unary_stream_rpc_method_handler(self._handled(rpc, opens))

    def close(self) -> None:
        """Let no stream begin, and those that are open end soon."""
        with self._lock:
            self._ending = True
            for flow in self._open:
                flow.end()

    def shutdown(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _handled(self, rpc: Entry, opens: Opens) -> Callable[[Any, grpc.ServicerContext], Iterator[bytes]]:
        def run(asked: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            observer, code = rpc.observer, grpc.StatusCode.CANCELLED.value[0]
            seen = Seen(rpc.path)
            if observer is not None:
                observer.begin(seen, context.invocation_metadata())
            try:
                yield from self._run(rpc, opens, asked, context)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
                status = rpc.failed(error)
                code = status.code
            else:
                code = grpc.StatusCode.OK.value[0]
                return
            finally:
                if observer is not None:
                    observer.end(seen, name_of(code))
            abort(context, status)

        run.experimental_thread_pool = self._pool  # type: ignore[attr-defined] # grpcio's way to say it
        return run

    def _run(self, rpc: Entry, opens: Opens, asked: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        due = time.time() + context.time_remaining()
        call = rpc.call(due, context.invocation_metadata(), context.peer, context.peer_identities)
        with self._lock:
            self._check()
        flow = opens(asked, call, context.cancel)
        with self._lock:
            self._check()  # again: opening may have taken a while
            self._open.add(flow)
        try:
            context.add_callback(flow.leave)
            yield from flow.answers()
        finally:
            flow.leave()
            with self._lock:
                self._open.discard(flow)

    def _check(self) -> None:
        if self._ending:
            raise stops()
        if len(self._open) >= self._allowed:
            raise LimitExceeded(
                f"`{self._reason}` {self._allowed:,} streams are open in this worker already: retry a little later, "
                f"or {self._instead}",
                reason=self._reason,
            )


class _Ended(msgspec.Struct, frozen=True):
    """The last of what a stream has to say: an error, or nothing when the caller is through."""

    error: BaseException | None = None


class _Answering:
    """A stream of messages and answers: a thread reads, the other answers."""

    def __init__(self, work: StreamWork, messages: Iterator[bytes], call: Call) -> None:
        self._work = work
        self._messages = messages
        self._call = call
        self._taken: queue.SimpleQueue[Future[Any] | _Ended] = queue.SimpleQueue()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._left = False

    def end(self) -> None:
        """Have it end with an error when all that was taken before is answered."""
        self._taken.put(_Ended(stops()))

    def leave(self) -> None:
        """Let the thread that reads go: nobody answers any more."""
        self._left = True
        self._room.release()

    def _read(self) -> None:
        """Take messages until there are no more, in a thread of its own."""
        ended = _Ended()
        try:
            for content in self._messages:
                self._room.acquire()
                if self._left:
                    return
                self._taken.put(self._work.take(content, self._call))
        except grpc.RpcError:
            ended = _Ended(late_write() if self._call.late else None)  # the caller is gone, or the deadline passed
        except Exception as error:  # noqa: BLE001 - told by the thread that answers
            ended = _Ended(error)
        self._taken.put(ended)

    def answers(self) -> Iterator[bytes]:
        """The answers, each as soon as the oldest message that has none is done. Raises what a message fails with."""
        threading.Thread(target=self._read, name="arbiter-stream-reader", daemon=True).start()
        answered = 0
        following: Future[Any] | _Ended | None = None
        while True:
            item = self._taken.get() if following is None else following
            results: list[Any] = []
            failed: BaseException | None = None
            following = None
            # The oldest is waited for; those after it go along if they are done by then.
            while isinstance(item, Future) and (not results or item.done()):
                try:
                    results.append(item.result())
                except Exception as error:  # noqa: BLE001 - told after what came before it
                    failed = error
                    break
                finally:
                    self._room.release()
                try:
                    item = self._taken.get_nowait()
                except queue.Empty:
                    break
            else:
                following = item
            if results:
                answered += len(results)
                yield self._work.answer(answered, results)
            if failed is not None:
                raise failed
            if isinstance(following, _Ended):
                if following.error is not None:
                    raise following.error
                return


def stops() -> NotReady:
    """Return the error with which streams end when the server does."""
    return NotReady("the server stops: open the stream again, and send what was not answered")
