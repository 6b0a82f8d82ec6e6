"""From a gRPC call to bytes in, bytes out.

Law: the only place that touches grpc's servicer context. A service offers `Work`: the request's bytes and the call's
deadline go in, the response's bytes come out, errors are raised. So a transport can run the same work without contexts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from arbiter.errors import InvalidField
from arbiter.server.status import DeadlinePassed, status_of

if TYPE_CHECKING:
    from arbiter.telemetry.counters import Counters

# The deadline is in seconds of `time.monotonic`, None for none.
Work = Callable[[bytes, float | None], bytes]

_FAR_S = 1e8  # grpc gives calls without a deadline one some centuries away
_Request = TypeVar("_Request", bound=Message)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def unary(name: str, work: Work, counters: Counters) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return the handler of a unary call named `name` (``Service.Rpc``), for logs and counters."""

    def answer(content: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: RET503 - an abort never returns
        try:
            return work(content, deadline_of(context))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a status
            status = status_of(error, name)
        counters.errors[_NAMES[status.code]] += 1
        context.abort_with_status(rpc_status.to_status(status))

    return grpc.unary_unary_rpc_method_handler(answer)


def deadline_of(context: grpc.ServicerContext) -> float | None:
    """Return the deadline of a call. Raises DeadlinePassed when it lies behind: such a call gets no work."""
    remaining = context.time_remaining()
    if remaining > _FAR_S:
        return None
    if remaining <= 0:
        raise DeadlinePassed("the deadline had passed before work began: nothing was done; allow more time")
    return time.monotonic() + remaining


def parsed(request: type[_Request], work: Callable[[_Request, float | None], Message]) -> Work:
    """Return the Work of a function from message to message."""

    def run(content: bytes, deadline: float | None) -> bytes:
        return work(parse(request, content), deadline).SerializeToString()

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
