"""grpcio's own way of serving: a thread waits for events, a pool does the work, each call in a thread of it.

Law: public names of grpcio alone, so that this goes on when its insides change. The only place that touches servicer
contexts. What a call is answered stands in the services.
"""

from __future__ import annotations

import functools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import grpc
from grpc_status import rpc_status

from arbiter.errors import LimitExceeded
from arbiter.server.calls import name_of, settled
from arbiter.server.status import status_of
from arbiter.telemetry.observer import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.rpc.status_pb2 import Status

    from arbiter.server.calls import Rpc
    from arbiter.server.gate import Gate
    from arbiter.telemetry.observer import Observer

    _Handler = grpc.RpcMethodHandler[Any, Any]
    _Interceptor = grpc.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.ServerInterceptor  # the stubs' classes take parameters, grpcio's own do not

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Pool(ThreadPoolExecutor):
    """Threads that do the work of calls, and how many calls they have: at work and waiting."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="arbiter-call")
        self._begun: set[Future[Any]] = set()

    @property
    def busy(self) -> int:
        """The calls that have not ended."""
        return len(self._begun)

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """As ThreadPoolExecutor does."""
        future = super().submit(fn, *args, **kwargs)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future


def overloaded(allowed: int) -> LimitExceeded:
    """Return the error for a call that is one too many."""
    return LimitExceeded(
        f"the server works on `concurrent_calls` {allowed:,} calls already: retry a little later, or spread the load",
        reason="concurrent_calls",
    )


def handler(rpc: Rpc) -> _Handler:
    """Return the handler of a unary method."""

    def answer(content: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return _work(rpc, content, context)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
            status = rpc.failed(error)
        abort(context, status)

    return grpc.unary_unary_rpc_method_handler(answer if rpc.observer is None else _observed(rpc, rpc.observer))


def _observed(rpc: Rpc, observer: Observer) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """As the above, followed by an observer."""

    def answer(content: bytes, context: grpc.ServicerContext) -> bytes:
        seen, code = Seen(rpc.path), 0
        observer.begin(seen, context.invocation_metadata())
        try:
            return observer.run(seen, _work, rpc, content, context)
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            status = observer.run(seen, rpc.failed, error)
            code = status.code
        finally:
            observer.end(seen, name_of(code))
        abort(context, status)

    return answer


def _work(rpc: Rpc, content: bytes, context: grpc.ServicerContext) -> bytes:
    due = time.time() + context.time_remaining()
    call = rpc.call(due, context.invocation_metadata(), context.peer, context.peer_identities)
    return settled(rpc.work(content, call), call)


class Door(_Interceptor):
    """Refuses the calls that are too many, and asks the gate for methods that are not ours: reflection, say.

    Our own methods ask it themselves, the same way in every transport, also those of the paths in `streams`, whose
    number is bounded by who answers them. `open_to_all` are services that anyone may ask.
    """

    def __init__(
        self,
        rpcs: Mapping[str, Rpc],
        gate: Gate | None,
        pool: Pool,
        allowed: int,
        open_to_all: Iterable[str],
        streams: Iterable[str] = (),
    ) -> None:
        self._gate = gate
        self._pool = pool
        self._allowed = allowed
        self._streams = frozenset(streams)
        self._open = tuple(f"/{service}/" for service in open_to_all)
        # In a thread of its own: to be refused, nobody waits for those that are served.
        self._refusing = ThreadPoolExecutor(1, "arbiter-refuse")
        self._refusals = {path: self._refusal(rpc) for path, rpc in rpcs.items()}

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], _Handler | None], details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Return the handler of a call that has come."""
        refusal = self._refusals.get(details.method)
        if refusal is not None:
            return refusal if self._pool.busy >= self._allowed else continuation(details)
        found = continuation(details)
        own = details.method in self._streams or details.method.startswith(self._open)
        if found is None or self._gate is None or own:
            return found
        return _guarded(found, details.method, self._gate)

    def close(self) -> None:
        """End the thread."""
        self._refusing.shutdown()

    def _refusal(self, rpc: Rpc) -> _Handler:
        def refuse(_content: bytes, context: grpc.ServicerContext) -> bytes:
            abort(context, rpc.failed(overloaded(self._allowed)))

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined] # grpcio's way to say it
        return grpc.unary_unary_rpc_method_handler(refuse)


def _guarded(found: _Handler, method: str, gate: Gate) -> _Handler:
    """The handler of any kind of method, behind the gate."""
    kinds = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    name, make = kinds[bool(found.request_streaming), bool(found.response_streaming)]
    behind = getattr(found, name)

    @functools.wraps(behind)
    def run(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            gate.admit(method, context.invocation_metadata(), context.peer_identities)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
            abort(context, status_of(error, method))
        return behind(request, context)

    return make(run, found.request_deserializer, found.response_serializer)


def abort(context: grpc.ServicerContext, status: Status) -> NoReturn:
    """End a call with a status."""
    context.abort_with_status(rpc_status.to_status(status))
