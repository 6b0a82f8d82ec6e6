"""The inline transport: calls are answered in the thread that waits for them.

Law: the one module that leans on names inside grpcio, which `grpcio` lists (docs/decisions/0027). It takes the state of
grpcio's own server and runs a loop of its own on its completion queue; events of the methods that it is given it
answers itself, all others it hands to grpcio's own function. What a call is answered stands in the services.

A call is three events: it came (a `Slot` was asked for it), its message is there (a `Message`), its answer went out
(`WENT`). Only the loop's thread counts calls. An answer that takes long is worked out by the pool, one that waits for
the disk is sent when the thread that writes asks the loop to come round (`WAKE`), and one in steps (a batch) goes on
between the events of other calls. Where work remains to be done, the call's end is watched, so that nobody works for a
caller who has left.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from grpc_status import rpc_status

from arbiter.runtime.faults import told
from arbiter.server.calls import LATE, Later, Slow, name_of, slowly, written
from arbiter.server.grpcio import _common, _server, cygrpc
from arbiter.server.refusals import Refusal
from arbiter.server.status import DeadlinePassed
from arbiter.server.stock import overloaded
from arbiter.server.tags import WAKE, WENT, End, Message, Slot, Wake, Went
from arbiter.telemetry.histogram import NOTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor, Future

    import grpc

    from arbiter.server.calls import Answer, Call, Rpc, Steps
    from arbiter.telemetry.observer import Observer

_log = logging.getLogger("arbiter.server")
_clock = time.time  # which deadlines are given by
_nanos = time.perf_counter_ns  # which durations are
_P = ParamSpec("_P")
_R = TypeVar("_R")

# A message this long takes long to read.
_LONG_BYTES = 64 * 1024
# How many calls of a method grpc may hand over before the loop has come round to ask for more; those beyond wait in
# grpc, which drops some when there are a thousand.
_ASKED = 512
# With more calls than that to be answered, those that come wait until what is in the sockets has been taken in, watched
# lest their callers leave meanwhile; so many are answered then, or after so many events in any case. Who has been
# behind for a while will be: of those that come then, whoever has little time is told at once, and can ask elsewhere.
_CROWD = 32
_TAKEN = 128
_BEHIND_S = 0.1
_LITTLE_S = 1.0
_NOW = 0.0  # a moment that has passed: to look at the queue without waiting


class InlineLoop:
    """Serves `rpcs` on `server`, a server of grpcio's that was not started, and all else as that would.

    `pool` works out long answers, `allowed` bounds the calls under way, `observer` follows them.
    """

    def __init__(
        self, server: grpc.Server, rpcs: Iterable[Rpc], pool: Executor, allowed: int, observer: Observer | None = None
    ) -> None:
        self._observer = observer
        self._takes = None if observer is None else observer.takes
        self._state: Any = server._state  # type: ignore[attr-defined] # noqa: SLF001 - see the law
        self._rpcs = tuple(rpcs)
        self._pool = pool
        self._allowed = allowed
        self._full, self._late = Refusal(overloaded(allowed)), Refusal(DeadlinePassed(LATE))
        self._calls = 0  # calls under way
        self._ends = 0  # calls whose end is watched and has not come
        # Writes that are on disk, or failed.
        self._written: deque[tuple[Message, Call, Callable[[Any], bytes], Future[Any]]] = deque()
        self._woken = False  # whether the loop has been told of them
        self._lost: deque[Message] = deque()  # calls whose answer could not be sent: no event comes of them
        self._steps: deque[tuple[Message, Call, Steps]] = deque()
        self._waiting = 0  # calls that came, and whose turn has not come
        self._ready: deque[tuple[Message, Any]] = deque()  # messages of those that came to a crowd
        self._taken = 0  # events since the last of them were answered
        self._crowded = False  # whether there were too many since none waited
        self._level = 0.0  # when that was last so without a crowd, in seconds since the epoch
        self._shed = 0.0  # when somebody was last refused since there was one
        self._started = _server._ServerStage.STARTED  # noqa: SLF001
        # Equal for all calls. Nothing in them is freed with a call: they hold no metadata, and texts so short that
        # they stand in the operation itself.
        self._initial = cygrpc.SendInitialMetadataOperation(None, 0)
        self._well = cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", 0)
        self._close = cygrpc.ReceiveCloseOnServerOperation(0)

    def start(self) -> None:
        """Answer from now on, in a thread of its own."""
        if self._observer is not None:
            self._observer.counts(lambda: self._calls)
        state = self._state
        for rpc in self._rpcs:
            state.server.register_method(rpc.path)
        with state.lock:
            state.server.start()
            state.stage = self._started
            for method in state.registered_method_handlers:
                _server._request_registered_call(state, method)  # noqa: SLF001
            _server._request_call(state)  # noqa: SLF001
            # While this stands there, grpcio's functions do not end the server: the loop does, when its calls ended.
            state.rpc_states.add(self)
            for rpc in self._rpcs:
                for _ in range(min(_ASKED, self._allowed)):
                    slot = Slot(rpc)
                    state.due.add(slot)
                    self._ask(slot)
        threading.Thread(target=self._serve, name="arbiter-calls", daemon=True).start()

    def _ask(self, slot: Slot) -> None:
        queue = self._state.completion_queue
        self._state.server.request_registered_call(queue, queue, slot.path, slot)

    def _serve(self) -> None:
        state, steps, ready = self._state, self._steps, self._ready
        poll, timeout = state.completion_queue.poll, cygrpc.CompletionType.queue_timeout
        theirs = _server._process_event_and_continue  # noqa: SLF001
        while True:
            event = poll(_NOW if steps or ready else None)
            try:
                tag = event.tag
                kind = tag.__class__
                if kind is Message:
                    if tag.watched:
                        ready.append((tag, event))
                    else:
                        self._answer(tag, event)
                elif kind is Slot:
                    self._arrived(tag, event)
                elif kind is Went:
                    self._calls -= 1
                elif not self._rare(tag, event) and event.completion_type != timeout:
                    theirs(state, event)
                if steps or ready:
                    self._go_on(quiet=event.completion_type == timeout)
            except Exception as error:  # noqa: BLE001 - the thread must go on: one call's fault is not that of all
                _log.error("a call failed in the transport\n%s", told(error))
            # What it holds must go before the next wait: an event may keep a call that has ended.
            event = tag = None
            if state.stage is not self._started and self._ended():
                return

    def _go_on(self, *, quiet: bool) -> None:
        """With a batch; and, when no events wait or enough were taken in, with those that came to a crowd."""
        if self._steps:
            self._step()
        if self._ready:
            self._taken += 1
            if quiet or self._taken >= _TAKEN:
                self._taken = 0
                for _ in range(min(_CROWD, len(self._ready))):
                    self._answer(*self._ready.popleft())

    def _rare(self, tag: object, event: Any) -> bool:
        """See to what most calls have none of; whether the event was ours."""
        if isinstance(tag, End):
            self._ends -= 1
            tag.of.gone = event.batch_operations[0].cancelled()
        elif isinstance(tag, Wake):
            self._answer_writes()
        else:
            return False
        return True

    def _ended(self) -> bool:
        """While the server stops: whether all has ended."""
        state = self._state
        with state.lock:
            if self._calls + self._ends <= len(self._lost):
                state.rpc_states.discard(self)  # until another comes
            stopped: bool = _server._stop_serving(state)  # noqa: SLF001
            return stopped

    def _arrived(self, slot: Slot, event: Any) -> None:
        if not event.success:  # no more calls will come
            self._state.due.discard(slot)
            return
        state = self._state
        with state.lock:  # under which a server begins to stop, and takes no more questions
            if state.stage is self._started:
                self._ask(slot)
            else:
                state.due.discard(slot)
                state.rpc_states.add(self)
        self._calls += 1
        message, now = Message(slot.rpc, event), _clock()
        crowd = self._waiting > _CROWD
        if self._calls > self._allowed or (crowd and self._in_vain(event, now)):
            self._refuse(message, self._full)
        else:
            self._waiting += 1
            if self._takes is not None:  # now, while the metadata are near: they have just been made
                message.traced = self._takes(event.invocation_metadata)
            if crowd:
                self._watch(message)
            event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), message)

    def _in_vain(self, event: Any, now: float) -> bool:
        """Whether a call that comes to a crowd had better not wait."""
        self._crowded = True
        left: float = event.call_details.deadline - now
        vain = left < _LITTLE_S and now - self._level > _BEHIND_S
        if vain:
            self._shed = now
        return vain

    def _over(self, message: Message) -> bool:
        """Whether a call whose turn has come is over: nobody would hear of the answer."""
        now = _clock()
        self._waiting -= 1
        if not self._waiting:  # what was read from the sockets is done
            # For a moment it may be so by chance: it counts once nobody had to be refused for as long.
            if not self._crowded and now - self._shed > _BEHIND_S:
                self._level = now
            self._crowded = False
        if message.gone:
            self._drop(message)
            return True
        if message.arrival.call_details.deadline <= now:
            self._refuse(message, self._late)
            return True
        return False

    def _answer(self, message: Message, event: Any) -> None:
        arrival, rpc, observer = message.arrival, message.rpc, self._observer
        if self._over(message):
            return
        if observer is not None:
            message.began = _nanos()
            if message.traced:
                observer.trace(message, arrival.invocation_metadata)
        content = event.batch_operations[0].message()
        if content is None:
            text = f'"{rpc.path}" requires exactly one request message.'
            self._send_status(message, cygrpc.StatusCode.unimplemented, text.encode(), None)
            return
        try:
            handle = arrival.call
            call = rpc.call(
                arrival.call_details.deadline,
                arrival.invocation_metadata,
                handle.peer,
                functools.partial(cygrpc.peer_identities, handle),
            )
            answer: Answer
            if len(content) > _LONG_BYTES:
                answer = slowly(rpc, content, call)
            elif message.span is None:
                answer = rpc.work(content, call)
            else:
                answer = self._run(message, rpc.work, content, call)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
            self._fail(message, error)
            return
        if isinstance(answer, bytes):
            self._send(message, answer)
        else:
            self._defer(message, call, answer)

    def _defer(self, message: Message, call: Call, answer: Later | Slow | Steps) -> None:
        """See to an answer that is not there yet."""
        if isinstance(answer, Later):  # not watched: a write goes on, whether its caller stays or not
            # What it keeps must not lead back to the future, which keeps it for ever: that circle is not freed with the
            # call, and one that stands when a snapshot is loaded never.
            finish = answer.finish
            answer.future.add_done_callback(lambda future: self._note_written(message, call, finish, future))
            return
        if not message.watched:
            self._watch(message)
        if isinstance(answer, Slow):
            self._pool.submit(self._work, message, call, answer.run)
        else:
            self._steps.append((message, call, answer))

    def _watch(self, message: Message) -> None:
        """Ask for the call's end, which is otherwise asked for with the answer."""
        message.watched = True
        self._ends += 1
        message.arrival.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), End(message))

    def _work(self, message: Message, call: Call, run: Callable[[], bytes]) -> None:
        """In a thread of the pool."""

        def in_time() -> bytes:
            call.check_deadline()
            return run()

        if message.gone:
            self._drop(message)
        else:
            self._conclude(message, in_time)

    def _conclude(self, message: Message, work: Callable[[], bytes]) -> None:
        """Send what `work` returns, or the status of what it raises."""
        try:
            content = self._run(message, work)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._fail(message, error)
        else:
            self._send(message, content)

    def _note_written(self, message: Message, call: Call, finish: Callable[[Any], bytes], future: Future[Any]) -> None:
        """In the thread that wrote, which must not send: each time it did, it would lose the interpreter to the loop
        and wait for it again. A question for nothing brings the loop round, once for all that one commit held.
        """
        self._written.append((message, call, finish, future))
        if not self._woken:
            self._woken = True
            message.arrival.call.start_server_batch((), WAKE)

    def _answer_writes(self) -> None:
        self._woken = False  # first: what is noted from now on asks again
        while self._written:
            message, call, finish, future = self._written.popleft()
            self._conclude(message, functools.partial(written, call, finish, future))

    def _step(self) -> None:
        """Go on with the batch that came first: one after another holds less in memory than all by turns."""
        message, call, steps = self._steps[0]
        try:
            if not message.gone:
                call.check_deadline()
                self._run(message, next, steps)
                return
            steps.close()
            self._drop(message)
        except StopIteration as end:
            self._send(message, end.value)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._fail(message, error)
        self._steps.popleft()

    def _send(self, message: Message, content: bytes) -> None:
        self._end(message, (self._initial, cygrpc.SendMessageOperation(content, 0), self._well), "OK")

    def _drop(self, message: Message) -> None:
        self._send_status(message, cygrpc.StatusCode.cancelled, b"", None)

    def _refuse(self, message: Message, refusal: Refusal) -> None:
        """Turn a call away, whose observer has not begun."""
        message.rpc.count(refusal.error, refusal.code)
        self._tell(message, refusal.status)

    def _fail(self, message: Message, error: BaseException) -> None:
        self._tell(message, rpc_status.to_status(self._run(message, message.rpc.failed, error)))

    def _tell(self, message: Message, status: grpc.Status) -> None:
        code = _common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[status.code]
        self._send_status(message, code, status.details.encode(), status.trailing_metadata)

    def _send_status(self, message: Message, code: Any, text: bytes, metadata: Any) -> None:
        operations = (self._initial, cygrpc.SendStatusFromServerOperation(metadata, code, text, 0))
        self._end(message, operations, name_of(code))

    def _end(self, message: Message, operations: tuple[Any, ...], status: str) -> None:
        """The last of a call: any thread may send it."""
        if not message.watched:
            operations = (*operations, self._close)
        try:
            message.arrival.call.start_server_batch(operations, WENT)
        except BaseException:
            self._lost.append(message)
            raise
        finally:
            observer = self._observer
            if observer is None or not message.began:  # one that is refused at once has not begun
                pass
            elif message.span is None and status == "OK":  # `Observer.ended`, written out: a call costs as much
                durations = observer.well[message.path]
                durations.noted.append(_nanos() - message.began)
                if len(durations.noted) >= NOTED:
                    durations.fold()
            else:
                observer.ended(message, status)

    def _run(self, message: Message, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What `work` returns; what it logs is the call's."""
        if message.span is None or self._observer is None:
            return work(*args, **kwargs)
        return self._observer.run(message, work, *args, **kwargs)
