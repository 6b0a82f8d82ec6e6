"""Calls in which messages flow both ways, answered by grpcio's own machinery.

Law: public names of grpcio alone. A stream reads a message, does its work, and reads on, while answers go out in the
order of the messages; it has at most `IN_FLIGHT` messages that are not answered, and reads no further, so that who
sends too fast is held up by the connection's own flow control. What a message means stands in the services.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

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


class StreamWork(msgspec.Struct, frozen=True):
    """What a stream does: `take` gives the future of a message, `answer` makes one answer of several results.

    `answer` is handed the number of messages that are answered with it, of the whole stream, and the results.
    """

    take: Callable[[bytes, Call], Future[Any]]
    answer: Callable[[int, list[Any]], bytes]


class _Ended(msgspec.Struct, frozen=True):
    """The last of what a stream has to say: an error, or nothing when the caller is through."""

    error: BaseException | None = None


class Streams:
    """The streams of one server, at most `allowed` at a time: one thread of each reads, another answers."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._pool = ThreadPoolExecutor(allowed + 1, thread_name_prefix="arbiter-stream")  # one that refuses the rest
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self._ending = False

    def handler(self, rpc: Entry, work: StreamWork) -> _Handler:
        """Return the handler of a method."""

        def run(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            observer, code = rpc.observer, grpc.StatusCode.CANCELLED.value[0]
            seen = Seen(rpc.path)
            if observer is not None:
                observer.begin(seen, context.invocation_metadata())
            try:
                yield from self._run(rpc, work, messages, context)
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
        return grpc.stream_stream_rpc_method_handler(run)

    def close(self) -> None:
        """Let no stream begin, and those that are open end when what they took is answered."""
        with self._lock:
            self._ending = True
            for stream in self._open:
                stream.end(_stops())

    def shutdown(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _run(
        self, rpc: Entry, work: StreamWork, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        remaining = context.time_remaining()
        call = rpc.call(time.time() + remaining, context.invocation_metadata(), context.peer, context.peer_identities)
        stream = _Stream(work, call)
        with self._lock:
            if self._ending:
                raise _stops()
            if len(self._open) >= self._allowed:
                raise LimitExceeded(
                    f"`ingest_streams` {self._allowed:,} streams are open in this worker already: retry a little "
                    "later, or send batches",
                    reason="ingest_streams",
                )
            self._open.add(stream)
        try:
            threading.Thread(target=stream.read, args=(messages,), name="arbiter-stream-reader", daemon=True).start()
            yield from stream.answers()
        finally:
            stream.leave()
            with self._lock:
                self._open.discard(stream)


class _Stream:
    """One stream: a thread reads, the other answers."""

    def __init__(self, work: StreamWork, call: Call) -> None:
        self._work = work
        self._call = call
        self._taken: queue.SimpleQueue[Future[Any] | _Ended] = queue.SimpleQueue()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._left = False

    def end(self, error: BaseException) -> None:
        """Have it end with an error when all that was taken before is answered."""
        self._taken.put(_Ended(error))

    def leave(self) -> None:
        """Let the thread that reads go: nobody answers any more."""
        self._left = True
        self._room.release()

    def read(self, messages: Iterator[bytes]) -> None:
        """Take messages until there are no more, in a thread of its own."""
        ended = _Ended()
        try:
            for content in messages:
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


def _stops() -> NotReady:
    return NotReady("the server stops: open the stream again, and send what was not answered")
