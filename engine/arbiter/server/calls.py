"""From a gRPC call to bytes in, bytes out, whatever transport carries it.

Law: no servicer contexts and no completion queues: a transport says what it knows in a `Call`. A service offers `Work`:
the request's bytes and the call go in, an answer comes out, errors are raised. An answer that is not there at once says
what it waits for, so that a transport that has one thread for all calls need not wait itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.runtime.faults import let_go
from arbiter.server.gate import Caller, Metadata  # noqa: TC001 - as above
from arbiter.server.status import PASSING_LIMITS, DeadlinePassed, status_of

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from arbiter.server.gate import Gate, Identities
    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.observer import Observer


class Call(msgspec.Struct, frozen=True):
    """What is known of a call beside its message.

    `deadline` is in seconds of `time.monotonic`, None for none. `caller` is None where nobody asks who calls. `peer`
    gives the address that the call came from.
    """

    deadline: float | None = None
    metadata: Metadata = ()
    caller: Caller | None = None
    peer: Callable[[], str | bytes] = str

    @property
    def late(self) -> bool:
        """Whether the deadline lies behind."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check_deadline(self) -> None:
        """Raise DeadlinePassed when the deadline lies behind: nobody waits for the answer."""
        if self.late:
            raise DeadlinePassed("the deadline passed before the answer was there: allow more time, or ask for less")


class Later(msgspec.Struct, frozen=True):
    """An answer that is there when `future` is: what `finish` makes of its result."""

    future: Future[Any]
    finish: Callable[[Any], bytes]


class Slow(msgspec.Struct, frozen=True):
    """An answer that takes long to work out: other calls should not wait for it."""

    run: Callable[[], bytes]


# An answer in steps: other calls may go between them.
Steps = Generator[None, None, bytes]
Answer = bytes | Later | Slow | Steps
Work = Callable[[bytes, Call], Answer]

LATE = "the deadline had passed before work began: nothing was done; allow more time"
_FAR_S = 4e9  # grpc gives calls without a deadline one some centuries away; in seconds since the epoch
_Request = TypeVar("_Request", bound=Message)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Entry:
    """A way in: the `path` of a method, its `name` (``Service.Rpc``) for logs, and who follows its calls."""

    def __init__(self, path: str, gate: Gate | None, counters: Counters, observer: Observer | None = None) -> None:
        self.path = path
        self.observer = observer
        self.name = path.rpartition("/")[0].rpartition(".")[2] + "." + path.rpartition("/")[2]
        self._gate = gate
        self._counters = counters

    def call(self, due: float, metadata: Metadata, peer: Callable[[], str | bytes], identities: Identities) -> Call:
        """Let a call in. `due` is its deadline in seconds since the epoch.

        Raises DeadlinePassed when that lies behind, since such a call gets no work, and what the gate raises.
        """
        deadline = None
        if due < _FAR_S:
            remaining = due - time.time()
            if remaining <= 0:
                raise DeadlinePassed(LATE)
            deadline = time.monotonic() + remaining
        caller = None if self._gate is None else self._gate.admit(self.path, metadata, identities)
        return Call(deadline, metadata, caller, peer)

    def failed(self, error: BaseException, within: str = "") -> Status:
        """Return what the caller is told of an error, which is counted and keeps no frames; `within` as `status_of`."""
        status = status_of(error, self.name, within)
        self.count(error, status.code)
        let_go(error)
        return status

    def count(self, error: BaseException, code: int) -> None:
        """Count an error that a caller was told."""
        self._counters.errors[name_of(code)] += 1
        if isinstance(error, LimitExceeded) and error.reason in PASSING_LIMITS:
            self._counters.shed[error.reason] += 1


class Rpc(Entry):
    """A unary method with its work."""

    def __init__(
        self, path: str, work: Work, gate: Gate | None, counters: Counters, observer: Observer | None = None
    ) -> None:
        super().__init__(path, gate, counters, observer)
        self.work = work


def name_of(code: int) -> str:
    """Return a status code's name: ``NOT_FOUND`` of 5."""
    return _NAMES[code]


def settled(answer: Answer, call: Call) -> bytes:
    """Return an answer once it is there, in a thread that may wait. Raises DeadlinePassed, and what the work raises."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, Slow):
        return answer.run()
    if isinstance(answer, Later):
        try:
            result = answer.future.result(None if call.deadline is None else max(0.0, call.deadline - time.monotonic()))
        except TimeoutError:
            raise late_write() from None
        return answer.finish(result)
    while True:
        call.check_deadline()
        try:
            next(answer)
        except StopIteration as end:
            content: bytes = end.value
            return content


def slowly(rpc: Rpc, content: bytes, call: Call) -> Slow:
    """Return the answer to a call that is known to take long before it is looked at."""
    return Slow(lambda: settled(rpc.work(content, call), call))


def written(call: Call, finish: Callable[[Any], bytes], future: Future[Any]) -> bytes:
    """Return the answer to a write that has ended. Raises DeadlinePassed when its caller no longer waits."""
    content = finish(future.result())
    if call.late:
        raise late_write()
    return content


def late_write() -> DeadlinePassed:
    """Return the error for a write that its caller could not wait for."""
    return DeadlinePassed(
        "the deadline passed before the write was on disk, and it may still get there: send the same request again, an "
        "event's id or an idempotency_key keeps it from counting twice"
    )


def parsed(request: type[_Request], work: Callable[[_Request, Call], Message]) -> Work:
    """Return the Work of a function from message to message."""

    def run(content: bytes, call: Call) -> bytes:
        return work(parse(request, content), call).SerializeToString()

    return run


def parse(request: type[_Request], content: bytes) -> _Request:
    """Return the message; raises InvalidField for bytes that are none."""
    try:
        return request.FromString(content)
    except DecodeError:
        raise malformed(request) from None


def malformed(request: type[Message]) -> InvalidField:
    """Return the error for bytes that are no such message."""
    name = request.DESCRIPTOR.full_name
    return InvalidField(
        f"the bytes are no {name}: malformed, text that is no UTF-8, or nested over 100 messages deep; generate the "
        "client from the published protos"
    )
