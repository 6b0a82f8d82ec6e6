"""What a call fails with, typed by whose turn it is.

Law: one class per thing that a caller can do about it; details as the server gave them, never parsed from text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Iterator

_Detail = TypeVar("_Detail", bound=Message)


class Violation(msgspec.Struct, frozen=True):
    """A field at fault: its path in the request, and what is wrong with it."""

    field: str
    description: str


class CallFailed(ArbiterError):
    """A call failed. `code` is the canonical code's name (``INVALID_ARGUMENT``), `reason` Arbiter's own word for it.

    `violations` name the fields at fault, `limit` the limit that was passed, `reference` the entry in the server's log;
    `retry_after` is in seconds, None when the server says nothing of it. What does not apply is empty.
    """

    def __init__(self, status: Status) -> None:
        """Take over what the server said."""
        self.code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN).name
        self.message = status.message
        infos = list(_details(status, ErrorInfo))
        metadata = {key: value for info in infos for key, value in info.metadata.items()}
        self.reason = infos[0].reason if infos else ""
        self.limit = metadata.get("limit", "")
        self.reference = metadata.get("reference", "")
        self.violations = tuple(
            Violation(each.field, each.description)
            for request in _details(status, BadRequest)
            for each in request.field_violations
        )
        delays = [retry.retry_delay.ToTimedelta().total_seconds() for retry in _details(status, RetryInfo)]
        self.retry_after: float | None = delays[0] if delays else None
        super().__init__(f"{self.code}: {self.message}")

    @property
    def field(self) -> str:
        """The path of the first field at fault, ``""`` for none."""
        return self.violations[0].field if self.violations else ""


class InvalidRequest(CallFailed):
    """The request is wrong as it stands: mend it."""


class UnknownName(CallFailed):
    """The request names something that the server does not have."""


class Conflict(CallFailed):
    """Somebody else was faster: read again, then retry."""


class PreconditionFailed(CallFailed):
    """What is stored does not fit the request."""


class ResourceExhausted(CallFailed):
    """A limit was passed: send less, or retry after `retry_after`."""


class DeadlineExceeded(CallFailed):
    """No answer came in time; a write may have been done all the same."""


class Unavailable(CallFailed):
    """No server answered, or it is not ready: retry."""


class ServerFault(CallFailed):
    """The server failed; `reference` finds the cause in its log."""


_CODES = {code.value[0]: code for code in grpc.StatusCode}
_KINDS: dict[grpc.StatusCode, type[CallFailed]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: UnknownName,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INTERNAL: ServerFault,
}


def failure(status: Status) -> CallFailed:
    """Return the exception for a google.rpc.Status."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _KINDS.get(code, CallFailed)(status)


def failure_of(error: grpc.RpcError) -> CallFailed:
    """Return the exception for what a stub raised. grpc's own errors (no server, too late) bring no details."""
    # What a stub raises is the call itself; the stubs' types do not say so.
    call = cast("grpc.Call", error)
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        # A proxy on the way changed the status and left the details behind.
        status = None
    return failure(status or Status(code=call.code().value[0], message=call.details() or ""))


def _details(status: Status, kind: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            yield detail
